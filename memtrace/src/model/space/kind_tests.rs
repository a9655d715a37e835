//! By what the region was from which pages left.

use memtrace_common::{Call, Region, Syscall};

use super::{
    super::*,
    {anon, shmem, space},
};

fn left(space: &AddressSpace) -> Vec<(RegionKind, u64, u64)> {
    space.left_by_kind.iter().map(|(&kind, left)| (kind, left.calls, left.zapped_pages)).collect()
}

fn call(space: &mut AddressSpace, syscall: Syscall, args: [u64; 6], seq: u64) {
    space.call(syscall, &Call { seq, args, zapped_pages: 3, ..Call::default() });
}

fn erase(space: &mut AddressSpace, pages: std::ops::Range<u64>, seq: u64) {
    let (start, end) = (pages.start * PAGE, pages.end * PAGE);
    space.erase(&Region { start, end, seq, ..Region::default() });
}

#[test]
fn advice_takes_from_the_region_that_is_there() {
    let mut space = space(&[anon(2..10, 1), shmem(10..20, 7, 0, 2)]);
    // What this thread erased before is not meant, though it was in the same section.
    erase(&mut space, 12..13, 2);
    call(&mut space, Syscall::Madvise, [2 * PAGE, PAGE, 4, 0, 0, 0], 2);
    call(&mut space, Syscall::Madvise, [15 * PAGE, PAGE, 9, 0, 0, 0], 2);
    assert_eq!(left(&space), [(RegionKind::Anon, 1, 3), (RegionKind::Shmem, 1, 3)]);
}

#[test]
fn munmap_takes_from_the_region_that_it_erased_whether_that_was_seen_or_not() {
    let mut space = space(&[anon(2..10, 1), shmem(10..20, 7, 0, 2)]);
    erase(&mut space, 10..20, 3);
    call(&mut space, Syscall::Munmap, [10 * PAGE, 10 * PAGE, 0, 0, 0, 0], 3);
    call(&mut space, Syscall::Munmap, [2 * PAGE, 8 * PAGE, 0, 0, 0, 0], 4);
    assert_eq!(left(&space), [(RegionKind::Anon, 1, 3), (RegionKind::Shmem, 1, 3)]);
    // Nothing is there any more.
    call(&mut space, Syscall::Munmap, [2 * PAGE, 8 * PAGE, 0, 0, 0, 0], 5);
    assert_eq!(left(&space).len(), 2);
}

#[test]
fn map_fixed_takes_from_what_it_replaced() {
    let mut space = space(&[shmem(10..20, 7, 0, 2)]);
    space.store(&anon(10..20, 3));
    let args = [10 * PAGE, 10 * PAGE, 3, 0x32, u64::MAX, 0];
    space.call(
        Syscall::Mmap,
        &Call { seq: 3, args, ret: 10 * PAGE as i64, zapped_pages: 3, ..Call::default() },
    );
    assert_eq!(left(&space), [(RegionKind::Shmem, 1, 3)]);
}

#[test]
fn a_heap_trim_takes_from_the_heap_and_a_call_that_took_nothing_from_none() {
    let mut space = space(&[anon(2..10, 1)]);
    call(&mut space, Syscall::Brk, [0; 6], 2);
    space.call(Syscall::Madvise, &Call { seq: 2, args: [0, PAGE, 4, 0, 0, 0], ..Call::default() });
    call(&mut space, Syscall::ProcessMadvise, [0; 6], 2);
    assert_eq!(left(&space), [(RegionKind::Heap, 1, 3)]);
}
