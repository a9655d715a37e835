//! The whole machine: what left every process, by process, program and cgroup. Pure: readings of the
//! kernel's books in, a report out.

mod books;
mod rows;
mod settled;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use memtrace_common::Owner;
use serde::{Deserialize, Serialize};

pub use self::{
    books::{ByPath, Ended, LeftPages, Space},
    rows::{machine_report, process_rows},
    settled::Settled,
};
use super::report::{Evidence, Host};

/// What the kernel's books say at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Address spaces that live.
    pub spaces: Vec<Space>,
    /// Those that ended, by program and cgroup.
    pub ended: HashMap<Owner, Ended>,
    /// Address spaces that could not be counted since the table was full.
    pub untracked: u64,
}

/// What left every process of the machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MachineReport {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Where it was measured.
    pub host: Host,
    /// When, and how completely.
    pub window: MachineWindow,
    /// The sum of all.
    pub all: Row,
    /// Living processes, those that freed most in the last interval first.
    pub processes: Vec<Arc<Row>>,
    /// Programs, by name: what lives and what ended.
    pub programs: Vec<Arc<Row>>,
    /// Cgroups: what lives and what ended.
    pub cgroups: Vec<Arc<Row>>,
}

/// [`MachineReport::schema`] of this build.
pub const SCHEMA: &str = "memtrace.ledger/1";

/// The time in which was counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineWindow {
    /// What the figures rest on.
    pub evidence: Evidence,
    /// When counting began, `CLOCK_BOOTTIME`.
    pub start_ns: u64,
    /// When the interval began.
    pub interval_ns: u64,
    /// When the interval ended.
    pub end_ns: u64,
    /// Address spaces that could not be counted since the table was full.
    pub untracked: u64,
    /// Every address space was counted.
    pub complete: bool,
}

/// What left a process, or several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Process id; only of a process.
    pub tgid: Option<u32>,
    /// Name of the process or program; `None` for what is summed over several.
    pub comm: Option<String>,
    /// Path of the cgroup; `None` when it is not known, or there are several.
    pub cgroup: Option<String>,
    /// Address spaces that live.
    pub living: u64,
    /// Address spaces that ended, by exec or exit.
    pub ended: u64,
    /// Resident in those that live, bytes, to a few pages a CPU.
    pub resident: u64,
    /// Bytes detached since the last reading.
    pub zapped_lately: u64,
    /// Bytes that the page allocator got back since the last reading; `None` when not counted.
    pub freed_lately: Option<u64>,
    /// What left since counting began.
    pub total: Left,
    /// The same by path; a path that nothing took is absent.
    pub by_path: BTreeMap<&'static str, Left>,
}

/// What left, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// Operations that detached pages. Reclaim is not counted in operations.
    pub operations: u64,
    /// Detached.
    pub zapped: u64,
    /// Freed, late ones included; like the next two `None` when frames are not counted.
    pub freed: Option<u64>,
    /// Of `freed`, what came back after the operation.
    pub late: Option<u64>,
    /// Detached and not freed.
    pub kept: Option<u64>,
}

/// What a report of the machine needs beside the readings.
#[derive(Clone, Debug)]
pub struct MachineSurroundings<'a> {
    /// The machine.
    pub host: Host,
    /// When, and how completely.
    pub window: MachineWindow,
    /// So many rows at most.
    pub top: Top,
    /// Paths of cgroups, by number.
    pub cgroups: &'a HashMap<u64, String>,
}

/// How many rows there are at most, those that freed most lately first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// Rows of processes.
    pub processes: usize,
    /// Rows of programs.
    pub programs: usize,
    /// Rows of cgroups.
    pub cgroups: usize,
}

impl Top {
    /// So many of each kind.
    pub const fn of_each(count: usize) -> Self {
        Self { processes: count, programs: count, cgroups: count }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
