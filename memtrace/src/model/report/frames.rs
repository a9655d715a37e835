//! How frames came to a process, and what became of those that it gave up.

use serde::{Deserialize, Serialize};

/// Page faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults {
    /// Without I/O.
    pub minor: Option<u64>,
    /// With I/O.
    pub major: Option<u64>,
    /// Frames that were zeroed for it.
    pub zeroed: Option<u64>,
    /// The same by what they are for.
    pub zeroed_by_kind: ZeroedByKind,
    /// Frames into which another was copied for it: copy-on-write.
    pub copied: Option<u64>,
}

/// Zeroed frames by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ZeroedByKind {
    /// Pages of anonymous memory.
    pub anon: Option<u64>,
    /// Huge pages of anonymous memory, in frames.
    pub huge: Option<u64>,
    /// Pages of tmpfs.
    pub shmem: Option<u64>,
}

/// What became of the memory that a process gave up by `MADV_FREE`, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MadvFree {
    /// Still there, for the kernel to take.
    pub now: Option<u64>,
    /// Resident in a range that was given up, and in use again.
    pub used_again: Option<u64>,
    /// Taken by the kernel, in the window.
    pub taken: Option<u64>,
}

/// Pages to and from swap, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Swap {
    /// Written by reclaim.
    pub out: Option<u64>,
    /// Brought back by faults.
    pub r#in: Option<u64>,
}

/// How long freed frames kept what was in them, in frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remanence {
    /// Frames that the process freed.
    pub freed: u64,
    /// Of them, those that nobody got yet: they hold what was in them, unless the kernel clears what
    /// it gets back ([`super::Host::init_on_free`]).
    pub still_free: u64,
    /// Of those that others got, those that were asked for full of zeros. Whoever got the rest
    /// overwrites them: a copy, the page cache, the kernel's own data.
    pub zeroed_for_others: u64,
    /// Frames that the process got again.
    pub to_itself: Reuse,
    /// Frames that others got.
    pub to_others: Reuse,
}

/// Frames that were given out again, and how long after they had been freed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reuse {
    /// How many.
    pub frames: u64,
    /// Half of them at most so long (to the next power of two); like the next two 0 without any.
    pub p50_ns: u64,
    /// 99 % of them at most so long (to the next power of two).
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// All of them, by the time that they took; ascending, without empty steps.
    pub histogram: Vec<Within>,
}

/// A step of a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Within {
    /// At most so long, and longer than the step before: a power of two minus one.
    pub within_ns: u64,
    /// Frames.
    pub frames: u64,
}
