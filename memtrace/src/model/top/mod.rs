//! What the live view knows: every process with its rates, and what walks of heaps found. Pure:
//! readings in, snapshots out.
//!
//! Not here: reading anything, or how it is shown.

mod budget;
mod listing;
mod processes;

use std::{collections::VecDeque, sync::Arc};

use super::{
    machine::{MachineReport, Row},
    report::{Evidence, ProcessReport},
};

pub use self::{
    budget::{Budget, Walkable},
    listing::Listing,
    processes::{Look, Processes},
};

/// A process: a PID may be given out again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// What users call its PID.
    pub tgid: u32,
    /// When it started.
    pub start_ns: u64,
}

/// What is read of every process each time, since it costs little.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The process.
    pub id: Id,
    /// Its name.
    pub comm: String,
    /// Resident bytes, to a few pages a CPU.
    pub resident: Option<u64>,
    /// CPU time in its life.
    pub cpu_ns: u64,
    /// Minor and major faults in its life.
    pub faults: u64,
    /// Path of its cgroup; `None` when nobody asked.
    pub cgroup: Option<Arc<str>>,
}

/// A process as it is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    /// Which one.
    pub id: Id,
    /// Its name.
    pub comm: String,
    /// Path of its cgroup; `None` when nobody asked.
    pub cgroup: Option<Arc<str>>,
    /// Resident bytes, to a few pages a CPU.
    pub resident: Option<u64>,
    /// Page faults a second since the reading before; `None` at the first.
    pub faults_per_s: Option<u64>,
    /// Bytes a second that the kernel got back since the reading before (or, where frames are not
    /// counted, that left the process); `None` when it is not counted.
    pub reclaimed_per_s: Option<u64>,
    /// What changes when it does anything.
    pub done: Done,
    /// What left it since counting began.
    pub left: Option<Arc<Row>>,
    /// What the last walk found, `None` before the first.
    pub looked: Option<Looked>,
}

impl Process {
    /// Returns the report of the last walk.
    pub fn report(&self) -> Option<&ProcessReport> {
        self.looked.as_ref()?.report.as_deref()
    }

    /// Returns what it gave up and still has.
    pub fn freed_not_reclaimed(&self) -> Option<u64> {
        self.report()?.memory.freed_not_reclaimed.total
    }
}

/// What a process did in its life. As long as it is the same, a walk finds nothing new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// CPU time.
    pub cpu_ns: u64,
    /// Page faults.
    pub faults: u64,
    /// Resident bytes, which the kernel may change too.
    pub resident: u64,
}

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looked {
    /// When.
    pub at_ns: u64,
    /// CPU time that it took.
    pub cost_ns: u64,
    /// [`Process::done`] then.
    pub done: Done,
    /// What was found; `None` when it could not be looked at.
    pub report: Option<Arc<ProcessReport>>,
    /// Why it could not.
    pub why_not: Option<String>,
    /// What this walk and those before it found, the oldest first.
    pub history: Arc<[Point]>,
}

/// What a process was made of at one moment, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// When.
    pub at_ns: u64,
    /// Resident and not known to be free.
    pub live: u64,
    /// Kept by allocators.
    pub free: u64,
    /// `MADV_FREE`d and not yet taken.
    pub lazy_free: u64,
}

impl Point {
    /// Returns what a report says.
    pub(super) fn of(at_ns: u64, report: &ProcessReport) -> Option<Self> {
        let memory = &report.memory;
        let freed = &memory.freed_not_reclaimed;
        let [free, lazy_free] = [freed.allocator, freed.lazy_free].map(|bytes| bytes.unwrap_or(0));
        let live = memory.live.or(memory.resident)?;
        Some(Self { at_ns, live, free, lazy_free })
    }
}

/// What a process was made of at the last moments, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Course(VecDeque<Point>);

/// Moments that are kept.
const MOST_POINTS: usize = 600;

impl Course {
    /// Takes another moment, unless it is the last one.
    pub fn take(&mut self, point: Option<Point>) {
        let point = point.filter(|point| self.0.back() != Some(point));
        self.0.extend(point);
        self.0.drain(..self.0.len().saturating_sub(MOST_POINTS));
    }

    /// Returns them.
    pub fn points(&self) -> Arc<[Point]> {
        self.0.iter().copied().collect()
    }
}

/// Whether the kernel counts what leaves processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// The probes are being attached.
    #[default]
    Starting,
    /// It does.
    On {
        /// What the figures rest on.
        evidence: Evidence,
        /// Address spaces that could not be counted since the table was full.
        untracked: u64,
    },
    /// It does not, and why.
    Off(String),
}

/// Everything that is known at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// When, `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// Time between two of them.
    pub interval_ns: u64,
    /// All processes, by PID.
    pub processes: Vec<Process>,
    /// Whether reclaim is counted.
    pub counting: Counting,
    /// What walks took.
    pub walks: Walks,
    /// What left every process, where somebody asked and it is counted.
    pub machine: Option<Arc<MachineReport>>,
    /// What the probes took.
    pub probes: Arc<ProbeTimes>,
}

/// How long the probes ran, as far as the kernel measured it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeTimes {
    /// For how long it measured, ns.
    pub measured_ns: u64,
    /// Each program.
    pub programs: Vec<ProgramRuns>,
}

/// How often a program ran and how long it took, as far as that was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Name of the program.
    pub program: &'static str,
    /// Runs.
    pub times: u64,
    /// All of them together, ns.
    pub time_ns: u64,
}

impl ProbeTimes {
    /// Returns what all of them took, ns.
    pub fn time_ns(&self) -> u64 {
        self.programs.iter().map(|runs| runs.time_ns).sum()
    }
}

/// What walks took since gathering began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walks {
    /// CPU time.
    pub cost_ns: u64,
    /// How many.
    pub times: u64,
    /// Of them, those that could not look at the process.
    pub failed: u64,
}

/// What someone who watches wants to know more of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The process that is looked at closely.
    pub opened: Option<Id>,
    /// The process that is pointed at.
    pub selected: Option<Id>,
    /// Nothing new is wanted.
    pub paused: bool,
    /// Grows with each walk that was asked for at once.
    pub asked: u64,
}

#[cfg(test)]
#[path = "top_tests.rs"]
mod tests;
