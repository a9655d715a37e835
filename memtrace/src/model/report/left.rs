//! What left a process, by which path, and why frames stayed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::names::{Name, interned_keys};

/// What left a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reclaimed {
    /// Bytes that the page allocator got back, by any path; `None` below [`super::Evidence::Frames`].
    pub total: Option<u64>,
    /// How long the late frames took; `None` when there were none, or nobody measured.
    pub late_delay: Option<LateDelay>,
    /// The same by path; a path that nothing took is absent.
    #[serde(deserialize_with = "interned_keys")]
    pub by_path: BTreeMap<Name, PathReport>,
    /// What left in system calls, by what the region was; a kind that nothing left is absent.
    #[serde(deserialize_with = "interned_keys")]
    pub by_kind: BTreeMap<Name, KindReport>,
}

/// What left regions of one kind in system calls, bytes. What exec, exit and reclaim took is not among
/// it, nor what came back late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KindReport {
    /// Calls that detached pages.
    pub calls: u64,
    /// Resident bytes detached.
    pub zapped: u64,
    /// Bytes that the page allocator got back inside the calls; `None` below [`super::Evidence::Frames`].
    pub freed: Option<u64>,
}

/// How long frames took that came back after the operation that detached them, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LateDelay {
    /// Half of them took at most so long (to the next power of two).
    pub p50_ns: u64,
    /// 99 % of them took at most so long (to the next power of two).
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// What left by one path. The four figures of docs/OUTPUT.md, never mixed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathReport {
    /// Operations.
    pub calls: u64,
    /// Bytes of their ranges; `None` when the size of one is not known.
    pub requested: Option<u64>,
    /// Resident bytes detached from this process; `None` below [`super::Evidence::Rss`].
    pub zapped: Option<u64>,
    /// Bytes that the page allocator got back, `late` ones included; like those that follow `None`
    /// below [`super::Evidence::Frames`].
    pub freed: Option<u64>,
    /// Bytes of `freed` that came back after the call, out of a per-CPU batch or from task work.
    pub late: Option<u64>,
    /// `zapped - freed`: the frames live on elsewhere.
    pub kept_elsewhere: Option<u64>,
    /// Why, in bytes that add up to `kept_elsewhere`.
    pub kept_by_reason: Option<KeptByReason>,
}

/// Why detached frames were not freed, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptByReason {
    /// They belong to files: the page cache keeps them.
    pub page_cache: u64,
    /// They belong to tmpfs: the memory object lives on (another mapping, a descriptor, a segment).
    pub shmem: u64,
    /// Anonymous, and an address space that a fork shares them with was alive.
    pub shared: u64,
    /// Part of a huge page of which another part is still mapped: it goes as a whole.
    pub huge_page: u64,
    /// Pinned for a device, as far as the process's `VmPin` says so.
    pub pinned: u64,
    /// Taken by reclaim, and still in the swap cache, or mapped again from there.
    pub swap: u64,
    /// Nobody knows: still in a per-CPU batch, pinned, or shared since before tracing began.
    pub unknown: u64,
}

impl KeptByReason {
    /// Adds others.
    pub fn add(&mut self, other: Self) {
        let Self { page_cache, shmem, shared, huge_page, pinned, swap, unknown } = self;
        for (sum, more) in [
            (page_cache, other.page_cache),
            (shmem, other.shmem),
            (shared, other.shared),
            (huge_page, other.huge_page),
            (pinned, other.pinned),
            (swap, other.swap),
            (unknown, other.unknown),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}
