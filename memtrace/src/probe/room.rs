//! How much the tables have room for when every process of the machine is counted.

use aya::EbpfLoader;

use crate::source::cgroups;

/// Where memtrace may have less memory than this, its tables have less room: with all of it, and 2,000
/// processes, it takes some 54 MB, tables and files of the kernel included.
const SHORT: u64 = 80 << 20;
/// With less room, and 2,000 processes, it takes some 43 MB.
const TOO_SHORT: u64 = 48 << 20;

/// Processes that are followed then, instead of 8,192.
const PROCESSES: u32 = 4_096;

/// The largest tables, and what they have room for where memory is short.
const LESS: [(&str, u32); 8] = [
    ("BOOKS", PROCESSES),
    ("MMS", PROCESSES),
    ("FREE_SLOTS", PROCESSES),
    ("SHARES", PROCESSES),
    ("SUMS", 1_024),
    ("TASKS", 4_096),
    ("PENDING", 4_096),
    ("OWNERS", 4_096),
];

/// Those of single processes, in which nothing is then.
const UNUSED: [&str; 2] = ["TRACED", "SPACES"];

/// Sets what the tables have room for.
pub(super) fn size_maps(loader: &mut EbpfLoader<'_>) {
    for map in UNUSED {
        loader.map_max_entries(map, 1);
    }
    let Some(limit) = cgroups::memory_limit().filter(|limit| *limit < SHORT) else { return };
    for (map, entries) in LESS {
        loader.map_max_entries(map, entries);
    }
    let mib = limit >> 20;
    log::warn!(
        "memtrace's cgroup may have {mib} MiB: the tables have room for {PROCESSES} processes, not 8192"
    );
    if limit < TOO_SHORT {
        log::warn!("the kernel may kill memtrace for that: give it {} MiB", TOO_SHORT >> 20);
    }
}
