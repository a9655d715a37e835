//! What allocators hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::names::{Name, interned, interned_keys};

/// What one allocator holds, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllocatorReport {
    /// Its name.
    #[serde(deserialize_with = "interned")]
    pub name: Name,
    /// Its version, as far as it is known.
    pub version: Option<String>,
    /// `walked`, or `lower_bound` when part of what it holds free could not be looked at.
    #[serde(deserialize_with = "interned")]
    pub evidence: Name,
    /// What it has from the kernel.
    pub system: u64,
    /// What the program has from it, its own books included.
    pub in_use: u64,
    /// What it holds free, by its own classes.
    #[serde(deserialize_with = "interned_keys")]
    pub free: BTreeMap<Name, u64>,
    /// What was not understood: it changed while it was read, or is damaged.
    pub unknown: u64,
    /// Times that the walk had to look for the next place that makes sense.
    pub resyncs: u64,
    /// Locks of arenas that were held when they were looked at.
    pub locked: u64,
    /// Free bytes that are resident.
    pub free_resident: Option<u64>,
    /// Frames that a trim would free.
    pub trimmable: Option<u64>,
    /// Of these, parts of huge pages of which others stay: the kernel gets them when it splits those.
    pub trimmable_late: Option<u64>,
    /// Free resident bytes that stay after a trim, by why.
    pub remains: Option<Remains>,
    /// What it is set to, in its own words.
    #[serde(deserialize_with = "interned_keys")]
    pub settings: BTreeMap<Name, u64>,
    /// Its arenas, the first one first.
    pub arenas: Vec<ArenaReport>,
}

/// Free resident bytes that stay after a trim, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remains {
    /// On pages of which a part is in use.
    pub partly_used: u64,
    /// At the top of arenas that a trim does not touch.
    pub other_tops: u64,
    /// On pages that only the caches of threads keep.
    pub cached: u64,
    /// They leave this process, but others have the frames too.
    pub shared: u64,
    /// Whole free pages that it keeps for itself, as long as others beside them are in use.
    pub held: u64,
    /// What a trim leaves at the edges of free memory.
    pub edges: u64,
}

/// One arena, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArenaReport {
    /// Where it is, hexadecimal.
    pub address: String,
    /// What it has from the kernel.
    pub system: u64,
    /// What it holds free.
    pub free: u64,
    /// … of it resident.
    pub free_resident: Option<u64>,
    /// Frames that a trim would free.
    pub trimmable: Option<u64>,
    /// Threads that use it.
    pub threads: Option<u64>,
}
