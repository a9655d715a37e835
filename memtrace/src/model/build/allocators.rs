//! What allocators hold, as the report tells it.

use crate::{
    allocator::walked::{Arena, Trim, Walked},
    model::report::{AllocatorReport, ArenaReport, Remains},
};

/// Returns what the report says of an allocator.
pub(super) fn allocator(walked: &Walked) -> AllocatorReport {
    let Walked {
        name,
        version,
        is_lower_bound,
        system,
        in_use,
        free,
        unknown,
        resyncs,
        locked,
        free_resident,
        free_by_region: _,
        free_in_cells: _,
        trim,
        settings,
        arenas,
    } = walked;
    AllocatorReport {
        name,
        version: version.clone(),
        evidence: if *is_lower_bound { "lower_bound" } else { "walked" },
        system: *system,
        in_use: *in_use,
        free: free.clone(),
        unknown: *unknown,
        resyncs: *resyncs,
        locked: *locked,
        free_resident: *free_resident,
        trimmable: trim.map(|trim| trim.frees),
        trimmable_late: trim.map(|trim| trim.late),
        remains: trim.map(remains),
        settings: settings.clone(),
        arenas: arenas.iter().map(arena).collect(),
    }
}

const fn remains(trim: Trim) -> Remains {
    let Trim { frees: _, late: _, shared, other_tops, partly_used, cached, held, edges } = trim;
    Remains { partly_used, other_tops, cached, shared, held, edges }
}

fn arena(arena: &Arena) -> ArenaReport {
    let &Arena { address, system, free, free_resident, trimmable, threads } = arena;
    let address = format!("{address:#x}");
    ArenaReport { address, system, free, free_resident, trimmable, threads }
}

/// Returns the free resident bytes of all allocators of which they are known; `None` when there is none.
pub(super) fn free_resident(walked: &[Walked]) -> Option<u64> {
    let known = walked.iter().filter_map(|walked| walked.free_resident);
    known.reduce(u64::saturating_add)
}

/// Returns the free resident bytes in the region that starts at an address; `None` as above.
pub(super) fn free_in_region(walked: &[Walked], start: u64) -> Option<u64> {
    free_resident(walked)?;
    let parts = walked.iter().filter_map(|walked| walked.free_by_region.get(&start));
    Some(parts.fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)))
}
