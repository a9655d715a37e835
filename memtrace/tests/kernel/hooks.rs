//! Which hook each probe takes on this kernel: printed, for the table of kernels.

use libtest_mimic::{Failed, Trial};

use super::driver::{Attached, Report, Started, note, run, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("table::each_probe_that_was_asked_for_takes_a_hook", each_takes_one)]
}

fn each_takes_one() -> Result<(), Failed> {
    let report = match run(&["--events=faults"], &["nothing"]) {
        Ok(report) => report,
        Err(failed) => {
            let said = failed.message().unwrap_or_default().to_owned();
            let reason = said.lines().next().unwrap_or_default();
            let reason = reason.rsplit("memtrace: ").next().unwrap_or_default();
            note(format!("@@HOOK\trun\tmemtrace\tdoes not run: {reason}"));
            return Err(failed);
        }
    };
    show("run", &report)?;
    let mut workload = Started::new(&["wait"])?;
    let attached = Attached::new(&[], &[workload.pid()])?;
    workload.go()?;
    show("attach", &attached.finish()?)
}

/// Prints what each probe took, and fails when one that was wanted has none.
fn show(command: &str, report: &Report) -> Result<(), Failed> {
    for probe in report.0["window"]["probes"].as_array().ok_or("no probes")? {
        let text = |key: &str| probe[key].as_str().unwrap_or_default().to_owned();
        let (name, hook, state) = (text("name"), text("hook"), text("state"));
        let hook = if hook.is_empty() { &state } else { &hook };
        note(format!("@@HOOK\t{command}\t{name}\t{hook}"));
        if !["attached", "skipped"].contains(&state.as_str()) {
            return Err(format!("{name} is {state}").into());
        }
    }
    Ok(())
}
