//! What each call stack gave up, and how often it faulted, as the probes summed it in the kernel.

use anyhow::Result;
use aya::EbpfLoader;
use memtrace_common::stacks::{Faulted, Faulter, Reclaimed, Reclaimer};

use super::attach::Probes;

/// Entries of the map of call stacks when either is asked for, and of each sum: some 20 MB of kernel
/// memory.
const STACKS: u32 = 16_384;
const SUMS: u32 = 16_384;

/// Makes room for what is asked for, and has the probes do it.
pub(super) fn size_maps(loader: &mut EbpfLoader<'_>, reclaimed: bool, faults: bool) {
    for (asked, global, map) in
        [(reclaimed, "SUMS_RECLAIMERS", "RECLAIMED"), (faults, "COUNTS_FAULTERS", "FAULTED")]
    {
        if asked {
            loader.override_global(global, &1_u32, true);
            loader.map_max_entries(map, SUMS).map_max_entries("STACKS", STACKS);
        }
    }
}

impl Probes {
    /// Reads what each call stack gave up, by path.
    pub fn reclaimers(&self) -> Result<Vec<(Reclaimer, Reclaimed)>> {
        self.wires("RECLAIMED")
    }

    /// Reads how often each call stack faulted.
    pub fn faulters(&self) -> Result<Vec<(Faulter, Faulted)>> {
        self.wires("FAULTED")
    }
}
