//! What a walk finds.

use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};

use super::{
    memory::ReadMemory,
    pages::{InCells, OnPages},
};
use crate::model::names::{Name, interned, interned_keys};

/// What an allocator holds, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Walked {
    /// Its name.
    #[serde(deserialize_with = "interned")]
    pub name: Name,
    /// Its version, as far as it is known.
    pub version: Option<String>,
    /// The free bytes are a lower bound: part of what it holds could not be looked at.
    pub is_lower_bound: bool,
    /// What it has from the kernel.
    pub system: u64,
    /// What the program has from it, its own books included.
    pub in_use: u64,
    /// What it holds free, by its own classes.
    #[serde(deserialize_with = "interned_keys")]
    pub free: BTreeMap<&'static str, u64>,
    /// What was not understood: it changed while it was read, or is damaged.
    pub unknown: u64,
    /// Times that the walk had to look for the next place that makes sense.
    pub resyncs: u64,
    /// Locks of arenas that were held when they were looked at.
    pub locked: u64,
    /// Free bytes that are resident; `None` when nobody knows what is.
    pub free_resident: Option<u64>,
    /// Free resident bytes by first byte of their region.
    pub free_by_region: BTreeMap<u64, u64>,
    /// Where in these they are, if that was asked for: a walk may come back to a region.
    #[serde(skip)]
    pub free_in_cells: Vec<InCells>,
    /// What a trim would do; `None` where the allocator has none, or nobody knows.
    pub trim: Option<Trim>,
    /// What it is set to, in its own words.
    #[serde(deserialize_with = "interned_keys")]
    pub settings: BTreeMap<&'static str, u64>,
    /// Its arenas, in the order in which it links them.
    pub arenas: Vec<Arena>,
}

/// What a trim (`malloc_trim(0)`, a purge) would give back, and what would stay, in resident bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trim {
    /// Frames that the kernel would get back.
    pub frees: u64,
    /// Of these, parts of huge pages of which others stay: the kernel gets them when it splits those.
    pub late: u64,
    /// Pages that would leave this process, but whose frames others have too.
    pub shared: u64,
    /// Free memory at the top of arenas that no trim touches.
    pub other_tops: u64,
    /// Free bytes on pages of which a part is in use.
    pub partly_used: u64,
    /// Free bytes on pages that only the caches of threads keep.
    pub cached: u64,
    /// Whole free pages that it keeps for itself, as long as others beside them are in use.
    pub held: u64,
    /// The rest: what a trim leaves at the edges.
    pub edges: u64,
}

/// One arena.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arena {
    /// Where it is.
    pub address: u64,
    /// What it has from the kernel.
    pub system: u64,
    /// What it holds free.
    pub free: u64,
    /// … of it resident; `None` when nobody knows what is.
    pub free_resident: Option<u64>,
    /// Frames that a trim would free; `None` as for [`Walked::trim`].
    pub trimmable: Option<u64>,
    /// Threads that use it; `None` when it does not say.
    pub threads: Option<u64>,
}

impl Walked {
    /// Returns all that it holds free.
    pub fn free_bytes(&self) -> u64 {
        self.free.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Leaves out what rests on residency, where the walked memory does not know it.
    pub fn known_by<M: ReadMemory>(mut self, memory: &M) -> Self {
        if !memory.knows_residency() {
            self.free_resident = None;
            self.free_by_region.clear();
            self.free_in_cells.clear();
            self.trim = None;
            for arena in &mut self.arenas {
                (arena.free_resident, arena.trimmable) = (None, None);
            }
        }
        self
    }

    /// Adds where free bytes are.
    pub(super) fn add_regions(&mut self, pages: &OnPages) {
        for (&region, &bytes) in &pages.by_region {
            *self.free_by_region.entry(region).or_insert(0) += bytes;
        }
        self.free_in_cells.extend_from_slice(&pages.in_cells);
    }

    /// Sets what is in use: the rest. What was found is there, also where the allocator's own count is
    /// smaller since it changed while it was read.
    pub(super) fn settle(&mut self) {
        let found = self.free_bytes().saturating_add(self.unknown);
        self.system = self.system.max(found);
        self.in_use = self.system - found;
    }
}

/// Why an allocator was not walked.
#[derive(Debug, thiserror::Error)]
pub enum Unwalked {
    /// The process does not use it, as far as can be seen.
    #[error("{0} is not in use")]
    NotUsed(&'static str),
    /// Its books could not be made sense of.
    #[error("{name} is in use, but {why}")]
    NotUnderstood {
        /// The allocator.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The process could not be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
}
