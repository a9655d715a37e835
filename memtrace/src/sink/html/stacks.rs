//! Who allocated what is not freed, and who freed.

use super::escape;
use crate::{
    model::report::{Frame, FreedBy, ProcessReport, RetainedBy, Stacks},
    sink::{
        folded, size,
        words::{counted, lost_samples, sampled, still_resident},
    },
};

/// Call stacks of each kind that are shown of a process. The JSON report has all.
const STACKS: usize = 50;

/// Adds what was sampled.
pub(super) fn render(page: &mut String, stacks: &Stacks, all: &[ProcessReport]) {
    page.push_str("<section class=\"stacks\"><h2>Call stacks</h2>\n");
    if let Some(lost) = lost_samples(stacks) {
        page.push_str(&format!("<p class=\"warning\"><strong>Incomplete</strong> {lost}</p>\n"));
    }
    page.push_str(&format!(
        "<p class=\"note\">Estimates: one byte of {} was sampled.</p>\n",
        size(stacks.sample_bytes)
    ));
    for process in &stacks.processes {
        let (who, what) = sampled(process, all);
        page.push_str(&format!("<p>{}</p>\n", escape::sentence(&format!("{who}: {what}"))));
        let retained_by =
            process.retained_by.iter().map(|RetainedBy { bytes, samples, frames }| {
                (*bytes, format!("{} {}", size(*bytes), counted(*samples)), frames.as_slice())
            });
        section(page, "allocated and not freed", retained_by.collect());
        let freed_by = process.freed_by.iter().map(|row| {
            let FreedBy { bytes, samples, frames, .. } = row;
            let text = format!("{}{} {}", size(*bytes), still_resident(row), counted(*samples));
            (*bytes, text, frames.as_slice())
        });
        section(page, "freed", freed_by.collect());
    }
    page.push_str("</section>\n");
}

fn section(page: &mut String, title: &str, rows: Vec<(u64, String, &[Frame])>) {
    if rows.is_empty() {
        return;
    }
    page.push_str(&format!("<h3>{title}</h3>\n<ol>"));
    for (_, text, frames) in rows.iter().take(STACKS) {
        page.push_str(&format!("<li><details open><summary>{text}</summary><ol class=\"frames\">"));
        for frame in frames.iter() {
            page.push_str(&format!("<li><code>{}</code></li>", escape::text(&folded::name(frame))));
        }
        if frames.is_empty() {
            page.push_str("<li>the call stack is not known</li>");
        }
        page.push_str("</ol></details></li>\n");
    }
    page.push_str("</ol>\n");
    if let Some(more) = rows.get(STACKS..).filter(|more| !more.is_empty()) {
        let bytes = more.iter().map(|row| row.0).fold(0, u64::saturating_add);
        page.push_str(&format!("<p>… and {} more stacks, {}</p>\n", more.len(), size(bytes)));
    }
}
