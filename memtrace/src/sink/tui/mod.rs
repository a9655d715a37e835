//! The live view in a terminal: what is shown is a function of a [`View`], keys change the view.
//!
//! Not here: the terminal itself, and where the figures come from.

mod chart;
mod help;
mod keys;
mod list;
mod page;
mod paint;
mod view;

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use self::paint::{Paint, fit};
pub use self::{
    keys::Step,
    view::{Page, Sort, Tab, View},
};

/// Draws a view.
pub fn draw(frame: &mut Frame<'_>, view: &View) {
    let area = frame.area();
    let mut lines = match &view.page {
        _ if view.help => help::lines(view),
        Some(open) => page::lines(view, open, area.width, area.height.saturating_sub(1)),
        None => list::lines(view, area.width, area.height.saturating_sub(1)),
    };
    lines.truncate(usize::from(area.height.saturating_sub(1)));
    for (y, line) in (area.y..).zip(lines) {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
    if area.height > 0 {
        let last = Rect { y: area.bottom() - 1, height: 1, ..area };
        frame.render_widget(footer(view, area.width), last);
    }
}

/// Returns the keys that do something now, as many as fit.
fn footer(view: &View, width: u16) -> Line<'static> {
    let paint = Paint { color: view.color };
    if view.typing {
        let text = format!("/{}", crate::sink::printable(&view.filter));
        let typed = Span::raw(fit(&text, usize::from(width).saturating_sub(24)));
        return Line::from(vec![typed, Span::raw("█  "), paint.dim("Enter keep  Esc drop")]);
    }
    let mut spans = Vec::new();
    let mut used = 0;
    for (key, what) in keys::shown(view) {
        let gap = if used == 0 { 0 } else { 2 };
        let len = key.chars().count() + 1 + what.chars().count();
        if used + gap + len > usize::from(width) {
            break;
        }
        used += gap + len;
        spans.extend([Span::raw(" ".repeat(gap)), paint.bold(key), Span::raw(" ")]);
        spans.push(Span::raw(what));
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests;
