//! Who allocated what is not freed, and who freed.

use super::escape;
use crate::{
    model::report::{Frame, FreedBy, ProcessReport, ProcessStacks, RetainedBy, Stacks},
    sink::{folded, printable, size},
};

/// Call stacks of each kind that are shown of a process. The JSON report has all.
const STACKS: usize = 50;

/// Adds what was sampled.
pub(super) fn render(page: &mut String, stacks: &Stacks, all: &[ProcessReport]) {
    let Stacks { sample_bytes, samples, lost, lost_stacks, .. } = *stacks;
    page.push_str("<section class=\"stacks\"><h2>Call stacks</h2>\n");
    if lost > 0 || lost_stacks > 0 {
        page.push_str(&format!(
            "<p class=\"warning\"><strong>Incomplete</strong> {lost} of {samples} samples and \
             {lost_stacks} call stacks found no room; sample less with a larger --sample-bytes</p>\n"
        ));
    }
    page.push_str(&format!(
        "<p class=\"note\">Estimates: one byte of {} was sampled.</p>\n",
        size(sample_bytes)
    ));
    for process in &stacks.processes {
        let ProcessStacks { tgid, retained, freed, freed_resident_estimate, .. } = *process;
        let comm = all.iter().find(|report| report.tgid == tgid).map_or("", |report| &report.comm);
        let resident = freed_resident_estimate.map_or_else(String::new, |bytes| {
            format!(", of which {} at most may still be resident", size(bytes))
        });
        let text = format!(
            "{} (pid {tgid}): about {} allocated and not freed, {} freed{resident}",
            printable(comm),
            size(retained),
            size(freed),
        );
        page.push_str(&format!("<p>{}</p>\n", escape::sentence(&text)));
        let retained_by =
            process.retained_by.iter().map(|RetainedBy { bytes, samples, frames }| {
                (*bytes, format!("{} {}", size(*bytes), counted(*samples)), frames.as_slice())
            });
        section(page, "allocated and not freed", retained_by.collect());
        let freed_by = process.freed_by.iter().map(|row| {
            let FreedBy { bytes, resident_estimate, samples, frames } = row;
            let resident = resident_estimate.map_or_else(String::new, |bytes| {
                format!(", at most {} still resident (estimate)", size(bytes))
            });
            let text = format!("{}{resident} {}", size(*bytes), counted(*samples));
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

fn counted(samples: u64) -> String {
    match samples {
        1 => "(1 sample)".to_owned(),
        _ => format!("({samples} samples)"),
    }
}
