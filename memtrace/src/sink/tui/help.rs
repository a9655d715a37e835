//! What the keys do and what the figures mean.

use ratatui::text::{Line, Span};

use super::{paint::Paint, view::View};

const KEYS: &[(&str, &str)] = &[
    ("Enter", "looks closely at a process; Esc goes back"),
    ("↑ ↓ j k", "move, or scroll; PageUp, PageDown, Home and End too"),
    ("1 2 3 4", "freed, RSS, reclaimed/s or faults/s first; s takes the next"),
    ("/", "shows only names that have a text, or PIDs that begin with it"),
    ("Space", "stands still and gathers nothing; again to go on"),
    ("Tab 1-5", "the next tab of a process, or one of them"),
    ("w", "walks the heap of the process again, now"),
    ("Ctrl-Z", "to the background"),
    ("q", "ends"),
];

const FIGURES: &[(&str, &str)] = &[
    ("RSS", "frames that it has mapped; shared ones count for each process"),
    ("freed", "given up by the program, frames still taken: free in allocators,"),
    ("", "or MADV_FREEd and not yet taken; – before the first walk"),
    ("reclaimed/s", "what the kernel's page allocator got back, a second; needs root"),
    ("faults/s", "page faults, minor and major, a second"),
    ("made of", "what RSS is made of"),
];

pub(super) fn lines(view: &View) -> Vec<Line<'static>> {
    let paint = Paint { color: view.color };
    let mut lines = vec![Line::from(paint.bold("memtrace top")), Line::default()];
    let mut add = |rows: &[(&str, &str)]| {
        for (name, what) in rows {
            let name = paint.bold(format!("  {name:<13}"));
            lines.push(Line::from(vec![name, Span::raw((*what).to_owned())]));
        }
        lines.push(Line::default());
    };
    add(KEYS);
    add(FIGURES);
    lines.push(paint.legend(&[0, 1, 2, 3, 4]));
    lines
}
