//! What became of memory that a program touched, gave up or lost: how its frames were filled, what
//! `MADV_FREE` and swap did, why frames stayed, and who got those that were freed.

mod fills;
mod free;
mod kept;
mod remanence;
mod swap;
pub(crate) mod workload;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::driver::{Attached, PAGE, Report, Started, run, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let levels = trial("afterlife::what_a_level_does_not_measure_is_null", levels);
    [vec![levels], fills::trials(), free::trials(), kept::trials(), remanence::trials()]
        .into_iter()
        .flatten()
        .chain(swap::trials())
        .collect()
}

/// What a test may be off where nothing else of the machine is in it: per-CPU batches, the start of
/// a program.
const FEW: u64 = 32;

/// Returns a figure of bytes, in pages.
fn pages(figure: &Value) -> Result<u64, String> {
    figure.as_u64().map(|bytes| bytes / PAGE).ok_or_else(|| format!("{figure}: not measured"))
}

/// Checks figures within what each may be off. Errors: names all of them.
fn check(figures: &[(&str, u64, u64, u64)], of: &Value) -> Result<(), Failed> {
    let wrong = |&&(_, is, wanted, off): &&(&str, u64, u64, u64)| is.abs_diff(wanted) > off;
    if !figures.iter().any(|figure| wrong(&figure)) {
        return Ok(());
    }
    let all: Vec<String> = figures
        .iter()
        .map(|(name, is, wanted, off)| format!("{name} {is} instead of {wanted} (± {off})"))
        .collect();
    Err(format!("{}; {of}", all.join(", ")).into())
}

/// Attaches to a program, lets it take its steps, and returns the report while it lives.
fn living(program: &str, steps: &[&str]) -> Result<Report, Failed> {
    let mut workload = Started::new(&["afterlife", program])?;
    let attached = Attached::new(&[], &[workload.pid()])?;
    for step in steps {
        workload.go()?;
        workload.expect(step)?;
    }
    let report = attached.stop()?;
    report.check_books()?;
    if report.process()["state"] != "running" {
        return Err(format!("it lives: {}", report.process()).into());
    }
    Ok(report)
}

fn levels() -> Result<(), Failed> {
    // What each figure needs at least; `kept_by_reason` of a path that the workload takes.
    const RSS: &[&str] = &["/swap/out", "/swap/in", "/madv_free/taken"];
    const FRAMES: &[&str] = &[
        "/faults/zeroed",
        "/faults/copied",
        "/faults/zeroed_by_kind/anon",
        "/faults/zeroed_by_kind/huge",
        "/faults/zeroed_by_kind/shmem",
        "/reclaimed/by_path/munmap/kept_by_reason",
    ];
    let given = run(&[], &["munmap"])?.0["window"]["evidence"].clone();
    for (level, gives_rss) in [("args", false), ("rss", true)] {
        if gives_rss && given == "args" {
            continue;
        }
        let report = run(&["--evidence", level], &["munmap"])?;
        let process = report.process();
        let known = |path: &&&str| process.pointer(path).is_some_and(|figure| !figure.is_null());
        let told: Vec<_> = [RSS, FRAMES].into_iter().flatten().filter(known).collect();
        let wanted: Vec<_> = if gives_rss { RSS.iter().collect() } else { Vec::new() };
        if told != wanted || !process["remanence"].is_null() {
            return Err(format!("{level} tells {told:?} instead of {wanted:?}: {process}").into());
        }
    }
    Ok(())
}

/// Tells whether frames were counted. Errors: a figure is known although they were not.
fn counts_frames(report: &Report, unknown: &[&Value]) -> Result<bool, Failed> {
    if report.0["window"]["evidence"] == "frames" {
        return Ok(true);
    }
    if unknown.iter().any(|figure| !figure.is_null()) {
        return Err(format!("nobody counted that: {}", report.process()).into());
    }
    Ok(false)
}
