//! `memtrace ledger`: the books of every process of the machine.

use std::{
    fs,
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::{
    driver::{PAGE, Started, interrupt, memtrace, scratch, start, this, trial},
    group::Group,
    paths::N,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("ledger::what_programs_freed_is_counted_after_their_end", ended),
        trial("ledger::a_process_that_was_there_before_is_counted", before),
        trial("ledger::a_trim_of_shared_memory_frees_nothing", shared),
        trial("ledger::what_ended_counts_for_its_cgroup", grouped),
        trial("ledger::more_processes_than_it_remembers_are_summed", folded),
        trial("ledger::more_programs_than_the_kernel_has_room_for_keep_their_names", named),
    ]
}

/// `memtrace ledger` under way.
struct Ledger {
    child: Child,
    path: std::path::PathBuf,
}

impl Ledger {
    /// Begins to count. `None` where the kernel counts no pages, after memtrace said so.
    fn begin() -> Result<Option<Self>, Failed> {
        Self::begin_every("1h")
    }

    /// The same with a report every so often.
    fn begin_every(interval: &str) -> Result<Option<Self>, Failed> {
        let path = scratch("ledger.json");
        let mut ledger = Command::new(memtrace());
        ledger.args(["ledger", "-v", "--interval", interval, "--top", "100000"]);
        ledger.args(["--format", "json"]);
        match start(ledger.arg("-o").arg(&path), "counting")? {
            Ok(child) => Ok(Some(Self { child, path })),
            Err((status, said)) => {
                let refused = said.iter().any(|line| line.contains("counts no pages by process"));
                if status.code() == Some(1) && refused {
                    return Ok(None);
                }
                Err(format!("memtrace ledger: {status}: {said:?}").into())
            }
        }
    }

    /// Waits until so many more reports are there.
    fn wait(&self, reports: usize) -> Result<(), Failed> {
        let there =
            || fs::read(&self.path).map(|text| text.iter().filter(|&&byte| byte == b'\n').count());
        let enough = there()? + reports;
        let deadline = Instant::now() + Duration::from_secs(60);
        while there()? < enough {
            if Instant::now() > deadline {
                return Err("no more reports came".into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends as Ctrl-C does and returns the last report.
    fn stop(mut self) -> Result<Value, Failed> {
        let status = interrupt(&mut self.child)?;
        let text = fs::read_to_string(&self.path)?;
        let _ = fs::remove_file(&self.path);
        let last = text.lines().last().ok_or(format!("no report, {status}"))?;
        let report: Value = serde_json::from_str(last)?;
        if report["window"]["complete"] != true {
            return Err(format!("incomplete: {}", report["window"]).into());
        }
        Ok(report)
    }
}

/// What the kernel calls this binary.
fn comm() -> String {
    let name = this().file_name().expect("a name").to_string_lossy().into_owned();
    name.chars().take(15).collect()
}

/// Returns the row of this binary's name.
fn program(report: &Value) -> Result<Value, Failed> {
    let rows = report["programs"].as_array().ok_or("no programs")?;
    let row = rows.iter().find(|row| row["comm"] == comm());
    Ok(row.ok_or_else(|| format!("no row of {}: {rows:?}", comm()))?.clone())
}

fn pages(row: &Value, path: &str, figure: &str) -> u64 {
    row["by_path"][path][figure].as_u64().unwrap_or(0) / PAGE
}

/// Runs a workload to its end.
fn workload(name: &str) -> Result<(), Failed> {
    workload_with(&[name])
}

/// The same with arguments.
fn workload_with(arguments: &[&str]) -> Result<(), Failed> {
    let status = Command::new(this()).arg("--workload").args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(format!("{arguments:?}: {status}").into()) }
}

/// Holds pages that left by a path against what was done, to 1 %.
fn check(row: &Value, path: &str, zapped: u64, freed: u64) -> Result<(), Failed> {
    let found = (pages(row, path, "zapped"), pages(row, path, "freed"));
    let few = N / 100 + 40;
    if found.0.abs_diff(zapped) > few || found.1.abs_diff(freed) > few {
        return Err(format!("{path}: {found:?}, not {:?}: {row}", (zapped, freed)).into());
    }
    Ok(())
}

fn ended() -> Result<(), Failed> {
    let Some(ledger) = Ledger::begin()? else { return Ok(()) };
    workload("munmap")?;
    workload("dont_need_thrice")?;
    workload("brk")?;
    let report = ledger.stop()?;
    let row = program(&report)?;
    check(&row, "munmap", N, N)?;
    check(&row, "dont_need", N, N)?;
    check(&row, "brk", N, N)?;
    // Of the three trims only the first took anything.
    let trims = row["by_path"]["dont_need"]["operations"].as_u64();
    if trims != Some(1) {
        return Err(format!("one trim took something, not {trims:?}").into());
    }
    if row["ended"].as_u64().unwrap_or(0) < 3 || pages(&row, "exit", "zapped") == 0 {
        return Err(format!("three ended: {row}").into());
    }
    let all = pages(&report["all"], "munmap", "zapped");
    if all < N {
        return Err(format!("all have at least what one has: {all}").into());
    }
    Ok(())
}

fn before() -> Result<(), Failed> {
    let mut workload = Started::new(&["hold_then_unmap"])?;
    let Some(ledger) = Ledger::begin()? else { return Ok(()) };
    workload.go()?;
    workload.expect("stopped")?;
    let report = ledger.stop()?;
    let rows = report["processes"].as_array().ok_or("no processes")?;
    let row = rows.iter().find(|row| row["tgid"] == workload.pid()).ok_or("not listed")?;
    check(row, "munmap", N, N)?;
    let resident = row["resident"].as_u64().unwrap_or(0) / PAGE;
    let statm = fs::read_to_string(format!("/proc/{}/statm", workload.pid()))?;
    let real: u64 = statm.split(' ').nth(1).ok_or("no RSS")?.parse()?;
    if resident.abs_diff(real) > 200 {
        return Err(format!("{resident} pages are resident by the books, {real} really").into());
    }
    Ok(())
}

fn shared() -> Result<(), Failed> {
    let Some(ledger) = Ledger::begin()? else { return Ok(()) };
    workload("fork_trim")?;
    let row = program(&ledger.stop()?)?;
    check(&row, "dont_need", N, 0)?;
    check(&row, "munmap", N, N)
}

fn grouped() -> Result<(), Failed> {
    let Some(ledger) = Ledger::begin()? else { return Ok(()) };
    let group = Group::new();
    let mut command = Command::new(this());
    group.hold(command.args(["--workload", "munmap"]));
    let status = command.status()?;
    if !status.success() {
        return Err(format!("munmap: {status}").into());
    }
    let report = ledger.stop()?;
    let rows = report["cgroups"].as_array().ok_or("no cgroups")?;
    let of_group =
        |row: &&Value| row["cgroup"].as_str().is_some_and(|it| it.ends_with(&group.path()));
    let row = rows.iter().find(of_group).ok_or_else(|| format!("no row of it: {rows:?}"))?;
    check(row, "munmap", N, N)?;
    if row["ended"] != 1 || row["living"] != 0 {
        return Err(format!("one ended: {row}").into());
    }
    Ok(())
}

fn folded() -> Result<(), Failed> {
    // More than the graves of the probes.
    const CHILDREN: u64 = 1_500;
    let Some(ledger) = Ledger::begin()? else { return Ok(()) };
    workload("many_children")?;
    let row = program(&ledger.stop()?)?;
    let ended = row["ended"].as_u64().unwrap_or(0);
    let (zapped, freed) = (pages(&row, "munmap", "zapped"), pages(&row, "munmap", "freed"));
    // Each maps and unmaps a few pages of its own: so few that they wait in per-CPU batches, which
    // the end of another may drain.
    let wanted = CHILDREN * 8;
    if ended < CHILDREN
        || zapped.abs_diff(wanted) > wanted / 100 + 40
        || !(wanted / 2..=zapped).contains(&freed)
    {
        return Err(format!("{ended} ended, {zapped} and {freed} of {wanted}: {row}").into());
    }
    Ok(())
}

fn named() -> Result<(), Failed> {
    // More than `SUMS` of the probes, some at a time: a sum that did not grow makes room for others.
    const NAMES: u32 = 5_000;
    const AT_A_TIME: u32 = 1_000;
    let Some(ledger) = Ledger::begin_every("100ms")? else { return Ok(()) };
    for first in (0..NAMES).step_by(AT_A_TIME as usize) {
        workload_with(&["many_names", &first.to_string(), &AT_A_TIME.to_string()])?;
        ledger.wait(3)?;
    }
    let report = ledger.stop()?;
    let rows = report["programs"].as_array().ok_or("no programs")?;
    let is_one = |row: &&Value| row["comm"].as_str().is_some_and(|comm| comm.starts_with("name-"));
    let ended: Vec<&Value> = rows.iter().filter(is_one).collect();
    if ended.len() as u32 != NAMES {
        return Err(format!("{} of {NAMES} programs have their name", ended.len()).into());
    }
    let wrong = ended.iter().find(|row| row["ended"] != 1);
    wrong.map_or(Ok(()), |row| Err(format!("one ended: {row}").into()))
}
