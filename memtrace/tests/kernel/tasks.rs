//! Processes: fork, vfork, exec, exit.

use libtest_mimic::{Failed, Trial};

use super::driver::{Attached, PAGE, Started, run, trial};
use super::paths::N;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("tasks::a_child_is_reported_when_it_is_followed", followed_child),
        trial("tasks::a_child_that_trims_what_it_shares_frees_nothing", trimming_child),
        trial("tasks::a_child_is_left_alone_when_it_is_not", left_child),
        trial("tasks::a_vforked_child_that_execs_has_books_of_its_own", vfork_exec),
        trial("tasks::exec_by_another_thread_keeps_the_process", exec_from_thread),
        trial("tasks::memory_at_exit_is_what_was_there_before_the_teardown", at_exit),
        trial("tasks::attach_ends_when_the_process_does", attach_to_exit),
        trial("tasks::advice_from_outside_is_booked_to_the_one_that_it_is_about", advised),
        trial("tasks::a_process_whose_leader_exited_is_followed", leaderless),
        trial("tasks::calls_and_pages_of_a_busy_process_are_of_the_same_time", busy),
        trial("tasks::two_processes_have_one_report", two_processes),
    ]
}

/// To read where all its regions are takes a while, in which it does not stop.
fn busy() -> Result<(), Failed> {
    let workload = Started::new(&["many_regions", "20000"])?;
    let report = Attached::new(&["--duration", "2s"], &[workload.pid()])?.finish()?;
    report.check_complete()?;
    let munmap = report.path("munmap");
    // Each call takes one page.
    if report.counts() && munmap.zapped.abs_diff(munmap.requested) > munmap.requested / 100 {
        return Err(format!("{munmap:?}").into());
    }
    if munmap.calls == 0 { Err("it was not seen to work".into()) } else { Ok(()) }
}

fn followed_child() -> Result<(), Failed> {
    let report = run(&["--follow"], &["fork_child"])?;
    report.check_books()?;
    let [_, child] = report.family()?;
    let gone = report.gone(child, "munmap");
    if gone.abs_diff(N) > N / 100 || child["exit_code"] != 3 || child["state"] != "exited" {
        return Err(format!("the child's report is wrong: {child}").into());
    }
    Ok(())
}

/// An RSS drop that frees nothing: the parent has every frame as well.
fn trimming_child() -> Result<(), Failed> {
    let report = run(&["--follow"], &["fork_trim"])?;
    report.check_books()?;
    let [_, child] = report.family()?;
    let trim = &child["reclaimed"]["by_path"]["dont_need"];
    if report.gone(child, "dont_need").abs_diff(N) > N / 100 {
        return Err(format!("it gave up {N} pages: {trim}").into());
    }
    let pages = |figure: &serde_json::Value| figure.as_u64().unwrap_or(0) / PAGE;
    let (freed, shared) = (pages(&trim["freed"]), pages(&trim["kept_by_reason"]["shared"]));
    if report.counts() && (freed > N / 100 || shared.abs_diff(N) > N / 100) {
        return Err(format!("its parent has them: {trim}").into());
    }
    Ok(())
}

fn left_child() -> Result<(), Failed> {
    let report = run(&[], &["fork_child"])?;
    report.check_books()?;
    if report.processes().len() != 1 || report.gone(report.process(), "munmap") > N / 2 {
        return Err(format!("only the parent was asked for: {:?}", report.processes()).into());
    }
    Ok(())
}

fn vfork_exec() -> Result<(), Failed> {
    let report = run(&["--follow"], &["vfork_exec"])?;
    report.check_books()?;
    let [parent, child] = report.family()?;
    for process in [parent, child] {
        let exits = &process["reclaimed"]["by_path"]["exit"];
        if process["state"] != "exited" || exits["calls"] != 1 {
            return Err(format!("each tears its own address space down: {process}").into());
        }
    }
    Ok(())
}

fn exec_from_thread() -> Result<(), Failed> {
    let report = run(&[], &["exec_from_thread"])?;
    report.check_books()?;
    let process = report.process();
    let by_path = &process["reclaimed"]["by_path"];
    let replaced = &by_path["exec"];
    let detached = replaced["zapped"].as_u64().unwrap_or(0) > 0 || !report.counts();
    if report.processes().len() != 1
        || replaced["calls"] == 0
        || !detached
        || by_path["exit"]["calls"] != 1
    {
        return Err(format!("one process with an exec and an exit: {process}").into());
    }
    Ok(())
}

fn at_exit() -> Result<(), Failed> {
    let report = run(&[], &["exit"])?;
    report.check_books()?;
    let process = report.process();
    if process["faults"]["minor"].as_u64().unwrap_or(0) < N {
        return Err(format!("at least a fault a page: {}", process["faults"]).into());
    }
    if !report.counts() {
        let resident = &process["memory"]["resident"];
        return if resident.is_null() { Ok(()) } else { Err("nobody counted that".into()) };
    }
    let anon = process["memory"]["resident_by_kind"]["anon"].as_u64().unwrap_or(0) / PAGE;
    // The workload's pages, and a few of its start.
    if !(N..N + N / 4).contains(&anon) {
        return Err(format!("anonymous pages at exit: {anon}: {}", process["memory"]).into());
    }
    let largest = &process["regions"][0];
    let resident = largest["resident"].as_u64().unwrap_or(0) / PAGE;
    if resident.abs_diff(N) > N / 50 {
        return Err(format!("the largest region at exit: {largest}").into());
    }
    Ok(())
}

fn attach_to_exit() -> Result<(), Failed> {
    let mut workload = Started::new(&["churn", "1"])?;
    let attached = Attached::new(&[], &[workload.pid()])?;
    workload.go()?;
    workload.expect("stopped")?;
    workload.go()?;
    let report = attached.finish()?;
    report.check_books()?;
    if report.process()["state"] != "exited" || report.process()["exit_code"] != 0 {
        return Err(format!("it exited with 0: {}", report.process()).into());
    }
    Ok(())
}

fn advised() -> Result<(), Failed> {
    let report = run(&["--follow"], &["advise_child"])?;
    report.check_books()?;
    let [parent, child] = report.family()?;
    let asked = |process: &serde_json::Value| {
        process["reclaimed"]["by_path"]["pressure"]["requested"].as_u64().unwrap_or(0) / PAGE
    };
    // Who is meant is known where locks are seen.
    let expected = if report.counts() { (0, N) } else { (N, 0) };
    if (asked(parent), asked(child)) != expected {
        return Err(format!("pages asked of: {} and {}", asked(parent), asked(child)).into());
    }
    Ok(())
}

fn leaderless() -> Result<(), Failed> {
    let mut workload = Started::new(&["leaderless"])?;
    let attached = Attached::new(&[], &[workload.pid()])?;
    workload.go()?;
    workload.expect("stopped")?;
    let report = attached.stop()?;
    report.check_books()?;
    super::maps::same_map(&report, workload.pid())?;
    let munmap = report.gone(report.process(), "munmap");
    if munmap != N || report.process()["state"] != "running" {
        return Err(format!("{munmap:?}: {}", report.process()).into());
    }
    Ok(())
}

fn two_processes() -> Result<(), Failed> {
    let mut first = Started::new(&["churn", "1"])?;
    let mut second = Started::new(&["churn", "1"])?;
    let pids = [first.pid(), second.pid()];
    let attached = Attached::new(&[], &pids)?;
    for workload in [&mut first, &mut second] {
        workload.go()?;
        workload.expect("stopped")?;
    }
    let report = attached.stop()?;
    report.check_books()?;
    let seen: Vec<_> = report.processes().iter().map(|process| process["tgid"].as_u64()).collect();
    if seen != pids.map(|pid| Some(u64::from(pid))) {
        return Err(format!("{seen:?} instead of {pids:?}").into());
    }
    Ok(())
}
