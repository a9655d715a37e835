//! How long freed frames keep what was in them, and who gets them.

use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::{
    super::{
        driver::{Report, kernel, memtrace, run, this, trial},
        paths::N,
    },
    FEW,
};

/// How often a workload maps, touches and unmaps its pages.
pub(super) const ROUNDS: u64 = 4;

/// Children that want as many pages each as their parent gave up just before.
pub(super) const CHILDREN: u64 = 64;
pub(super) const EACH: u64 = 256;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("afterlife::a_process_gets_its_own_frames_again", itself),
        trial("afterlife::a_child_gets_frames_that_its_parent_freed", others),
        trial("afterlife::remanence_is_null_unless_it_is_asked_for", unasked),
        trial("afterlife::remanence_that_the_kernel_does_not_give_is_missed_aloud", unmeasured),
    ]
}

/// Traces a program with `--remanence`.
fn traced(program: &[&str]) -> Result<Report, Failed> {
    let report = run(&["--follow", "--remanence"], &[&["afterlife"], program].concat())?;
    report.check_books()?;
    Ok(report)
}

/// Returns the remanence of a process, if frames were counted, after checks that hold for any.
fn remanence<'a>(report: &Report, process: &'a Value) -> Result<Option<&'a Value>, Failed> {
    let found = &process["remanence"];
    if report.0["window"]["evidence"] != "frames" {
        return if found.is_null() { Ok(None) } else { Err(format!("unmeasured: {found}").into()) };
    }
    let number = |value: &Value| value.as_u64().ok_or_else(|| format!("{value} in {found}"));
    let window = &report.0["window"];
    let length_ns = number(&window["end_ns"])? - number(&window["start_ns"])?;
    let mut frames = number(&found["still_free"])?;
    for reuse in [&found["to_itself"], &found["to_others"]] {
        let steps = reuse["histogram"].as_array().ok_or("a histogram")?;
        let mut sum = 0;
        for step in steps {
            sum += number(&step["frames"])?;
        }
        let [half, most, longest] = ["p50_ns", "p99_ns", "max_ns"].map(|key| number(&reuse[key]));
        let (half, most, longest) = (half?, most?, longest?);
        let of_its_own = number(&reuse["frames"])?;
        // Percentiles are ends of steps, each the next power of two.
        let in_order = half <= most && most < 2 * longest.max(1) && longest < length_ns;
        if sum != of_its_own || !in_order || (of_its_own > 0) != (longest > 0) {
            return Err(format!("in {length_ns} ns: {reuse}").into());
        }
        frames += of_its_own;
    }
    let zeroed = number(&found["zeroed_for_others"])?;
    if frames != number(&found["freed"])? || zeroed > number(&found["to_others"]["frames"])? {
        return Err(format!("{frames} frames in all: {found}").into());
    }
    Ok(Some(found))
}

fn itself() -> Result<(), Failed> {
    let report = traced(&["rounds"])?;
    let Some(found) = remanence(&report, report.process())? else { return Ok(()) };
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let (freed, again) = (number(&found["freed"]), number(&found["to_itself"]["frames"]));
    // It wants them at once. Others get some meanwhile, and what it does itself at its end.
    let all = ROUNDS * N;
    if !(all..all + N / 2).contains(&(freed + FEW)) || again < N {
        return Err(format!("of {all} frames {freed} were freed, {again} again: {found}").into());
    }
    Ok(())
}

fn others() -> Result<(), Failed> {
    let report = traced(&["children_after"])?;
    let Some(found) = remanence(&report, report.process())? else { return Ok(()) };
    let zeroed = found["zeroed_for_others"].as_u64().unwrap_or(0);
    let frames = found["to_others"]["frames"].as_u64().unwrap_or(0);
    // Some went to whoever came first, or back to itself.
    if zeroed.min(frames) < CHILDREN * EACH / 20 {
        return Err(format!("others got {frames} frames, {zeroed} zeroed: {found}").into());
    }
    Ok(())
}

fn unasked() -> Result<(), Failed> {
    let report = run(&["--follow"], &["afterlife", "rounds"])?;
    let told = report.processes().iter().find(|process| !process["remanence"].is_null());
    told.map_or(Ok(()), |process| Err(format!("nobody asked: {process}").into()))
}

/// Where only the default level is not enough, the rest of the report is made all the same.
fn unmeasured() -> Result<(), Failed> {
    let mut traced = Command::new(memtrace());
    traced.args(["run", "--remanence", "--"]).arg(this()).args(["--workload", "nothing"]);
    let output = traced.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let misses = said.contains("no remanence is measured");
    if !output.status.success() || misses == (kernel()? >= (6, 1)) {
        return Err(format!("{}: {said}", output.status).into());
    }
    Ok(())
}
