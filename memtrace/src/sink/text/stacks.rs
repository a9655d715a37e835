//! Who allocated what is not freed, and who freed.

use super::{Style, layout::Ink};
use crate::{
    model::report::{Frame, FreedBy, ProcessReport, ProcessStacks, RetainedBy, Stacks},
    sink::{folded, printable, size},
};

/// Call stacks that are shown of each kind.
const STACKS: usize = 10;
/// Frames that are shown of each.
const FRAMES: usize = 16;

/// Adds what was sampled to `out`.
pub(super) fn render(out: &mut String, stacks: &Stacks, all: &[ProcessReport], style: Style) {
    let Stacks { sample_bytes, samples, lost, lost_stacks, .. } = *stacks;
    if lost > 0 || lost_stacks > 0 {
        let text = format!(
            "incomplete: {lost} of {samples} samples and {lost_stacks} call stacks found no room; \
             sample less with a larger --sample-bytes"
        );
        style.paragraph(out, Some(Ink::Red), 4, &text);
    }
    for process in &stacks.processes {
        let ProcessStacks { tgid, retained, freed, freed_resident_estimate, .. } = *process;
        let comm = all.iter().find(|report| report.tgid == tgid).map_or("", |report| &report.comm);
        let resident = freed_resident_estimate.map_or_else(String::new, |bytes| {
            format!(", of which {} at most may still be resident", size(bytes))
        });
        let text = format!(
            "{} (pid {tgid}), by call stacks: about {} allocated and not freed, {} freed{resident}; \
             one byte of {} was sampled",
            printable(comm),
            size(retained),
            size(freed),
            size(sample_bytes),
        );
        style.paragraph(out, Some(Ink::Bold), 4, &text);
        let ProcessStacks { retained_by, freed_by, .. } = process;
        section(out, "allocated and not freed", retained_by, style, retained_row);
        section(out, "freed", freed_by, style, freed_row);
        out.push('\n');
    }
}

fn section<T>(
    out: &mut String,
    title: &str,
    rows: &[T],
    style: Style,
    row: fn(&T) -> (String, u64, &[Frame]),
) {
    if rows.is_empty() {
        return;
    }
    out.push_str(&format!("\n  {}\n", style.paint(Ink::Dim, title)));
    let (listed, more) = rows.split_at(rows.len().min(STACKS));
    for (text, _, frames) in listed.iter().map(row) {
        out.push_str(&format!("  {text}\n"));
        stack(out, frames);
    }
    if !more.is_empty() {
        let bytes = more.iter().map(|more| row(more).1).fold(0, u64::saturating_add);
        out.push_str(&format!("  … and {} more stacks, {}\n", more.len(), size(bytes)));
    }
}

fn retained_row(row: &RetainedBy) -> (String, u64, &[Frame]) {
    let RetainedBy { bytes, samples, frames } = row;
    (format!("{:>10}  {}", size(*bytes), counted(*samples)), *bytes, frames)
}

fn freed_row(row: &FreedBy) -> (String, u64, &[Frame]) {
    let FreedBy { bytes, resident_estimate, samples, frames } = row;
    let resident = resident_estimate.map_or_else(String::new, |bytes| {
        format!(", at most {} still resident (estimate)", size(bytes))
    });
    (format!("{:>10}{resident}  {}", size(*bytes), counted(*samples)), *bytes, frames)
}

fn counted(samples: u64) -> String {
    match samples {
        1 => "(1 sample)".to_owned(),
        _ => format!("({samples} samples)"),
    }
}

fn stack(out: &mut String, frames: &[Frame]) {
    if frames.is_empty() {
        out.push_str("              the call stack is not known\n");
    }
    for frame in frames.iter().take(FRAMES) {
        out.push_str(&format!("              {}\n", printable(&folded::name(frame))));
    }
    if frames.len() > FRAMES {
        out.push_str(&format!("              … and {} more\n", frames.len() - FRAMES));
    }
}
