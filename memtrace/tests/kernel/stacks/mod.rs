//! `--stacks` on programs that allocate and free known bytes in known functions.

mod sums;
pub(crate) mod workload;

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

use self::workload::BYTES;
use super::driver::{Attached, Report, Started, run, trial_or_ignored};

/// So many samples that chance moves no figure by a tenth.
const OFTEN: [&str; 3] = ["--stacks", "--sample-bytes", "4K"];

pub(crate) fn trials() -> Vec<Trial> {
    [
        ("what_is_kept_is_its_callers_until_it_is_freed", kept_and_freed as fn() -> _),
        ("a_command_is_sampled_from_its_first_instruction", first_instruction),
        ("every_function_of_the_allocator_is_known", every_function),
        ("an_exec_leaves_nothing", executed),
        ("threads_lose_nothing", threads),
        ("a_process_goes_on_when_memtrace_is_killed", killed),
    ]
    .into_iter()
    .map(|(name, test): (_, fn() -> Result<(), Failed>)| {
        trial_or_ignored(&format!("stacks::{name}"), move || optional(test()))
    })
    .chain(sums::trials())
    .collect()
}

/// Not every kernel has probes on user functions, or takes ours.
fn optional(result: Result<(), Failed>) -> Result<Completion, Failed> {
    let said = match &result {
        Ok(()) => return Ok(Completion::Completed),
        Err(failed) => failed.message().unwrap_or_default().to_owned(),
    };
    if said.contains("cannot put probes on functions") {
        return Ok(Completion::ignored_with("optional: this kernel has no uprobes"));
    }
    if said.contains("this kernel refuses the program") {
        return Ok(Completion::ignored_with("optional: this kernel does not take the programs"));
    }
    result.map(|()| Completion::Completed)
}

/// Returns the bytes in `list` of the first process, of stacks that a function is part of.
fn bytes(report: &Report, list: &str, function: &str) -> u64 {
    let has = |row: &&Value| {
        let frames = row["frames"].as_array().into_iter().flatten();
        frames.filter_map(|frame| frame["function"].as_str()).any(|name| name.contains(function))
    };
    let rows = report.0["stacks"]["processes"][0][list].as_array().into_iter().flatten();
    rows.filter(has).filter_map(|row| row["bytes"].as_u64()).sum()
}

fn check(report: &Report, list: &str, function: &str, wanted: u64) -> Result<(), Failed> {
    let found = bytes(report, list, function);
    if found.abs_diff(wanted) * 10 > wanted {
        let stacks = &report.0["stacks"];
        return Err(format!("{list} {function}: {found}, not {wanted}: {stacks}").into());
    }
    if report.0["stacks"]["lost"] != 0 || report.0["stacks"]["lost_stacks"] != 0 {
        return Err(format!("something was lost: {}", report.0["stacks"]).into());
    }
    Ok(())
}

fn kept_and_freed() -> Result<(), Failed> {
    let mut workload = Started::new(&["stacks", "steps"])?;
    for (steps, given_back) in [(1, BYTES), (2, 0)] {
        // What was allocated before nobody saw.
        let attached = Attached::new(&OFTEN, &[workload.pid()])?;
        for _ in 0..steps {
            workload.go()?;
            workload.expect("done")?;
        }
        let report = attached.stop()?;
        check(&report, "retained_by", "keeps_it", BYTES)?;
        check(&report, "retained_by", "gives_it_back", given_back)?;
        check(&report, "freed_by", "takes_it_back", BYTES - given_back)?;
        let stacks = &report.0["stacks"]["processes"][0];
        let resident = stacks["freed_resident_estimate"].as_u64();
        if resident.is_none_or(|resident| resident > stacks["freed"].as_u64().unwrap_or(0)) {
            return Err(format!("freed and resident: {stacks}").into());
        }
        if steps == 1 {
            workload.go()?;
            workload.expect("done")?;
        }
    }
    Ok(())
}

fn first_instruction() -> Result<(), Failed> {
    let report = run(&OFTEN, &["stacks", "at_once"])?;
    check(&report, "retained_by", "keeps_it", BYTES)?;
    check(&report, "retained_by", "gives_it_back", 0)?;
    check(&report, "freed_by", "takes_it_back", BYTES)?;
    match &report.0["stacks"]["processes"][0]["freed_resident_estimate"] {
        Value::Null => Ok(()),
        other => Err(format!("it exited, so what is resident is not known: {other}").into()),
    }
}

fn every_function() -> Result<(), Failed> {
    let report = run(&OFTEN, &["stacks", "functions"])?;
    for function in ["by_calloc", "by_realloc", "by_posix_memalign", "by_aligned_alloc"] {
        check(&report, "retained_by", function, BYTES)?;
    }
    check(&report, "retained_by", "by_shrinking", BYTES / 4)
}

fn executed() -> Result<(), Failed> {
    let report = run(&OFTEN, &["stacks", "exec"])?;
    check(&report, "retained_by", "keeps_it", 0)?;
    let retained = report.0["stacks"]["processes"][0]["retained"].as_u64().unwrap_or(u64::MAX);
    if retained * 10 > BYTES {
        return Err(format!("{retained} are left of a program that was replaced").into());
    }
    Ok(())
}

fn threads() -> Result<(), Failed> {
    let report = run(&OFTEN, &["stacks", "threads"])?;
    check(&report, "retained_by", "moves_it_about", 0)?;
    let freed = bytes(&report, "freed_by", "moves_it_about");
    if freed == 0 {
        return Err(format!("nothing was seen to be freed: {}", report.0["stacks"]).into());
    }
    Ok(())
}

fn killed() -> Result<(), Failed> {
    let mut workload = Started::new(&["stacks", "steps"])?;
    let mut attached = Attached::new(&OFTEN, &[workload.pid()])?;
    workload.go()?;
    attached.kill()?;
    workload.expect("done")?;
    for _ in 0..4 {
        workload.go()?;
        workload.expect("done")?;
    }
    workload.hang_up();
    let status = workload.wait()?;
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    Ok(())
}
