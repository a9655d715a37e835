//! What the traced processes did over time, in bounded memory: when memory left, by which path, and
//! what was there meanwhile.
//!
//! Not the report: its figures do not rest on this. What comes late, and what reclaim takes, is not
//! part of any change, so the sums by path may be smaller here.

mod series;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::series::{Merge, Series};
use super::change::{Change, What};

/// What the traced processes did over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// In the order in which they were seen.
    processes: Vec<Lifeline>,
    /// Changes of processes for which there was no room.
    untold: u64,
}

/// What one process did over time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lifeline {
    /// What users call its PID.
    pub tgid: u32,
    /// What left it, by path.
    pub left: Series<Left>,
    /// What was resident in it.
    pub resident: Series<Resident>,
    /// What was live and what was free of it.
    pub classes: Series<Classes>,
    /// What else happened to it, the first [`History::MARKS`] of it.
    pub marks: Vec<Mark>,
    /// Marks for which there was no room.
    pub untold_marks: u64,
}

/// What left by each path, in some time. A path that nothing took is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Left(pub BTreeMap<&'static str, LeftBy>);

/// What left by one path, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftBy {
    /// Operations.
    pub calls: u64,
    /// Bytes of their ranges; 0 for the end of an address space.
    pub requested: u64,
    /// Resident bytes detached; `None` when those of one are not known.
    pub zapped: Option<u64>,
    /// Bytes that the page allocator got back inside them; `None` when those of one are not known.
    pub freed: Option<u64>,
}

/// Frames that a process had mapped at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// When, `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a process held at a moment, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Classes {
    /// When, `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// Frames that it had mapped.
    pub resident: u64,
    /// Resident and not known to be free.
    pub live: Option<u64>,
    /// Resident and free in its allocators.
    pub free_resident: Option<u64>,
    /// `MADV_FREE`d and not yet taken.
    pub lazy_free: Option<u64>,
}

/// Something that happened to a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// When, `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// What.
    pub what: Happened,
}

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// It executed this program.
    Exec(String),
    /// It created this child.
    Fork(u32),
    /// It exited, with this code.
    Exit(i32),
}

impl History {
    /// Processes that are told of.
    pub const PROCESSES: usize = 128;
    /// Marks of one process that are kept.
    pub const MARKS: usize = 64;

    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what each process did.
    pub fn processes(&self) -> &[Lifeline] {
        &self.processes
    }

    /// Returns what a process did; of several that had this number, the last one.
    pub fn process(&self, tgid: u32) -> Option<&Lifeline> {
        self.processes.iter().rfind(|process| process.tgid == tgid)
    }

    /// Returns how many changes there was no room for.
    pub const fn untold(&self) -> u64 {
        self.untold
    }

    /// Takes in one change. The order does not matter but around exec and exit.
    pub fn apply(&mut self, change: &Change) {
        let &Change { time_ns, tgid, tid: _, ref what } = change;
        if matches!(what, What::Fault { .. }) {
            return;
        }
        // What comes after an exit is about the next one with this number, but for the teardown.
        let may_have_exited = matches!(what, What::MmEnd { .. });
        let Some(process) = self.process_mut(tgid, may_have_exited) else {
            self.untold += 1;
            return;
        };
        match *what {
            What::Call { path: Some(path), requested, zapped, freed, .. } => {
                let left = LeftBy { calls: 1, requested, zapped, freed };
                process.left.add(time_ns, Left([(path, left)].into()));
            }
            What::Call { path: None, .. } | What::Fault { .. } => {}
            What::MmEnd { zapped, freed } => {
                let left = LeftBy { calls: 1, requested: 0, zapped, freed };
                let path = if process.has_exited() { "exit" } else { "exec" };
                process.left.add(time_ns, Left([(path, left)].into()));
            }
            What::Memory { resident: Some(resident), live, free_resident, lazy_free, .. } => {
                process.resident.add(time_ns, Resident { time_ns, bytes: resident });
                if live.or(free_resident).is_some() {
                    let classes = Classes { time_ns, resident, live, free_resident, lazy_free };
                    process.classes.add(time_ns, classes);
                }
            }
            What::Memory { resident: None, .. } => {}
            What::Exec { ref path } => process.mark(time_ns, Happened::Exec(path.clone())),
            What::Fork { child, .. } => process.mark(time_ns, Happened::Fork(child)),
            What::Exit { code } => process.mark(time_ns, Happened::Exit(code)),
        }
    }

    fn process_mut(&mut self, tgid: u32, may_have_exited: bool) -> Option<&mut Lifeline> {
        let is_it =
            |process: &Lifeline| process.tgid == tgid && (may_have_exited || !process.has_exited());
        let at = match self.processes.iter().rposition(is_it) {
            Some(at) => at,
            None if self.processes.len() < Self::PROCESSES => {
                self.processes.push(Lifeline::new(tgid));
                self.processes.len() - 1
            }
            None => return None,
        };
        self.processes.get_mut(at)
    }
}

impl Lifeline {
    const fn new(tgid: u32) -> Self {
        Self {
            tgid,
            left: Series::new(),
            resident: Series::new(),
            classes: Series::new(),
            marks: Vec::new(),
            untold_marks: 0,
        }
    }

    /// Returns when it exited, if that was seen.
    pub fn exited_ns(&self) -> Option<u64> {
        let exit = self.marks.iter().rfind(|mark| matches!(mark.what, Happened::Exit(_)));
        exit.map(|mark| mark.time_ns)
    }

    fn has_exited(&self) -> bool {
        self.exited_ns().is_some()
    }

    fn mark(&mut self, time_ns: u64, what: Happened) {
        // Its end is told in any case.
        if self.marks.len() < History::MARKS || matches!(what, Happened::Exit(_)) {
            self.marks.push(Mark { time_ns, what });
        } else {
            self.untold_marks += 1;
        }
    }
}

impl Merge for Left {
    /// Adds up.
    fn merge(&mut self, Self(others): Self) {
        for (path, other) in others {
            let LeftBy { calls, requested, zapped, freed } = other;
            let sum = self.0.entry(path).or_insert(LeftBy {
                zapped: Some(0),
                freed: Some(0),
                ..LeftBy::default()
            });
            let both = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
            *sum = LeftBy {
                calls: sum.calls.saturating_add(calls),
                requested: sum.requested.saturating_add(requested),
                zapped: both(sum.zapped, zapped),
                freed: both(sum.freed, freed),
            };
        }
    }
}

impl Merge for Resident {
    /// Keeps the peak.
    fn merge(&mut self, other: Self) {
        if (other.bytes, self.time_ns) > (self.bytes, other.time_ns) {
            *self = other;
        }
    }
}

impl Merge for Classes {
    /// Keeps the moment at which most was free, since that is what one looks for.
    fn merge(&mut self, other: Self) {
        let free = |it: &Self| it.free_resident.unwrap_or(0) + it.lazy_free.unwrap_or(0);
        let rank = |it: &Self| (free(it), it.resident);
        if (rank(&other), self.time_ns) > (rank(self), other.time_ns) {
            *self = other;
        }
    }
}
