//! Who allocated what is not freed, and who freed; who gave pages up, and who faulted.

use super::escape;
use crate::{
    model::report::{Frame, FreedBy, ProcessReport, RetainedBy, Stacks},
    sink::{
        folded, size,
        words::{counted, gave_up, lost_samples, page_faults, sampled, still_resident},
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
    if let Some(bytes) = stacks.sample_bytes {
        page.push_str(&format!(
            "<p class=\"note\">What was allocated and freed are estimates: one byte of {} was \
             sampled.</p>\n",
            size(bytes)
        ));
    }
    for process in &stacks.processes {
        let (who, what) = sampled(process, all);
        page.push_str(&format!("<p>{}</p>\n", escape::sentence(&format!("{who}: {what}"))));
        let retained_by =
            process.retained_by.iter().map(|RetainedBy { bytes, samples, frames }| {
                (*bytes, format!("{} {}", size(*bytes), counted(*samples)), frames.as_slice())
            });
        section(page, "allocated and not freed", retained_by.collect(), size);
        let freed_by = process.freed_by.iter().map(|row| {
            let FreedBy { bytes, samples, frames, .. } = row;
            let text = format!("{}{} {}", size(*bytes), still_resident(row), counted(*samples));
            (*bytes, text, frames.as_slice())
        });
        section(page, "freed", freed_by.collect(), size);
        let reclaimed_by = process.reclaimed_by.iter().flatten().map(|row| {
            let text = format!("{} {}", size(row.bytes()), escape::text(&gave_up(row)));
            (row.bytes(), text, row.frames.as_slice())
        });
        section(page, "given up in calls", reclaimed_by.collect(), size);
        let faulted_by = process.faulted_by.iter().flatten();
        let faulted_by =
            faulted_by.map(|row| (row.faults, page_faults(row.faults), row.frames.as_slice()));
        section(page, "page faults", faulted_by.collect(), page_faults);
    }
    page.push_str("</section>\n");
}

fn section(
    page: &mut String,
    title: &str,
    rows: Vec<(u64, String, &[Frame])>,
    unit: fn(u64) -> String,
) {
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
        let sum = more.iter().map(|row| row.0).fold(0, u64::saturating_add);
        page.push_str(&format!("<p>… and {} more stacks, {}</p>\n", more.len(), unit(sum)));
    }
}
