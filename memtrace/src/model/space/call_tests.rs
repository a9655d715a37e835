use memtrace_common::Region;

use super::{
    super::{
        Layout,
        tests::{anon, given_up, mapped, shmem, space},
    },
    *,
};

/// Applies a call in write section 9 and returns the pages of its range.
fn call<const N: usize>(
    space: &mut AddressSpace,
    syscall: Syscall,
    args: [u64; N],
    ret: i64,
) -> Range<u64> {
    zapping(space, syscall, args, ret, 0)
}

fn zapping<const N: usize>(
    space: &mut AddressSpace,
    syscall: Syscall,
    args: [u64; N],
    ret: i64,
    zapped_pages: u64,
) -> Range<u64> {
    let mut call = Call { seq: 9, ret, zapped_pages, ..Call::default() };
    call.args[..N].copy_from_slice(&args);
    let range = space.call(syscall, &call);
    range.start / PAGE..range.end / PAGE
}

fn asked_for(space: &AddressSpace) -> (u64, u64) {
    (space.asked_for.calls, space.asked_for.bytes / PAGE)
}

/// Asserts that a failed call changed nothing and was booked nowhere.
#[track_caller]
fn untouched(space: &AddressSpace, regions: &[Region]) {
    let before = self::space(regions);
    assert_eq!(space.regions, before.regions);
    assert_eq!(space.given_up, before.given_up);
    assert_eq!(space.asked_for, before.asked_for);
}

const EINVAL: i64 = -(libc::EINVAL as i64);
const EACCES: i64 = -(libc::EACCES as i64);
const ENOMEM: i64 = -(libc::ENOMEM as i64);

#[test]
fn munmap_cuts_a_hole_and_counts_the_range_that_it_named() {
    let mut space = space(&[anon(0..10, 1)]);
    // A length that is no multiple of a page takes the whole last page.
    let range = call(&mut space, Syscall::Munmap, [3 * PAGE, PAGE + 1], 0);
    assert_eq!(range, 3..5);
    assert_eq!(mapped(&space), [(0, 3), (5, 10)]);
    assert_eq!(given_up(&space, Path::Munmap), (1, 2));
}

#[test]
fn a_failing_munmap_changes_nothing() {
    let regions = [anon(0..10, 1)];
    let mut space = space(&regions);
    call(&mut space, Syscall::Munmap, [3 * PAGE + 1, PAGE], EINVAL);
    untouched(&space, &regions);
}

#[test]
fn a_munmap_that_is_told_late_spares_what_was_mapped_after_it() {
    let mut space = space(&[anon(0..10, 1), anon(4..6, 10)]);
    call(&mut space, Syscall::Munmap, [0, 10 * PAGE], 0);
    assert_eq!(mapped(&space), [(4, 6)]);
}

#[test]
fn mmap_counts_its_range_wherever_it_went() {
    let mut space = space(&[]);
    let range = call(&mut space, Syscall::Mmap, [0, 5 * PAGE - 1, 3, 0x22], 7 * PAGE as i64);
    assert_eq!(range, 7..12);
    assert_eq!(asked_for(&space), (1, 5));
    assert_eq!(given_up(&space, Path::Overmap), (0, 0));
}

#[test]
fn an_mmap_that_detached_pages_went_over_something() {
    let mut space = space(&[anon(0..10, 1)]);
    let args = [2 * PAGE, 4 * PAGE, 3, 0x22 | MAP_FIXED];
    zapping(&mut space, Syscall::Mmap, args, 2 * PAGE as i64, 3);
    assert_eq!(given_up(&space, Path::Overmap), (1, 4));
    assert_eq!(asked_for(&space), (1, 4));
}

#[test]
fn only_a_failing_map_fixed_leaves_the_map_in_doubt() {
    for (flags, stale) in [(0x22, false), (0x22 | MAP_FIXED, true)] {
        let regions = [anon(0..10, 1)];
        let mut space = space(&regions);
        call(&mut space, Syscall::Mmap, [2 * PAGE, 4 * PAGE, 3, flags], ENOMEM);
        assert_eq!(space.stale, stale, "flags {flags:#x}");
        untouched(&space, &regions);
    }
}

fn with_heap(pages: u64) -> AddressSpace {
    let brk = (100 + pages) * PAGE;
    let layout = Layout { start_brk: 100 * PAGE, brk, ..Layout::default() };
    AddressSpace { layout, ..space(&[anon(100..100 + pages, 1)]) }
}

#[test]
fn brk_downwards_gives_the_end_of_the_heap_up() {
    let mut space = with_heap(10);
    let brk = 103 * PAGE;
    assert_eq!(call(&mut space, Syscall::Brk, [brk], brk as i64), 103..110);
    assert_eq!(mapped(&space), [(100, 103)]);
    assert_eq!(given_up(&space, Path::Brk), (1, 7));
    assert_eq!(asked_for(&space), (0, 0));
}

#[test]
fn brk_upwards_asks_for_whole_pages() {
    let mut space = with_heap(10);
    let brk = 110 * PAGE + 1;
    assert_eq!(call(&mut space, Syscall::Brk, [brk], brk as i64), 110..111);
    // The rest of that page is there already.
    let brk = 111 * PAGE;
    assert_eq!(call(&mut space, Syscall::Brk, [brk], brk as i64), 111..111);
    assert_eq!(asked_for(&space), (1, 1));
    assert_eq!(given_up(&space, Path::Brk), (0, 0));
}

#[test]
fn a_brk_that_fails_or_only_asks_is_not_counted() {
    let mut space = with_heap(10);
    for request in [0, 1 << 50] {
        call(&mut space, Syscall::Brk, [request], 110 * PAGE as i64);
    }
    assert_eq!(mapped(&space), [(100, 110)]);
    assert_eq!((asked_for(&space), given_up(&space, Path::Brk)), ((0, 0), (0, 0)));
}

#[test]
fn mremap_in_place_erases_what_it_cuts_off() {
    let mut space = space(&[anon(0..10, 1)]);
    assert_eq!(call(&mut space, Syscall::Mremap, [0, 10 * PAGE, 4 * PAGE, 0], 0), 0..4);
    assert_eq!(mapped(&space), [(0, 4)]);
    assert_eq!(given_up(&space, Path::Mremap), (1, 6));
}

#[test]
fn mremap_that_moves_erases_the_old_place() {
    // The kernel's store of the new place was seen before the call returned.
    let mut space = space(&[anon(0..10, 1), anon(50..65, 9)]);
    let moved = call(&mut space, Syscall::Mremap, [0, 10 * PAGE, 15 * PAGE, 1], 50 * PAGE as i64);
    assert_eq!(moved, 50..65);
    assert_eq!(mapped(&space), [(50, 65)]);
    assert_eq!(asked_for(&space), (1, 5));
    assert_eq!(given_up(&space, Path::Mremap), (0, 0));
}

#[test]
fn mremap_that_moves_and_shrinks_gives_up_the_difference() {
    let mut space = space(&[anon(0..10, 1), anon(50..54, 9)]);
    call(&mut space, Syscall::Mremap, [0, 10 * PAGE, 4 * PAGE, 3, 50 * PAGE], 50 * PAGE as i64);
    assert_eq!(mapped(&space), [(50, 54)]);
    assert_eq!(given_up(&space, Path::Mremap), (1, 6));
}

#[test]
fn mremap_dontunmap_leaves_the_old_place_mapped_and_adds_the_new_one() {
    let mut space = space(&[anon(0..10, 1), anon(50..60, 9)]);
    let args = [0, 10 * PAGE, 10 * PAGE, 1 | MREMAP_DONTUNMAP];
    call(&mut space, Syscall::Mremap, args, 50 * PAGE as i64);
    assert_eq!(mapped(&space), [(0, 10), (50, 60)]);
    assert_eq!(asked_for(&space), (1, 10));
}

#[test]
fn mremap_of_no_bytes_makes_a_second_mapping() {
    let mut space = space(&[shmem(0..10, 7, 0, 1), shmem(50..60, 7, 0, 9)]);
    call(&mut space, Syscall::Mremap, [0, 0, 10 * PAGE, 1], 50 * PAGE as i64);
    assert_eq!(mapped(&space), [(0, 10), (50, 60)]);
    assert_eq!(asked_for(&space), (1, 10));
}

#[test]
fn mremap_onto_something_gives_that_up() {
    let mut space = space(&[anon(0..4, 1), anon(50..54, 9)]);
    let args = [0, 4 * PAGE, 4 * PAGE, 3, 50 * PAGE];
    zapping(&mut space, Syscall::Mremap, args, 50 * PAGE as i64, 2);
    assert_eq!(given_up(&space, Path::Mremap), (1, 4));
    assert_eq!(asked_for(&space), (0, 0));
}

#[test]
fn a_failing_mremap_onto_an_address_leaves_the_map_in_doubt() {
    let regions = [anon(0..10, 1)];
    for (flags, stale) in [(0, false), (1, false), (3, true)] {
        let mut space = space(&regions);
        call(&mut space, Syscall::Mremap, [0, 10 * PAGE, 1 << 50, flags], ENOMEM);
        assert_eq!(space.stale, stale, "flags {flags}");
        untouched(&space, &regions);
    }
}

#[test]
fn mprotect_changes_the_bits_of_its_range_alone() {
    let mut space = space(&[anon(0..10, 1)]);
    call(&mut space, Syscall::Mprotect, [2 * PAGE, 3 * PAGE, flag::READ], 0);
    let found: Vec<_> =
        space.regions.iter().map(|vma| (vma.range.end / PAGE, vma.protection())).collect();
    let expected = [(2, "rw-p"), (5, "r--p"), (10, "rw-p")];
    assert_eq!(found, expected.map(|(end, letters)| (end, letters.to_owned())));
    assert_eq!(space.regions.mapped(), 10 * PAGE);
}

#[test]
fn mprotect_that_failed_protected_what_lies_before_the_hole_or_what_may_not_be() {
    let may_all = flag::PROTECTION << 4;
    let may = |region: Region, may| Region { flags: region.flags | may, ..region };
    let read_only = |space: &AddressSpace| -> Vec<(u64, u64)> {
        let vmas = space.regions.iter().filter(|vma| vma.flags & flag::PROTECTION == flag::READ);
        vmas.map(|vma| (vma.range.start / PAGE, vma.range.end / PAGE)).collect()
    };
    let two = [may(anon(0..10, 1), may_all), may(anon(10..20, 1), may_all ^ flag::READ << 4)];
    type Case<'a> = (&'a str, &'a [Region], i64, &'a [(u64, u64)], bool);
    let cases: [Case<'_>; 5] = [
        ("a hole", &two[..1], ENOMEM, &[(2, 10)], false),
        ("not allowed", &two, EACCES, &[(2, 10)], false),
        ("never began", &two[..1], EINVAL, &[], false),
        ("no reason to be seen", &[may(anon(0..40, 1), may_all)], ENOMEM, &[], true),
        ("of a later time", &[may(anon(0..10, 1), may_all), anon(90..91, 12)], ENOMEM, &[], true),
    ];
    for (name, regions, errno, protected, stale) in cases {
        let mut space = space(regions);
        call(&mut space, Syscall::Mprotect, [2 * PAGE, 20 * PAGE, flag::READ], errno);
        assert_eq!(space.stale, stale, "{name}");
        assert_eq!(read_only(&space), protected, "{name}");
    }
}

#[test]
fn mprotect_with_growsdown_begins_where_the_stack_does() {
    const GROWSDOWN: u64 = 0x0100_0000;
    let mut space = space(&[anon(10..20, 1)]);
    call(&mut space, Syscall::Mprotect, [15 * PAGE, PAGE, flag::READ | GROWSDOWN], 0);
    let flags: Vec<u64> = space.regions.iter().map(|vma| vma.flags & flag::PROTECTION).collect();
    assert_eq!(mapped(&space), [(10, 16), (16, 20)]);
    assert_eq!(flags, [flag::READ, flag::READ | flag::WRITE]);
    // Nothing there: what lies above has nothing to do with it.
    let nothing = call(&mut space, Syscall::Mprotect, [0, PAGE, flag::READ | GROWSDOWN], ENOMEM);
    assert_eq!(nothing, 0..1);
}

#[test]
fn a_huge_page_that_mremap_names_leaves_the_map_in_doubt() {
    let mut space = space(&[Region { flags: flag::READ | flag::HUGETLB, ..anon(0..512, 1) }]);
    call(&mut space, Syscall::Mremap, [0, 20 * PAGE, 10 * PAGE], 0);
    assert_eq!((mapped(&space).as_slice(), space.stale), ([(0, 512)].as_slice(), true));
}

#[test]
fn madvise_is_counted_by_the_path_of_its_advice_and_unmaps_nothing() {
    let paths = [
        (4, Some(Path::DontNeed)),
        (24, Some(Path::DontNeed)),
        (8, Some(Path::Free)),
        (9, Some(Path::Remove)),
        (21, Some(Path::Pressure)),
        (3, None),
        (14, None),
    ];
    for (advice, path) in paths {
        let mut space = space(&[anon(0..10, 1)]);
        call(&mut space, Syscall::Madvise, [2 * PAGE, 3 * PAGE, advice], 0);
        for of in Path::ALL {
            let expected = if Some(of) == path { (1, 3) } else { (0, 0) };
            assert_eq!(given_up(&space, of), expected, "advice {advice}, {of:?}");
        }
        assert_eq!(mapped(&space), [(0, 10)]);
    }
}

#[test]
fn a_failing_madvise_is_not_counted() {
    let regions = [anon(0..10, 1)];
    let mut space = space(&regions);
    call(&mut space, Syscall::Madvise, [0, 20 * PAGE, 4], ENOMEM);
    untouched(&space, &regions);
}

#[test]
fn process_madvise_counts_what_it_says_that_it_did() {
    let mut space = space(&[anon(0..10, 1)]);
    let args = [3, 0x1000, 1, 4];
    assert_eq!(call(&mut space, Syscall::ProcessMadvise, args, 2 * PAGE as i64), 0..2);
    assert_eq!(given_up(&space, Path::DontNeed), (1, 2));
    assert_eq!(call(&mut space, Syscall::ProcessMadvise, args, EINVAL), 0..0);
    assert_eq!(given_up(&space, Path::DontNeed), (1, 2));
}

#[test]
fn shmat_asks_for_the_region_that_the_kernel_stored() {
    let mut space = space(&[shmem(20..27, 5, 0, 9)]);
    assert_eq!(call(&mut space, Syscall::Shmat, [1, 0, 0], 20 * PAGE as i64), 20..27);
    assert_eq!(asked_for(&space), (1, 7));
    assert_eq!(call(&mut space, Syscall::Shmat, [1, 0, 0], EINVAL), 0..0);
    assert_eq!(asked_for(&space), (1, 7));
}

#[test]
fn shmdt_takes_every_piece_of_its_segment_and_no_neighbour() {
    // Segment 5 with a hole and a second attachment; segment 6 right behind it.
    let mut space = space(&[
        shmem(20..22, 5, 0, 1),
        shmem(25..30, 5, 5, 1),
        shmem(30..34, 6, 0, 1),
        shmem(40..50, 5, 0, 1),
    ]);
    assert_eq!(call(&mut space, Syscall::Shmdt, [20 * PAGE], 0), 20..30);
    assert_eq!(mapped(&space), [(30, 34), (40, 50)]);
    assert_eq!(given_up(&space, Path::Munmap), (1, 10));
}

#[test]
fn shmdt_counts_its_segment_though_the_kernels_erase_was_seen_first() {
    let mut space = space(&[shmem(20..27, 5, 0, 1), shmem(27..34, 6, 0, 1)]);
    space.erase(&shmem(20..27, 0, 0, 9));
    assert_eq!(call(&mut space, Syscall::Shmdt, [20 * PAGE], 0), 20..27);
    assert_eq!(mapped(&space), [(27, 34)]);
    assert_eq!(given_up(&space, Path::Munmap), (1, 7));
}

#[test]
fn shmdt_of_a_segment_in_pieces_leaves_the_map_in_doubt() {
    // Grown by mremap and protected in part, the second piece would stay.
    for (regions, stale) in [
        (&[shmem(20..30, 5, 0, 1)][..], false),
        (&[shmem(20..25, 5, 0, 1), shmem(25..45, 5, 5, 1)], true),
    ] {
        let mut space = space(regions);
        call(&mut space, Syscall::Shmdt, [20 * PAGE], 0);
        assert_eq!(space.stale, stale, "{regions:?}");
    }
}

#[test]
fn shmdt_finds_the_rest_of_a_segment_whose_first_piece_was_seen_to_go() {
    let mut space = space(&[shmem(20..22, 5, 0, 1), shmem(22..27, 5, 2, 1)]);
    space.erase(&shmem(20..22, 0, 0, 9));
    assert_eq!(call(&mut space, Syscall::Shmdt, [20 * PAGE], 0), 20..27);
    assert_eq!(mapped(&space), []);
}

#[test]
fn shmdt_does_not_count_what_another_write_section_erased() {
    let mut space = space(&[shmem(20..27, 5, 0, 1)]);
    space.erase(&shmem(20..27, 0, 0, 8));
    assert_eq!(call(&mut space, Syscall::Shmdt, [20 * PAGE], 0), 20..20);
}

#[test]
fn a_hole_is_punched_in_the_file_and_unmaps_nothing() {
    let mut space = space(&[shmem(0..10, 5, 0, 1)]);
    let args = [3, 3, 2 * PAGE, 4 * PAGE];
    assert_eq!(call(&mut space, Syscall::PunchHole, args, 0), 2..6);
    assert_eq!(given_up(&space, Path::Remove), (1, 4));
    call(&mut space, Syscall::PunchHole, args, EINVAL);
    assert_eq!(given_up(&space, Path::Remove), (1, 4));
    assert_eq!(mapped(&space), [(0, 10)]);
}

#[test]
fn arguments_at_the_end_of_the_number_range_do_not_overflow() {
    for raw in 1..=10 {
        let syscall = Syscall::from_raw(raw).expect("ten calls");
        for ret in [0, 1, -1, i64::MAX, i64::MIN] {
            let mut space = space(&[anon(0..10, 1)]);
            space.call(syscall, &Call { args: [u64::MAX; 6], ret, ..Call::default() });
        }
    }
}
