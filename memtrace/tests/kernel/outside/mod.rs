//! Changes that no system call of the traced process made: by io_uring, a debugger, another
//! process, userfaultfd.

pub(crate) mod held;
pub(crate) mod oom;
pub(crate) mod workload;

use libtest_mimic::{Failed, Trial};

use super::{
    driver::{Attached, Figures, PAGE, Report, Started, run, trial},
    maps::same_map,
    paths::N,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("outside::advice_through_io_uring_is_booked", io_uring),
        trial("outside::calls_that_a_debugger_injects_are_followed", injected),
        trial("outside::what_userfaultfd_splits_and_moves_is_followed", userfaultfd),
        trial("outside::a_victim_that_another_releases_is_accounted_whole", released),
        trial("outside::what_the_oom_reaper_takes_is_accounted_whole", reaped),
        trial("outside::what_pressure_takes_is_booked_with_its_frames", pressed),
    ]
}

/// Attaches to a workload, has it do its work, and holds map and books against the kernel.
fn followed(workload: &str) -> Result<Report, Failed> {
    let mut workload = Started::new(&[workload])?;
    let attached = Attached::new(&[], &[workload.pid()])?;
    workload.go()?;
    workload.expect("stopped")?;
    let report = attached.stop()?;
    report.check_books()?;
    same_map(&report, workload.pid())?;
    Ok(report)
}

fn io_uring() -> Result<(), Failed> {
    let report = followed("io_uring_advice")?;
    let other = report.path("other");
    if !report.counts() {
        return if other == Figures::default() { Ok(()) } else { Err("nobody saw that".into()) };
    }
    // The kernel runs it in a thread of its own: there is no call to see.
    if other.zapped.abs_diff(N) > N / 100 || other.freed.abs_diff(N) > N / 10 {
        return Err(format!("{other:?}: {}", report.process()["reclaimed"]).into());
    }
    Ok(())
}

fn injected() -> Result<(), Failed> {
    let report = run(&["--follow"], &["inject"])?;
    report.check_books()?;
    let child = report.processes().get(1).ok_or("no child")?;
    let gone = report.gone(child, "munmap");
    if gone.abs_diff(N) > N / 100 {
        return Err(format!("the child was made to unmap {N} pages: {child}").into());
    }
    Ok(())
}

fn userfaultfd() -> Result<(), Failed> {
    followed("userfaultfd").map(drop)
}

fn released() -> Result<(), Failed> {
    let report = run(&["--follow"], &["release_victim"])?;
    report.check_books()?;
    let [caller, victim] = report.family()?;
    let zapped = |process: &serde_json::Value| {
        process["reclaimed"]["by_path"]["exit"]["zapped"].as_u64().unwrap_or(0) / PAGE
    };
    if !report.counts() {
        return Ok(());
    }
    if !(N..N + N / 2).contains(&zapped(victim)) || zapped(caller) > N / 2 {
        let (victim, caller) = (zapped(victim), zapped(caller));
        return Err(format!("exit: {victim} pages of the victim, {caller} of the caller").into());
    }
    Ok(())
}

fn reaped() -> Result<(), Failed> {
    let report = run(&["--follow"], &["oom_victim"])?;
    report.check_books()?;
    let [_, victim] = report.family()?;
    if victim["state"] != "exited" || victim["exit_code"] != 137 {
        return Err(format!("it was killed: {victim}").into());
    }
    if !report.counts() {
        return Ok(());
    }
    // The reaper does what its exit would have done. Its limit, without page tables and what the
    // kernel took for it.
    let exit = &victim["reclaimed"]["by_path"]["exit"];
    let [zapped, freed] = ["zapped", "freed"].map(|key| exit[key].as_u64().unwrap_or(0) / PAGE);
    if !(N - N / 8..N + N / 4).contains(&zapped) || freed < zapped - N / 10 {
        let missed = &report.0["window"]["missed"];
        let left = &victim["reclaimed"];
        return Err(format!("{zapped} pages, {freed} frames, {missed} missed: {left}").into());
    }
    Ok(())
}

fn pressed() -> Result<(), Failed> {
    let report = run(&["--follow"], &["pressed"])?;
    report.check_books()?;
    let [_, child] = report.family()?;
    let by_path = &child["reclaimed"]["by_path"];
    let pages = |path: &str, figure: &str| by_path[path][figure].as_u64().unwrap_or(0) / PAGE;
    if !report.counts() {
        return if by_path["pressure"].is_null() { Ok(()) } else { Err("nobody saw that".into()) };
    }
    let [taken, freed] = ["zapped", "freed"].map(|figure| pages("pressure", figure));
    // At least what does not fit, at most all that was given up lazily; the rest at munmap.
    let rest = pages("munmap", "zapped");
    let all = (taken + rest).abs_diff(N) <= N / 50;
    if !(N / 2..=N + N / 50).contains(&taken) || freed.abs_diff(taken) > taken / 50 || !all {
        return Err(format!("{taken} pages, {freed} frames: {by_path}").into());
    }
    Ok(())
}
