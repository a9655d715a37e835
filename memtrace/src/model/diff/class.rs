//! The classes of memory, and how much each may grow.

use serde::Serialize;

use super::{
    Change,
    kept::{KeptMemory, KeptProcess},
    sum,
};

/// What memory of a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// All of it, touched or not.
    Mapped,
    /// Frames that are taken.
    Resident,
    /// Resident and not known to be free.
    Live,
    /// Given up by the program, frames still taken.
    FreedNotReclaimed,
    /// … by allocators.
    Allocator,
    /// … `MADV_FREE`d and not yet taken.
    LazyFree,
    /// Mapped without a frame.
    Reserved,
    /// In swap.
    Swapped,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Mapped,
        Self::Resident,
        Self::Live,
        Self::FreedNotReclaimed,
        Self::Allocator,
        Self::LazyFree,
        Self::Reserved,
        Self::Swapped,
    ];

    /// Returns its name, as in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mapped => "mapped",
            Self::Resident => "resident",
            Self::Live => "live",
            Self::FreedNotReclaimed => "freed_not_reclaimed",
            Self::Allocator => "allocator",
            Self::LazyFree => "lazy_free",
            Self::Reserved => "reserved",
            Self::Swapped => "swapped",
        }
    }
}

/// What is held, by class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Classes {
    /// Size of all regions.
    pub mapped: Change,
    /// Frames that are mapped.
    pub resident: Change,
    /// Resident and not known to be free.
    pub live: Change,
    /// Given up by the program, frames still taken.
    pub freed_not_reclaimed: Change,
    /// … kept by allocators.
    pub allocator: Change,
    /// … `MADV_FREE`d and not yet taken.
    pub lazy_free: Change,
    /// Mapped without a frame.
    pub reserved: Change,
    /// In swap.
    pub swapped: Change,
}

impl Classes {
    pub(super) fn of(change: impl Fn(Class) -> Change) -> Self {
        Self {
            mapped: change(Class::Mapped),
            resident: change(Class::Resident),
            live: change(Class::Live),
            freed_not_reclaimed: change(Class::FreedNotReclaimed),
            allocator: change(Class::Allocator),
            lazy_free: change(Class::LazyFree),
            reserved: change(Class::Reserved),
            swapped: change(Class::Swapped),
        }
    }

    /// Returns one class.
    pub const fn get(&self, class: Class) -> Change {
        match class {
            Class::Mapped => self.mapped,
            Class::Resident => self.resident,
            Class::Live => self.live,
            Class::FreedNotReclaimed => self.freed_not_reclaimed,
            Class::Allocator => self.allocator,
            Class::LazyFree => self.lazy_free,
            Class::Reserved => self.reserved,
            Class::Swapped => self.swapped,
        }
    }

    /// Returns how far the two sides are apart: address space is not memory, and does not count.
    /// What one side does not know counts as a whole, since it may be that much.
    pub(super) fn distance(&self) -> u64 {
        let of = |change: Change| match change.change {
            Some(_) => change.distance(),
            None => change.before.or(change.after).unwrap_or(0),
        };
        of(self.resident).max(of(self.freed_not_reclaimed)).max(of(self.swapped))
    }
}

impl KeptMemory {
    pub(super) fn class(&self, class: Class) -> Option<u64> {
        match class {
            Class::Mapped => self.mapped,
            Class::Resident => self.resident,
            Class::Live => self.live,
            Class::FreedNotReclaimed => self.freed_not_reclaimed.total,
            Class::Allocator => self.freed_not_reclaimed.allocator,
            Class::LazyFree => self.freed_not_reclaimed.lazy_free,
            Class::Reserved => self.reserved,
            Class::Swapped => self.swapped,
        }
    }
}

/// Returns what all processes of a report hold; `None` where it is not known of one of them, or there
/// is none.
pub(super) fn total(class: Class, processes: &[KeptProcess]) -> Option<u64> {
    let figures = processes.iter().map(|process| process.memory.class(class));
    sum(figures).filter(|_| !processes.is_empty())
}

/// How much a class may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The class.
    pub class: Class,
    /// By so many bytes it may grow.
    pub allowed: u64,
}

/// What became of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Name of the class.
    pub class: &'static str,
    /// By so many bytes it may grow.
    pub allowed: u64,
    /// By so many it did, of all processes together.
    pub change: Option<i64>,
    /// `held`, `exceeded`, or `unknown`: one report does not know the class.
    pub state: &'static str,
}

impl Limit {
    pub(super) fn judge(self, all: &Classes) -> Verdict {
        let Self { class, allowed } = self;
        let change = all.get(class).change;
        let state = match change {
            None => "unknown",
            Some(change) if change > 0 && change.unsigned_abs() > allowed => "exceeded",
            Some(_) => "held",
        };
        Verdict { class: class.name(), allowed, change, state }
    }
}

impl KeptProcess {
    /// Tells whether all its allocators were looked at: then one that is not listed holds nothing.
    pub(super) fn was_walked(&self) -> bool {
        self.memory.freed_not_reclaimed.allocator.is_some() && self.unwalked.is_empty()
    }
}
