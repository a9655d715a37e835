//! Two reports held against each other: what grew, what fell, what came and what went. Plain data;
//! docs/OUTPUT.md says what each field means.
//!
//! A figure that one side does not know has no change: nothing unknown is taken for 0.

mod allocators;
mod class;
#[cfg(test)]
mod diff_tests;
mod kept;
mod matching;
mod regions;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::{
    allocators::{AllocatorDiff, ArenaDiff},
    class::{Class, Classes, Limit, Verdict},
    kept::{Kept, NotAReport},
    regions::RegionDiff,
};
use self::{
    kept::{KeptPath, KeptProcess, KeptWindow},
    matching::{Pair, pairs},
};
use super::report::Evidence;

/// [`Diff::schema`] of this build.
pub const SCHEMA: &str = "memtrace.diff/1";

/// What differs between two reports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// The report that came first.
    pub before: Side,
    /// The other one.
    pub after: Side,
    /// What became of the limits that were set.
    pub limits: Vec<Verdict>,
    /// The memory of all processes of a report together.
    pub all: Classes,
    /// The processes, those that changed most first.
    pub processes: Vec<ProcessDiff>,
}

/// One of the two reports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// What it was called by.
    pub name: String,
    /// `uname -r` of the machine.
    pub kernel: String,
    /// What its figures rest on.
    pub evidence: Evidence,
    /// It tells of a time that was traced, not of one look.
    pub traced: bool,
    /// Nothing was lost.
    pub complete: bool,
    /// How many processes it tells of.
    pub processes: u64,
}

/// A figure on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Before.
    pub before: Option<u64>,
    /// After.
    pub after: Option<u64>,
    /// `after - before`; `None` where one of them is not known.
    pub change: Option<i64>,
}

impl Change {
    /// Holds two figures against each other.
    pub fn new(before: Option<u64>, after: Option<u64>) -> Self {
        let change = before.zip(after).map(|(before, after)| {
            let exact = i128::from(after) - i128::from(before);
            // `MIN` has no counterpart above 0.
            exact.clamp(i128::from(-i64::MAX), i128::from(i64::MAX)) as i64
        });
        Self { before, after, change }
    }

    /// Returns by how much it changed, in whatever direction; 0 where that is not known.
    pub fn distance(self) -> u64 {
        self.change.map_or(0, i64::unsigned_abs)
    }
}

/// Two processes held against each other, or one that the other report does not have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProcessDiff {
    /// The process in the report that came first.
    pub before: Option<Who>,
    /// The process in the other one.
    pub after: Option<Who>,
    /// Why they are held against each other: `process` (it is the same one), `only` (there is one in
    /// each report), `exe` or `comm`; `None` when it is in one report alone.
    pub matched_by: Option<&'static str>,
    /// What it holds.
    pub memory: Classes,
    /// What its allocators hold.
    pub allocators: Vec<AllocatorDiff>,
    /// What left it, by path.
    pub paths: BTreeMap<String, PathDiff>,
    /// What is worth doing about it.
    pub findings: Vec<FindingDiff>,
    /// Its regions, those that changed most first.
    pub regions: Vec<RegionDiff>,
}

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Who {
    /// What users call its PID.
    pub tgid: u32,
    /// When it started.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
    /// Its executable.
    pub exe: Option<String>,
    /// `running`, `exited` or `unknown`.
    pub state: String,
}

/// What left by one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PathDiff {
    /// Operations.
    pub calls: Change,
    /// Bytes of their ranges.
    pub requested: Change,
    /// Resident bytes detached.
    pub zapped: Change,
    /// Bytes that the page allocator got back.
    pub freed: Change,
}

/// A finding, and on which side it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FindingDiff {
    /// What was found.
    pub id: String,
    /// `came`, `went`, `stayed`, or `unknown`: on one side nobody looked for it.
    pub state: &'static str,
    /// The memory that it is about; `None` on a side that does not have it.
    pub bytes: Change,
}

/// A report, and what it is called.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// What users call it.
    pub name: &'a str,
    /// The report.
    pub report: &'a Kept,
}

/// Holds two reports against each other, and what grew against limits.
pub fn diff(before: Named, after: Named, limits: &[Limit]) -> Diff {
    let windows = [&before.report.window, &after.report.window];
    let [first, second] = [&before.report.processes, &after.report.processes];
    let all =
        Classes::of(|class| Change::new(class::total(class, first), class::total(class, second)));
    let mut processes: Vec<ProcessDiff> =
        pairs(first, second).into_iter().map(|pair| process(pair, windows)).collect();
    processes.sort_by_key(|process| std::cmp::Reverse(process.memory.distance()));
    Diff {
        schema: SCHEMA,
        before: side(before),
        after: side(after),
        limits: limits.iter().map(|limit| limit.judge(&all)).collect(),
        all,
        processes,
    }
}

fn side(Named { name, report }: Named) -> Side {
    let KeptWindow { evidence, complete, .. } = report.window;
    Side {
        name: name.to_owned(),
        kernel: report.host.kernel.clone(),
        evidence,
        traced: report.window.was_traced(),
        complete,
        processes: report.processes.len() as u64,
    }
}

fn process(pair: Pair, windows: [&KeptWindow; 2]) -> ProcessDiff {
    let Pair { before, after, matched_by } = pair;
    let sides = [before, after];
    let [before, after] = sides;
    ProcessDiff {
        before: before.map(who),
        after: after.map(who),
        matched_by,
        memory: Classes::of(|class| {
            let [before, after] = sides.map(|side| side.and_then(|side| side.memory.class(class)));
            Change::new(before, after)
        }),
        allocators: allocators::allocators(&pair),
        paths: paths(sides, windows),
        findings: findings(sides),
        regions: regions::regions(&pair),
    }
}

fn who(process: &KeptProcess) -> Who {
    let KeptProcess { tgid, start_time, comm, exe, state, .. } = process;
    let (tgid, start_time) = (*tgid, *start_time);
    Who { tgid, start_time, comm: comm.clone(), exe: exe.clone(), state: state.clone() }
}

fn paths(
    sides: [Option<&KeptProcess>; 2],
    windows: [&KeptWindow; 2],
) -> BTreeMap<String, PathDiff> {
    let names = keys(sides.map(|side| side.map(|side| &side.reclaimed.by_path)));
    let figure = |name: &str, figure: fn(&KeptPath) -> Option<u64>, needed: Evidence| {
        let of = |index: usize| {
            let path = sides[index]?.reclaimed.by_path.get(name);
            // A path that nothing took is not listed: that is 0, where it was looked for.
            let window = windows[index];
            let nothing = (window.was_traced() && window.evidence >= needed).then_some(0);
            path.map_or(nothing, figure)
        };
        Change::new(of(0), of(1))
    };
    let diff = |name: String| {
        let path = PathDiff {
            calls: figure(&name, |path| Some(path.calls), Evidence::Args),
            requested: figure(&name, |path| path.requested, Evidence::Args),
            zapped: figure(&name, |path| path.zapped, Evidence::Rss),
            freed: figure(&name, |path| path.freed, Evidence::Frames),
        };
        (name, path)
    };
    names.into_iter().map(diff).collect()
}

fn findings(sides: [Option<&KeptProcess>; 2]) -> Vec<FindingDiff> {
    let bytes = |index: usize, id: &str| {
        let of_process = sides[index].map(|side| side.findings.iter());
        let found: Vec<u64> = of_process
            .into_iter()
            .flatten()
            .filter(|finding| finding.id == id)
            .map(|finding| finding.bytes)
            .collect();
        (!found.is_empty()).then(|| found.into_iter().fold(0, u64::saturating_add))
    };
    // Without a walk there are findings of little, and their absence says nothing.
    let looked = sides.map(|side| side.is_some_and(KeptProcess::was_walked));
    let ids = sides.into_iter().flatten().flat_map(|side| side.findings.iter());
    let mut ids: Vec<&str> = ids.map(|finding| finding.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut found: Vec<FindingDiff> = ids
        .into_iter()
        .map(|id| {
            let bytes = Change::new(bytes(0, id), bytes(1, id));
            let state = match (bytes.before, bytes.after) {
                (Some(_), Some(_)) => "stayed",
                (Some(_), None) if looked[1] => "went",
                (None, Some(_)) if looked[0] => "came",
                _ => "unknown",
            };
            FindingDiff { id: id.to_owned(), state, bytes }
        })
        .collect();
    let most = |finding: &FindingDiff| finding.bytes.before.max(finding.bytes.after);
    found.sort_by_key(|finding| std::cmp::Reverse(most(finding)));
    found
}

/// Returns what is listed on either side.
fn keys<T>(sides: [Option<&BTreeMap<String, T>>; 2]) -> Vec<String> {
    let mut keys: Vec<String> =
        sides.into_iter().flatten().flat_map(BTreeMap::keys).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Returns the sum of figures, at most the largest number; `None` where one of them is not known.
fn sum(mut figures: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    figures.try_fold(0_u64, |sum, figure| Some(sum.saturating_add(figure?)))
}
