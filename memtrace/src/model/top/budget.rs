//! How much of a CPU walks may take, and which process is next.

use std::cmp::Reverse;

use super::{Id, Process, Wish};

/// CPU time for the first walks: what is large is known soon.
const FIRST_NS: i64 = 300_000_000;
/// CPU time that may be saved up.
const MOST_NS: i64 = 50_000_000;
/// A walk of the process that is looked at is followed by so many times its own time without one.
const REST: u64 = 19;
/// A process that is pointed at is walked again after so long.
const STALE_NS: u64 = 10_000_000_000;
/// What has done nothing since it was walked is walked again after so long.
const OLD_NS: u64 = 300_000_000_000;
/// What has changed by so much, and by an eighth, goes before what has not.
const CHANGED: u64 = 4 << 20;
const CHANGED_PART: u64 = 8;

/// Which processes may be walked without being asked for, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walkable {
    /// These only; all where none is named.
    pub only: Vec<String>,
    /// Never these.
    pub never: Vec<String>,
}

impl Walkable {
    fn takes(&self, process: &Process) -> bool {
        let is_among = |names: &[String]| names.contains(&process.comm);
        (self.only.is_empty() || is_among(&self.only)) && !is_among(&self.never)
    }
}

/// CPU time that walks may take.
#[derive(Clone, Debug)]
pub struct Budget {
    walkable: Walkable,
    /// Part of a CPU for walks that nobody asked for, in millionths.
    share: u32,
    credit_ns: i64,
}

impl Budget {
    /// Begins with a share of a CPU, in millionths.
    pub const fn new(share: u32) -> Self {
        let walkable = Walkable { only: Vec::new(), never: Vec::new() };
        Self { walkable, share, credit_ns: if share == 0 { 0 } else { FIRST_NS } }
    }

    /// Walks only these from now on.
    pub fn set_walkable(&mut self, walkable: Walkable) {
        self.walkable = walkable;
    }

    /// Gives walks another share from now on.
    pub fn set_share(&mut self, share: u32) {
        self.share = share;
        if share == 0 {
            self.credit_ns = self.credit_ns.min(0);
        }
    }

    /// Adds the share of a time that has passed.
    pub fn earn(&mut self, passed_ns: u64) {
        let passed = i64::try_from(passed_ns).unwrap_or(i64::MAX);
        let earned = self.credit_ns.saturating_add(passed / 1_000_000 * i64::from(self.share));
        // What is left of the first time is no savings.
        self.credit_ns = earned.min(self.credit_ns.max(MOST_NS));
    }

    /// Takes what a walk took.
    pub fn spend(&mut self, cost_ns: u64) {
        let cost = i64::try_from(cost_ns).unwrap_or(i64::MAX);
        self.credit_ns = self.credit_ns.saturating_sub(cost);
    }

    /// Returns the process to walk now, if any.
    pub fn next(&self, processes: &[Process], wish: Wish, now_ns: u64) -> Option<Id> {
        if wish.paused {
            return None;
        }
        let find =
            |id: Option<Id>| id.and_then(|id| processes.iter().find(|process| process.id == id));
        if let Some(opened) = find(wish.opened) {
            let rested = opened.looked.as_ref().is_none_or(|looked| {
                let rest = looked.cost_ns.saturating_mul(REST);
                now_ns.saturating_sub(looked.at_ns) >= rest
            });
            return rested.then_some(opened.id);
        }
        if self.credit_ns <= 0 {
            return None;
        }
        let is_stale = |process: &&Process| {
            let looked = process.looked.as_ref();
            may_have_changed(process, now_ns)
                && looked.is_none_or(|looked| now_ns.saturating_sub(looked.at_ns) >= STALE_NS)
        };
        if let Some(selected) = find(wish.selected).filter(is_stale) {
            return Some(selected.id);
        }
        let may_be =
            |process: &&Process| self.walkable.takes(process) && may_have_changed(process, now_ns);
        let next = processes.iter().filter(may_be);
        Some(next.max_by_key(|process| urgency(process))?.id)
    }
}

/// Tells whether a walk may find something new.
fn may_have_changed(process: &Process, now_ns: u64) -> bool {
    process.looked.as_ref().is_none_or(|looked| {
        looked.done != process.done || now_ns.saturating_sub(looked.at_ns) >= OLD_NS
    })
}

/// What goes first: the largest that is not known, then what changed most, then what was walked
/// longest ago.
fn urgency(process: &Process) -> (bool, u64, Reverse<u64>) {
    let resident = process.done.resident;
    let Some(looked) = &process.looked else { return (true, resident, Reverse(0)) };
    let changed = looked.done.resident.abs_diff(resident);
    let is_worth_it = changed >= CHANGED && changed >= resident / CHANGED_PART;
    (false, if is_worth_it { changed } else { 0 }, Reverse(looked.at_ns))
}
