//! What a process holds.

use serde::{Deserialize, Serialize};

/// What a process holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Size of all its regions.
    pub mapped: Option<u64>,
    /// Frames that it has mapped.
    pub resident: Option<u64>,
    /// `resident` by what backs it.
    pub resident_by_kind: ResidentByKind,
    /// Resident and not known to be free.
    pub live: Option<u64>,
    /// Given up by the program, frames still taken.
    pub freed_not_reclaimed: FreedNotReclaimed,
    /// Mapped without a frame.
    pub reserved: Option<u64>,
    /// In swap.
    pub swapped: Option<u64>,
    /// Resident and not touched in the window; `None` when nobody asked. Not known to be free.
    pub cold: Option<u64>,
}

/// Resident bytes by what backs them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResidentByKind {
    /// Anonymous memory.
    pub anon: Option<u64>,
    /// Files.
    pub file: Option<u64>,
    /// tmpfs: shared anonymous memory, memfd, System V.
    pub shmem: Option<u64>,
}

/// Given up by the program, frames still taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FreedNotReclaimed {
    /// All of it; `None` while one part is unknown.
    pub total: Option<u64>,
    /// Kept by allocators.
    pub allocator: Option<u64>,
    /// `MADV_FREE`d and not yet taken.
    pub lazy_free: Option<u64>,
}
