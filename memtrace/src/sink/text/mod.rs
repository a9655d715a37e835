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
use super::{
    known, printable,
    words::{origin, warnings, was_traced},
};
use crate::model::report::Report;

pub use self::{diff::render_diff, machine::render_machine};
/// What other views for people show in the same words.
pub(super) use self::{
    layout::{end_of, wrap},
    machine::left_by,
    process::{allocators, memory, parts},
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
