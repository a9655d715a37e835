//! Levels of evidence: what each gives, and what it leaves unknown.

use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use super::{
    driver::{Attached, Report, Started, kernel, memtrace, run, this, trial},
    maps::same_map,
    paths::check_at,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("evidence::the_default_is_the_most_that_the_kernel_gives", most),
        trial("evidence::args_tell_what_each_path_was_asked_and_no_more", || check_at("args", &[])),
        trial("evidence::rss_tells_what_was_detached_and_not_what_was_freed", rss),
        trial("evidence::args_read_the_map_that_they_do_not_follow", args_map),
        trial("evidence::args_follow_children_and_programs", args_tasks),
        trial("evidence::args_stream_calls_and_faults", args_events),
        trial("evidence::a_call_that_detaches_pages_says_how_long_it_took", durations),
    ]
}

/// Kernels from 6.1 on give frames, older ones arguments.
fn gives_frames() -> Result<bool, Failed> {
    Ok(kernel()? >= (6, 1))
}

fn most() -> Result<(), Failed> {
    let expected = if gives_frames()? { "frames" } else { "args" };
    let report = run(&[], &["nothing"])?;
    let output = Command::new(memtrace()).args(["doctor", "--format", "json"]).output()?;
    let doctor: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let got = [&report.0["window"]["evidence"], &doctor["evidence"]];
    if got != [expected, expected] {
        return Err(format!("{got:?} instead of {expected}").into());
    }
    let levels = doctor["costs"]["levels"].as_array().ok_or("no costs")?;
    let measured: Vec<&str> = levels
        .iter()
        .filter(|level| {
            level["traced"]["page_ns"].is_f64() && level["untraced"]["pair_ns"].is_f64()
        })
        .filter_map(|level| level["evidence"].as_str())
        .collect();
    let all: &[&str] = if gives_frames()? { &["args", "rss", "frames"] } else { &["args"] };
    if measured != all {
        return Err(format!("costs of {measured:?}: {}", doctor["costs"]).into());
    }
    if gives_frames()? {
        return Ok(());
    }
    // What it cannot give is refused, not made up.
    let mut refused = Command::new(memtrace());
    refused.args(["run", "--evidence", "frames", "--"]).arg(this()).args(["--workload", "nothing"]);
    let refused = refused.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    if refused.status.code() != Some(1) || !said.contains("--evidence args") {
        return Err(format!("{}: {said}", refused.status).into());
    }
    Ok(())
}

fn rss() -> Result<(), Failed> {
    let cases = ["munmap", "brk", "dont_need", "file_private", "fork_shared", "exec", "sigkill"];
    if gives_frames()? { check_at("rss", &cases) } else { most() }
}

fn args_map() -> Result<(), Failed> {
    let mut workload = Started::new(&["churn", "8"])?;
    let attached = Attached::new(&["--evidence", "args"], &[workload.pid()])?;
    workload.go()?;
    workload.expect("stopped")?;
    let report = attached.stop()?;
    if report.0["window"]["resyncs"] != 0 {
        return Err(format!("nothing was lost: {}", report.0["window"]).into());
    }
    same_map(&report, workload.pid())
}

/// Returns how often each process was torn down by exec and by exit, and its state.
fn ends(report: &Report) -> Vec<(u64, u64, &str)> {
    let calls = |process: &serde_json::Value, path: &str| {
        process["reclaimed"]["by_path"][path]["calls"].as_u64().unwrap_or(0)
    };
    let processes = report.processes().iter();
    processes
        .map(|process| {
            let state = process["state"].as_str().unwrap_or_default();
            (calls(process, "exec"), calls(process, "exit"), state)
        })
        .collect()
}

fn args_tasks() -> Result<(), Failed> {
    let follow = &["--follow", "--evidence", "args"];
    let expected = [
        ("fork_child", vec![(0, 1, "exited"), (0, 1, "exited")]),
        // The child had an address space of its own from its exec on.
        ("vfork_exec", vec![(0, 1, "exited"), (0, 1, "exited")]),
        ("exec", vec![(1, 1, "exited")]),
        ("sigkill", vec![(0, 1, "exited")]),
    ];
    for (workload, expected) in expected {
        let report = run(follow, &[workload])?;
        report.check_books()?;
        if ends(&report) != expected {
            let ends = ends(&report);
            return Err(format!("{workload}: (exec, exit, state) {ends:?}").into());
        }
    }
    Ok(())
}

/// Returns the events of a process that unmaps.
fn events(level: &str) -> Result<Vec<serde_json::Value>, Failed> {
    let mut traced = Command::new(memtrace());
    traced.args(["run", "--evidence", level, "--events=faults", "--format", "json", "-o"]);
    traced.args(["/dev/null", "--"]).arg(this()).args(["--workload", "munmap"]);
    let output = traced.stdin(Stdio::null()).output()?;
    let lines = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Each call that detached pages took some time, and less than since the event before it in its thread.
fn durations() -> Result<(), Failed> {
    let level = if gives_frames()? { "rss" } else { "args" };
    let (mut last, mut told) = (0, 0);
    for event in events(level)?.iter().filter(|event| event["tid"] == event["tgid"]) {
        let time_ns = event["time_ns"].as_u64().ok_or("an event without a time")?;
        let is_call = event["event"] == "call";
        let detached = is_call && event["zapped"].as_u64().is_some_and(|zapped| zapped > 0);
        match event["duration_ns"].as_u64() {
            None if detached => return Err(format!("how long is not told: {event}").into()),
            Some(_) if !detached => return Err(format!("it detached nothing: {event}").into()),
            Some(ns) if ns == 0 || ns > time_ns - last => {
                return Err(format!("the last event was at {last}: {event}").into());
            }
            Some(_) => told += 1,
            None => {}
        }
        last = time_ns;
    }
    let are_told = told > 0;
    if are_told == gives_frames()? {
        Ok(())
    } else {
        Err(format!("{told} calls at {level}").into())
    }
}

fn args_events() -> Result<(), Failed> {
    let events = events("args")?;
    let count = |event: &str| events.iter().filter(|line| line["event"] == event).count();
    let unmaps = events.iter().filter(|line| line["call"] == "munmap");
    let figures = ["zapped", "freed", "duration_ns"];
    let known = unmaps.clone().any(|line| figures.iter().any(|figure| !line[figure].is_null()));
    if unmaps.count() == 0 || known || count("fault") < super::paths::N as usize {
        return Err(format!("{} calls, {} faults", count("call"), count("fault")).into());
    }
    Ok(())
}
