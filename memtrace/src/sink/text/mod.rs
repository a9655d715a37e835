//! The report for people: for each process the answer first, then the figures behind it.
//!
//! Not for programs: the wording changes, docs/OUTPUT.md has the JSON that does not.

mod diff;
mod layout;
mod machine;
mod process;
mod stacks;
mod summary;
#[cfg(test)]
mod tests;

use self::layout::Ink;
use super::{known, printable, size};
use crate::model::report::{Report, Window};

pub use self::{diff::render_diff, machine::render_machine};
/// What other views for people show in the same words.
pub(super) use self::{
    layout::{end_of, wrap},
    machine::left_by,
    process::{allocators, memory, notes, parts, sentence},
};

/// How the text is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Use ANSI colours.
    pub color: bool,
    /// Columns at which sentences are wrapped and names cut; 0 for no limit.
    pub width: usize,
}

/// Returns the report as text that ends in a newline.
pub fn render(report: &Report, style: Style) -> String {
    let mut out = String::new();
    let window = &report.window;
    for warning in warnings(window) {
        style.paragraph(&mut out, Some(Ink::Red), 4, &warning);
    }
    if report.processes.is_empty() {
        out.push_str("no process was traced\n");
    }
    for (index, process) in summary::summarize(&mut out, report, style).into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        process::render(&mut out, process, was_traced(window).then_some(window.evidence), style);
    }
    out.push('\n');
    if let Some(stacks) = &report.stacks {
        stacks::render(&mut out, stacks, &report.processes, style);
    }
    style.paragraph(&mut out, Some(Ink::Dim), 4, &origin(report));
    out
}

/// Returns the region map of each process as text that ends in a newline: every region, in the
/// order given.
pub fn render_maps(report: &Report, style: Style) -> String {
    let mut out = String::new();
    for process in &report.processes {
        style.paragraph(
            &mut out,
            None,
            4,
            &format!(
                "{} (pid {}): {} regions, {} mapped, {} resident, {} swapped",
                printable(&process.comm),
                process.tgid,
                process.regions.len(),
                known(process.memory.mapped),
                known(process.memory.resident),
                known(process.memory.swapped),
            ),
        );
        out.push('\n');
        process::region_table(&mut out, "region", &process.regions, style);
    }
    out
}

/// Returns what makes the report less than it should be.
fn warnings(window: &Window) -> Vec<String> {
    let mut warnings = vec![];
    if !window.complete {
        let records = window.emitted.saturating_add(window.dropped);
        warnings.push(match window.dropped {
            0 if window.untracked > 0 => format!(
                "incomplete: {} address spaces were not followed because the probes' table was full",
                window.untracked
            ),
            0 => "incomplete: part of what happened was not seen, so the figures may be too small"
                .to_owned(),
            dropped => format!(
                "incomplete: {dropped} of {records} records were lost because the ring buffer was \
                 full, so the figures may be too small; trace again with a larger --buffer"
            ),
        });
    }
    let unsupported: Vec<String> = window
        .probes
        .iter()
        .filter(|probe| probe.state == "unsupported")
        .map(|probe| printable(&probe.name))
        .collect();
    if !unsupported.is_empty() {
        warnings.push(format!(
            "not measured, for this kernel has no hook for it: {} (memtrace doctor says more)",
            unsupported.join(", ")
        ));
    }
    warnings
}

/// Returns a sum that stops at the largest number.
fn total(figures: impl Iterator<Item = u64>) -> u64 {
    figures.fold(0, u64::saturating_add)
}

/// Tells a traced window from a single look.
fn was_traced(window: &Window) -> bool {
    window.emitted > 0 || window.probes.iter().any(|probe| probe.state == "attached")
}

/// Returns where and when all this was measured.
fn origin(report: &Report) -> String {
    let Window { evidence, start_ns, end_ns, emitted, dropped, missed, resyncs, .. } =
        report.window;
    let host = format!(
        "Linux {} {}, pages of {}",
        printable(&report.host.kernel),
        printable(&report.host.arch),
        size(report.host.page_size)
    );
    if report.processes.iter().any(|process| process.of_core) {
        return format!("from a core file, not traced; read on {host}");
    }
    if !was_traced(&report.window) {
        return format!("one look, not traced; {host}");
    }
    let seconds = end_ns.saturating_sub(start_ns) as f64 / 1e9;
    let lost = if dropped == 0 { "none".to_owned() } else { dropped.to_string() };
    let again = match resyncs {
        0 => String::new(),
        1 => ", 1 region map read again".to_owned(),
        _ => format!(", {resyncs} region maps read again"),
    };
    let skipped = match missed {
        0 => String::new(),
        _ => format!(", {missed} probe runs skipped by the kernel"),
    };
    let evidence = evidence.name();
    format!(
        "traced for {seconds:.3} s, evidence {evidence}; {emitted} records, {lost} \
         lost{skipped}{again}; {host}"
    )
}
