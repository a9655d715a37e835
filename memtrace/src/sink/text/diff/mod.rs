//! Two reports held against each other: the answer first, then what differs.

mod sentence;
mod tables;
#[cfg(test)]
mod tests;

use self::sentence::{alone, findings, sentence, who};
use super::{
    Style,
    layout::{
        Align::{Left, Right},
        Ink, columns,
    },
};
use crate::{
    model::diff::{Change, Diff, ProcessDiff, Side, Verdict},
    sink::{known, known_as, printable, size},
};

/// Processes that are told in full; the others get a row each.
const IN_FULL: usize = 4;
/// Rows of the others.
const ROWS: usize = 40;

/// Returns what differs as text that ends in a newline.
pub fn render_diff(diff: &Diff, style: Style) -> String {
    let mut out = String::new();
    for limit in &diff.limits {
        let ink = (limit.state != "held").then_some(Ink::Red);
        style.paragraph(&mut out, ink, 4, &verdict(limit));
    }
    for warning in warnings(diff) {
        style.paragraph(&mut out, Some(Ink::Red), 4, &warning);
    }
    if diff.processes.is_empty() {
        out.push_str("neither report has a process\n");
    }
    if diff.processes.len() > 1 {
        let text = format!("all processes: {}", sentence(&diff.all));
        style.paragraph(&mut out, Some(Ink::Bold), 4, &text);
        out.push('\n');
    }
    let (full, rest) = diff.processes.split_at(diff.processes.len().min(IN_FULL));
    for process in full {
        render_process(&mut out, process, style);
    }
    others(&mut out, rest, style);
    style.paragraph(&mut out, Some(Ink::Dim), 4, &origin(diff));
    out
}

fn render_process(out: &mut String, process: &ProcessDiff, style: Style) {
    if process.matched_by.is_none() {
        let text = format!("{}: {}", who(process), alone(&process.memory));
        style.paragraph(out, Some(Ink::Bold), 4, &text);
        out.push('\n');
        return;
    }
    let text = format!("{}: {}", who(process), sentence(&process.memory));
    style.paragraph(out, Some(Ink::Bold), 4, &text);
    for finding in findings(process) {
        style.paragraph(out, Some(Ink::Yellow), 4, &format!("  {finding}"));
    }
    out.push('\n');
    tables::memory(out, &process.memory, style);
    for allocator in &process.allocators {
        tables::allocator(out, allocator, style);
    }
    tables::paths(out, process, style);
    tables::regions(out, process, style);
}

fn others(out: &mut String, rest: &[ProcessDiff], style: Style) {
    if rest.is_empty() {
        return;
    }
    let (listed, more) = rest.split_at(rest.len().min(ROWS));
    let row = |process: &ProcessDiff| {
        let memory = &process.memory;
        vec![
            format!("  {}", who(process)),
            known(memory.resident.before),
            known(memory.resident.after),
            by(memory.resident),
            by(memory.freed_not_reclaimed),
        ]
    };
    let rows: Vec<Vec<String>> = listed.iter().map(row).collect();
    let head = [
        ("other processes", Left),
        ("resident before", Right),
        ("after", Right),
        ("change", Right),
        ("freed, not reclaimed", Right),
    ];
    style.table(out, &columns(&head, &rows));
    if !more.is_empty() {
        out.push_str(&format!("    … and {} more, which changed less\n", more.len()));
    }
    out.push('\n');
}

fn verdict(limit: &Verdict) -> String {
    let Verdict { class, allowed, change, state } = *limit;
    let allowed = size(allowed);
    match state {
        "unknown" => {
            format!(
                "limit: {class} may grow by {allowed}; not known: one of the reports does not tell"
            )
        }
        _ => {
            format!("limit: {class} may grow by {allowed}: {state} ({})", known_as(change, signed))
        }
    }
}

/// Returns what makes the two less than comparable.
fn warnings(diff: &Diff) -> Vec<String> {
    let mut warnings = Vec::new();
    let Diff { before, after, .. } = diff;
    for (side, when) in [(before, "before"), (after, "after")] {
        if !side.complete {
            warnings.push(format!("incomplete: the report {when} lacks part of what happened"));
        }
    }
    let what = |side: &Side| match side.traced {
        true => format!("traced (evidence {})", side.evidence.name()),
        false => "one look".to_owned(),
    };
    if what(before) != what(after) {
        let (before, after) = (what(before), what(after));
        warnings
            .push(format!("before is {before}, after {after}: what only one of them knows is –"));
    }
    let state = |process: &ProcessDiff| {
        Some([process.before.as_ref()?.state.clone(), process.after.as_ref()?.state.clone()])
    };
    if diff.processes.iter().filter_map(state).any(|[before, after]| before != after) {
        warnings.push("one is of a running process, the other of its exit".to_owned());
    }
    let walked = |process: &ProcessDiff| {
        let allocator = process.memory.allocator;
        let both = process.before.is_some() && process.after.is_some();
        both && allocator.before.is_some() != allocator.after.is_some()
    };
    if diff.processes.iter().any(walked) {
        warnings.push(
            "the allocators of one side only were walked: what those of the other keep counts as \
             live there"
                .to_owned(),
        );
    }
    warnings
}

/// Returns where the two reports are from.
fn origin(diff: &Diff) -> String {
    let Diff { before, after, .. } = diff;
    let [first, second] = [before, after].map(|side| printable(&side.name));
    let [old, new] = [before, after].map(|side| printable(&side.kernel));
    let kernel =
        if old == new { format!("Linux {old}") } else { format!("Linux {old}, then {new}") };
    format!("before: {first}; after: {second}; {kernel}")
}

/// Returns a difference with its sign.
fn signed(bytes: i64) -> String {
    let sign = match bytes {
        ..0 => "-",
        0 => "",
        _ => "+",
    };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}

/// Returns by how much a figure changed.
fn by(change: Change) -> String {
    known_as(change.change, |bytes| if bytes == 0 { "=".to_owned() } else { signed(bytes) })
}
