//! What every report for people says in words: the answer, what to know about it, what things are called.
//!
//! Not here: how it is laid out, which is `text`'s and `html`'s.

mod figures;
mod sentence;
mod stacks;

use memtrace_common::Path;

pub(super) use self::{
    figures::{allocator_name, asked_for, faults, late, madv_free, reuses, stays, swap, time},
    sentence::{given_back, notes, sentence},
    stacks::{counted, gave_up, lost_samples, page_faults, sampled, still_resident},
};
use super::{printable, size};
use crate::model::{
    change::path_name,
    report::{PathReport, ProcessReport, Report, Window},
};

/// One figure of a row of a table.
pub(super) type Figure<T> = fn(&T) -> Option<u64>;

/// Returns what makes the report less than it should be.
pub(super) fn warnings(window: &Window) -> Vec<String> {
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
pub(super) fn total(figures: impl Iterator<Item = u64>) -> u64 {
    figures.fold(0, u64::saturating_add)
}

/// Tells a traced window from a single look.
pub(super) fn was_traced(window: &Window) -> bool {
    window.emitted > 0 || window.probes.iter().any(|probe| probe.state == "attached")
}

/// Returns where and when all this was measured.
pub(super) fn origin(report: &Report) -> String {
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

/// Returns what left by a path, if anything did.
pub(super) fn path(process: &ProcessReport, path: Path) -> Option<&PathReport> {
    process.reclaimed.by_path.get(path_name(path))
}

/// Returns when it had the memory that is told of.
pub(super) fn memory_title(process: &ProcessReport) -> &'static str {
    match process.state {
        _ if process.of_core => "memory in the core file",
        "exited" => "memory at exit",
        "running" => "memory now",
        _ => "memory when last seen",
    }
}

/// Returns what people call a path.
pub(super) const fn label(path: Path) -> &'static str {
    match path {
        Path::Munmap => "munmap",
        Path::Brk => "heap trim (brk)",
        Path::DontNeed => "MADV_DONTNEED",
        Path::Free => "MADV_FREE",
        Path::Remove => "MADV_REMOVE/punch hole",
        Path::Mremap => "mremap",
        Path::Overmap => "MAP_FIXED over",
        Path::Exec => "exec",
        Path::Exit => "exit",
        Path::Pressure => "pressure",
        Path::Other => "other",
    }
}
