//! How all this was measured: the window, what was lost, the probes, the machine.

use super::{
    escape,
    table::{Cell, Column, Line, lines, table},
};
use crate::{
    model::report::{Evidence, Host, ProbeReport, Report, Window},
    sink::{
        known_as, size,
        words::{time, was_traced},
    },
};

/// Adds how it was measured.
pub(super) fn render(page: &mut String, report: &Report) {
    page.push_str("<section class=\"about\"><h2>How this was measured</h2>\n");
    let Window {
        evidence,
        start_ns,
        end_ns,
        emitted,
        dropped,
        untracked,
        missed,
        resyncs,
        complete,
        ref probes,
    } = report.window;
    if was_traced(&report.window) {
        let whole = if complete { "complete" } else { "incomplete" };
        let knows = match evidence {
            Evidence::Args => "what calls asked for, not what left or came back",
            Evidence::Rss => "what left the process, not what the kernel got back",
            Evidence::Frames => "what the kernel's page allocator really got back",
        };
        page.push_str(&format!(
            "<p>Traced for {}, {whole}. Evidence <code>{}</code>: {knows}.</p>\n",
            time(end_ns.saturating_sub(start_ns)),
            evidence.name()
        ));
        let line = |name, field: &str, count: u64, note: &str| Line {
            name,
            pointer: format!("/window/{field}"),
            cell: Cell::Count(Some(count)),
            note: note.to_owned(),
        };
        let all = [
            line("records", "emitted", emitted, "written by the probes"),
            line("lost", "dropped", dropped, "since the ring buffer was full"),
            line(
                "not followed",
                "untracked",
                untracked,
                "address spaces for which there was no room",
            ),
            line(
                "skipped",
                "missed",
                missed,
                "runs of probes that the kernel skipped, on the whole machine",
            ),
            line("read again", "resyncs", resyncs, "region maps, since something was lost"),
        ];
        lines(page, "The window", &all);
    } else {
        page.push_str("<p>One look, not traced: nothing is known of what left.</p>\n");
    }
    let Host { kernel, arch, page_size, init_on_alloc, init_on_free } = &report.host;
    let yes = |known: Option<bool>| known_as(known, |is| if is { "yes" } else { "no" }.to_owned());
    let kernel = escape::text(kernel);
    let arch = escape::text(arch);
    page.push_str(&format!(
        "<p>Linux {kernel} {arch}, pages of {}; zeroes frames that it hands out: {}, that it gets \
         back: {}.</p>\n",
        size(*page_size),
        yes(*init_on_alloc),
        yes(*init_on_free)
    ));
    if !probes.is_empty() {
        let columns: Vec<Column<'_, &ProbeReport>> = vec![
            Column::words("probe", |p: &&ProbeReport| Cell::Text(p.name.clone())),
            Column::words("state", |p: &&ProbeReport| Cell::Text(p.state.to_owned())),
            Column::words("hook", |p: &&ProbeReport| {
                Cell::Code(p.hook.clone().unwrap_or_else(|| "–".to_owned()))
            }),
        ];
        page.push_str("<details><summary>Probes</summary>\n");
        table(page, "Probes", "probes", &columns, probes.iter().map(|p| (String::new(), p)));
        page.push_str("</details>\n");
    }
    page.push_str(
        "<p>This page carries the whole report as JSON (docs/OUTPUT.md). <span data-draw=\"save\"></span></p>\n\
         </section>\n",
    );
}
