//! What a process holds: read while it runs, or what its teardown detached.

use memtrace_common::{Counter, Path};

use super::{RegionResidency, Residency, allocators::free_resident, bytes};
use crate::model::{
    region_map::{Backing, Vma},
    report::{Evidence, FreedNotReclaimed, Memory, ResidentByKind},
    space::AddressSpace,
};

/// Returns what a process holds in an address space.
pub(super) fn memory(evidence: Evidence, space: &AddressSpace, read: Option<&Residency>) -> Memory {
    let mapped = space.regions_known.then(|| space.mapped());
    let (by_kind, swapped, lazy_free) = if let Some(read) = read {
        let Residency { total, .. } = read;
        let &RegionResidency { resident, anon, swapped, lazy_free, .. } = total;
        let on_tmpfs = |vma: &&Vma| matches!(vma.backing, Backing::File { shmem: true, .. });
        let tmpfs = space.regions.iter().filter(on_tmpfs);
        let shmem = tmpfs
            .filter_map(|vma| read.regions.get(&vma.range.start))
            .map(|known| known.resident.saturating_sub(known.anon))
            .sum::<u64>();
        let file = resident.saturating_sub(anon + shmem);
        let kinds = [Some(anon), Some(file), Some(shmem)];
        (kinds, Some(swapped), Some(lazy_free))
    } else if space.ended && evidence >= Evidence::Rss {
        // What the teardown detached was there just before it.
        let torn_down = |counter: Counter| {
            [Path::Exec, Path::Exit]
                .iter()
                .map(|path| bytes(space.ledger.paths[path.index()].zapped_pages[counter as usize]))
                .fold(0, u64::saturating_add)
        };
        let kinds = [Counter::Anon, Counter::File, Counter::Shmem].map(|c| Some(torn_down(c)));
        (kinds, Some(torn_down(Counter::Swap)), None)
    } else {
        ([None; 3], None, None)
    };
    let [anon, file, shmem] = by_kind;
    let kept = read.and_then(|read| free_resident(&read.allocators));
    let resident = anon
        .zip(file)
        .zip(shmem)
        .map(|((anon, file), shmem)| anon.saturating_add(file).saturating_add(shmem));
    Memory {
        mapped,
        resident,
        resident_by_kind: ResidentByKind { anon, file, shmem },
        live: resident.map(|resident| {
            let known = [lazy_free, kept].into_iter().flatten();
            known.fold(resident, u64::saturating_sub)
        }),
        freed_not_reclaimed: FreedNotReclaimed {
            total: kept.zip(lazy_free).map(|(kept, lazy_free)| kept.saturating_add(lazy_free)),
            allocator: kept,
            lazy_free,
        },
        reserved: mapped.zip(resident).map(|(mapped, resident)| {
            mapped.saturating_sub(resident).saturating_sub(swapped.unwrap_or(0))
        }),
        swapped,
        cold: read.and_then(|read| read.total.cold),
    }
}
