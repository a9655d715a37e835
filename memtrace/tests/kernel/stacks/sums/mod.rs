//! `--stacks=reclaimed` and `--stacks=faults` on programs that give up and touch known pages in known
//! functions.

mod workload;

use std::{fs, process::Command};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

pub(crate) use self::workload::run;
use self::workload::{ADVISED, FEW, MORE, READ, SET, TOUCHED};
use super::super::driver::{
    Attached, PAGE, Report, Started, memtrace, run as run_traced, scratch, this, trial_or_ignored,
};

const BOTH: &str = "--stacks=reclaimed,faults";

pub(super) fn trials() -> Vec<Trial> {
    [
        ("what_was_given_up_is_its_callers", given_up as fn() -> _),
        ("a_command_is_known_from_its_first_instruction", at_once),
        ("an_exec_leaves_its_sums", executed),
        ("children_are_summed_for_themselves", children),
        ("faults_are_counted_at_every_level", faults_alone),
        ("a_flame_graph_holds_what_the_report_tells", flames),
        ("allocations_are_sampled_beside_it", with_allocations),
    ]
    .into_iter()
    .map(|(name, test): (_, fn() -> Result<(), Failed>)| {
        trial_or_ignored(&format!("stacks::sums::{name}"), move || optional(test()))
    })
    .collect()
}

/// Not every kernel counts what calls give up, or has probes on user functions.
fn optional(result: Result<(), Failed>) -> Result<Completion, Failed> {
    let said = match &result {
        Ok(()) => return Ok(Completion::Completed),
        Err(failed) => failed.message().unwrap_or_default().to_owned(),
    };
    if said.contains("which --evidence args does not count") {
        return Ok(Completion::ignored_with("optional: this kernel does not count pages"));
    }
    super::optional(result)
}

/// Returns the rows of a list of a process, given by its place.
fn rows<'a>(report: &'a Report, process: usize, list: &str) -> impl Iterator<Item = &'a Value> {
    report.0["stacks"]["processes"][process][list].as_array().into_iter().flatten()
}

/// Sums a figure over the call stacks that a function is part of.
fn sum(report: &Report, process: usize, list: &str, function: &str, figure: &str) -> u64 {
    let has = |row: &&Value| {
        let frames = row["frames"].as_array().into_iter().flatten();
        frames.filter_map(|frame| frame["function"].as_str()).any(|name| name.contains(function))
    };
    rows(report, process, list).filter(has).filter_map(|row| row[figure].as_u64()).sum()
}

/// Checks that nothing was lost, and that what call stacks gave up is what the report tells of each
/// path of a process, but for what has no call stack.
fn check_sums(report: &Report, process: usize) -> Result<(), Failed> {
    report.check_books()?;
    let stacks = &report.0["stacks"];
    if ["lost", "lost_stacks", "lost_reclaims", "lost_faults"].iter().any(|key| stacks[key] != 0) {
        return Err(format!("something was lost: {stacks}").into());
    }
    let tgid = &stacks["processes"][process]["tgid"];
    let told = report.processes().iter().find(|told| told["tgid"] == *tgid);
    let paths = told.and_then(|told| told["reclaimed"]["by_path"].as_object());
    let counts_frames = report.0["window"]["evidence"] == "frames";
    for (path, left) in paths.ok_or("no such process")? {
        if ["exec", "exit", "pressure", "other"].contains(&path.as_str()) {
            continue;
        }
        let all = |figure: &str| -> u64 {
            let its = rows(report, process, "reclaimed_by").filter(|row| row["path"] == *path);
            its.filter_map(|row| row[figure].as_u64()).sum()
        };
        let number = |figure: &str| left[figure].as_u64().unwrap_or(0);
        let (zapped, freed, calls) = (all("zapped"), all("freed"), all("calls"));
        let in_calls = number("freed") - number("late");
        if zapped != number("zapped")
            || (counts_frames && freed != in_calls)
            || calls > number("calls")
        {
            return Err(format!("{path}: {calls} calls, {zapped}, {freed}: {left}").into());
        }
    }
    Ok(())
}

/// Checks what a function gave up.
fn check_gave_up(report: &Report, at: usize, function: &str, pages: u64) -> Result<(), Failed> {
    let zapped = sum(report, at, "reclaimed_by", function, "zapped");
    let freed = sum(report, at, "reclaimed_by", function, "freed");
    // A few may be in a batch of a CPU: they come late.
    let few = if report.0["window"]["evidence"] == "frames" { 128 * PAGE } else { u64::MAX };
    if zapped != pages * PAGE || freed > zapped || zapped - freed > few {
        let rows: Vec<&Value> = rows(report, at, "reclaimed_by").collect();
        return Err(format!("{function}: {zapped}, {freed}, not {pages} pages: {rows:?}").into());
    }
    Ok(())
}

/// Checks how often a function faulted: once for each page, and hardly ever twice.
fn check_faults(report: &Report, at: usize, function: &str, pages: u64) -> Result<(), Failed> {
    let found = sum(report, at, "faulted_by", function, "faults");
    if !(pages..=pages + pages / 50).contains(&found) {
        let rows: Vec<&Value> = rows(report, at, "faulted_by").take(20).collect();
        return Err(format!("{function}: {found} faults, not {pages}: {rows:?}").into());
    }
    Ok(())
}

fn check_all(report: &Report) -> Result<(), Failed> {
    check_sums(report, 0)?;
    check_gave_up(report, 0, "unmaps_few", FEW)?;
    check_gave_up(report, 0, "unmaps_more", MORE)?;
    check_gave_up(report, 0, "advises", ADVISED)?;
    check_all_faults(report)
}

fn check_all_faults(report: &Report) -> Result<(), Failed> {
    check_faults(report, 0, "touches", TOUCHED)?;
    check_faults(report, 0, "sets", SET)?;
    // At that level nobody sees the stack pointer, and so not the caller of a function without a frame.
    let reads = if report.counts() { "reads_into" } else { "read" };
    check_faults(report, 0, reads, READ)
}

fn given_up() -> Result<(), Failed> {
    let mut workload = Started::new(&["stacks", "sums", "steps"])?;
    let attached = Attached::new(&[BOTH], &[workload.pid()])?;
    workload.go()?;
    workload.expect("done")?;
    let report = attached.stop()?;
    check_all(&report)?;
    // Those that the kernel counts are the same faults.
    let counted = &report.process()["faults"];
    let counted = counted["minor"].as_u64().unwrap_or(0) + counted["major"].as_u64().unwrap_or(0);
    let found: u64 = rows(&report, 0, "faulted_by").filter_map(|row| row["faults"].as_u64()).sum();
    if found.abs_diff(counted) * 100 > counted {
        return Err(format!("{found} faults, the kernel says {counted}").into());
    }
    // The walks of the probes themselves are no runs that were missed.
    let missed = report.0["window"]["missed"].as_u64().unwrap_or(u64::MAX);
    if missed > READ / 2 {
        return Err(format!("{missed} runs were missed").into());
    }
    let allocations = ["sample_bytes", "allocations", "frees", "samples", "cost"];
    match allocations.iter().find(|key| !report.0["stacks"][key].is_null()) {
        None => Ok(()),
        Some(key) => Err(format!("nobody sampled, but {key} is known").into()),
    }
}

fn at_once() -> Result<(), Failed> {
    check_all(&run_traced(&[BOTH], &["stacks", "sums", "at_once"])?)
}

fn executed() -> Result<(), Failed> {
    let report = run_traced(&[BOTH], &["stacks", "sums", "exec"])?;
    check_sums(&report, 0)?;
    // Once before, once after.
    check_gave_up(&report, 0, "unmaps_few", 2 * FEW)?;
    check_gave_up(&report, 0, "unmaps_more", MORE)?;
    check_faults(&report, 0, "touches", FEW + TOUCHED)
}

fn children() -> Result<(), Failed> {
    let report = run_traced(&[BOTH, "--follow"], &["stacks", "sums", "child"])?;
    report.family()?;
    for (process, function, pages) in [(0, "unmaps_few", FEW), (1, "unmaps_more", MORE)] {
        check_sums(&report, process)?;
        check_gave_up(&report, process, function, pages)?;
        check_faults(&report, process, "touches", pages)?;
    }
    check_gave_up(&report, 1, "unmaps_few", 0)
}

fn faults_alone() -> Result<(), Failed> {
    for options in [&["--stacks=faults"][..], &["--stacks=faults", "--evidence", "args"]] {
        let report = run_traced(options, &["stacks", "sums", "at_once"])?;
        let process = &report.0["stacks"]["processes"][0];
        if !process["reclaimed_by"].is_null() {
            return Err(format!("nobody asked what was given up: {process}").into());
        }
        if report.counts() {
            check_all_faults(&report)?;
            continue;
        }
        // Region maps are not followed at that level: where the libraries of a process were that ended
        // before they were looked at is not known. What faulted is counted all the same.
        check_faults(&report, 0, "touches", TOUCHED)?;
        let all: u64 =
            rows(&report, 0, "faulted_by").filter_map(|row| row["faults"].as_u64()).sum();
        let least = TOUCHED + SET + READ;
        if !(least..least + least / 10).contains(&all) {
            return Err(format!("{all} faults, not {least}").into());
        }
    }
    Ok(())
}

/// Samples and sums do not get into each other's way.
fn with_allocations() -> Result<(), Failed> {
    let options = ["--stacks=faults,allocations,reclaimed", "--sample-bytes", "4K"];
    let report = run_traced(&options, &["stacks", "at_once"])?;
    super::check(&report, "retained_by", "keeps_it", super::BYTES)?;
    super::check(&report, "freed_by", "takes_it_back", super::BYTES)?;
    check_sums(&report, 0)?;
    // All that it allocates it touches.
    let faulted: u64 =
        rows(&report, 0, "faulted_by").filter_map(|row| row["faults"].as_u64()).sum();
    if faulted * PAGE < super::BYTES {
        return Err(format!("only {faulted} pages were faulted in").into());
    }
    Ok(())
}

/// A replay has the same call stacks, and a flame graph of them all that came back.
fn flames() -> Result<(), Failed> {
    let (trace, json) = (scratch("sums.trace"), scratch("sums.json"));
    let mut command = Command::new(memtrace());
    command.args(["run", BOTH, "--format", "json", "-o"]).arg(&json).arg("--record").arg(&trace);
    let output =
        command.arg("--").arg(this()).args(["--workload", "stacks", "sums", "exec"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let replay = |options: &[&str]| -> Result<String, Failed> {
        let output = Command::new(memtrace()).arg("replay").arg(&trace).args(options).output()?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let (report, replayed) = (fs::read_to_string(&json)?, replay(&["--format", "json"])?);
    let sum = |folded: &str| -> u64 {
        let numbers = folded.lines().filter_map(|line| line.rsplit_once(' '));
        numbers.filter_map(|(_, number)| number.parse::<u64>().ok()).sum()
    };
    let graph = replay(&["--format", "folded"])?;
    let faults = replay(&["--format", "folded", "--flame", "faults"])?;
    let _ = (fs::remove_file(&trace), fs::remove_file(&json));
    if report != replayed {
        let differs = report.lines().zip(replayed.lines()).find(|(one, other)| one != other);
        return Err(format!("the replay differs: {differs:?}").into());
    }
    let report = Report(serde_json::from_str(&report)?);
    let left = &report.process()["reclaimed"];
    let detached = || {
        let paths = left["by_path"].as_object().into_iter().flat_map(|paths| paths.values());
        paths.filter_map(|path| path["zapped"].as_u64()).sum()
    };
    let wanted = left["total"].as_u64().unwrap_or_else(detached);
    let faulted: u64 =
        rows(&report, 0, "faulted_by").filter_map(|row| row["faults"].as_u64()).sum();
    if (sum(&graph), sum(&faults)) != (wanted, faulted) || wanted == 0 || faulted == 0 {
        return Err(format!("not {wanted} bytes and {faulted} faults: {graph}{faults}").into());
    }
    Ok(())
}
