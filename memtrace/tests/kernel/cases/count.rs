//! The frames that memtrace counts as freed against what the kernel itself has more of then.

use std::fs;

use libtest_mimic::Failed;

use super::mode::is_ours;
use crate::{
    driver::{Attached, PAGE, Started, note},
    group::Group,
    paths::N,
    settle::settle,
};

/// What the kernel says, in pages. What it has less of counts as what there is less than all.
struct Counts(Vec<(&'static str, i64)>);

/// Has a workload give up `4 * N` pages in several ways while it is held before and after.
///
/// The counters of its cgroup are its own. Those of the whole machine are also everyone else's:
/// they are compared where the machine is ours and nothing else runs.
pub(super) fn independent() -> Result<(), Failed> {
    let group = Group::new();
    let mut workload = Started::new(&["ways"])?;
    group.enter(workload.pid());
    let attached = Attached::new(&[], &[workload.pid()])?;
    workload.go()?;
    workload.expect("touched")?;
    settle();
    let before = Counts::read(&group)?;
    workload.go()?;
    workload.expect("released")?;
    settle();
    let after = Counts::read(&group)?;
    let report = attached.stop()?;
    report.check_books()?;
    let total = &report.process()["reclaimed"]["total"];
    if !report.counts() {
        return if total.is_null() { Ok(()) } else { Err("nobody counted that".into()) };
    }
    let total = (total.as_u64().ok_or("no total")? / PAGE) as i64;
    let all = 4 * N as i64;
    let mut counts = vec![("the workload", all)];
    counts.extend(before.0.iter().zip(&after.0).map(|((name, was), (_, is))| (*name, is - was)));
    note(format!("@@COUNT memtrace {total}, {counts:?}"));
    if counts.iter().any(|(_, count)| total.abs_diff(*count) * 100 > all.unsigned_abs()) {
        return Err(format!("memtrace counted {total} frames, others {counts:?}").into());
    }
    Ok(())
}

impl Counts {
    fn read(group: &Group) -> Result<Self, Failed> {
        let mut counts = vec![
            ("memory that the cgroup has not", -(group.pages() as i64)),
            ("anon and shmem that it has not", -(group.anon_and_shmem() as i64)),
        ];
        if is_ours() {
            counts.extend(of_the_machine()?);
        }
        Ok(Self(counts))
    }
}

/// How often the counters of the machine are read before they stand still.
const MOST_READINGS: usize = 1_000;

/// Reads the counters of the machine until none of them moved in between: they lie in several files,
/// and each CPU gives frames of its lists back from time to time.
fn of_the_machine() -> Result<Vec<(&'static str, i64)>, Failed> {
    let mut before = Vec::new();
    for _ in 0..MOST_READINGS {
        // Each CPU counts for itself for a while.
        fs::write("/proc/sys/vm/stat_refresh", "1")?;
        let waiting = on_lists_of_cpus()?;
        let now = vec![
            ("pgfree", vmstat("pgfree")?),
            ("nr_free_pages and lists of the CPUs", vmstat("nr_free_pages")? + waiting),
            ("buddyinfo and lists of the CPUs", in_buddies()? + waiting),
        ];
        if now == before && waiting == on_lists_of_cpus()? {
            return Ok(now);
        }
        before = now;
    }
    Err(format!("the machine is not idle: {before:?}").into())
}

fn vmstat(key: &str) -> Result<i64, Failed> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let mut words = text.lines().filter_map(|line| line.split_once(' '));
    let (_, count) = words.find(|(name, _)| *name == key).ok_or(format!("no {key}"))?;
    Ok(count.parse()?)
}

/// Frames that each CPU keeps for itself: free, but not among `nr_free_pages`.
fn on_lists_of_cpus() -> Result<i64, Failed> {
    let text = fs::read_to_string("/proc/zoneinfo")?;
    let counts = text.lines().filter_map(|line| line.trim().strip_prefix("count:"));
    counts.map(|count| Ok(count.trim().parse::<i64>()?)).sum()
}

/// Frames in free blocks: a column for each order.
fn in_buddies() -> Result<i64, Failed> {
    let text = fs::read_to_string("/proc/buddyinfo")?;
    let blocks = text.lines().flat_map(|line| line.split_whitespace().skip(4).enumerate());
    blocks.map(|(order, count)| Ok(count.parse::<i64>()? << order)).sum()
}
