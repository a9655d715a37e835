#[path = "kind_tests.rs"]
mod kind;

use memtrace_common::Header;

use super::*;

/// Shared mapping of a file on tmpfs whose first page is page `offset` of the file.
pub(super) fn shmem(pages: Range<u64>, inode: u64, offset: u64, seq: u64) -> Region {
    let backing = memtrace_common::Backing::Shmem as u16;
    Region { inode, dev: 1, backing, pgoff: offset, ..anon(pages, seq) }
}

pub(super) fn anon(pages: Range<u64>, seq: u64) -> Region {
    let Range { start, end } = bytes(&pages);
    let flags = flag::READ | flag::WRITE;
    Region { seq, start, end, pgoff: pages.start, flags, ..Region::default() }
}

fn bytes(pages: &Range<u64>) -> Range<u64> {
    pages.start * PAGE..pages.end * PAGE
}

pub(super) fn space(regions: &[Region]) -> AddressSpace {
    let mut space = AddressSpace::default();
    for region in regions {
        space.store(region);
    }
    space
}

/// First page of each region, and the first one after it.
pub(super) fn mapped(space: &AddressSpace) -> Vec<(u64, u64)> {
    space.regions.iter().map(|vma| (vma.range.start / PAGE, vma.range.end / PAGE)).collect()
}

pub(super) fn given_up(space: &AddressSpace, path: Path) -> (u64, u64) {
    let Requests { calls, bytes, .. } = space.given_up[path.index()];
    assert_eq!(bytes % PAGE, 0);
    (calls, bytes / PAGE)
}

#[test]
fn a_map_that_is_in_doubt_at_the_end_is_not_known() {
    let mut space = space(&[anon(0..10, 1)]);
    space.stale = true;
    space.end(Ledger::default(), true);
    assert!(!space.regions_known);
    assert_eq!(space.regions.count(), 0);
}

#[test]
fn an_empty_or_reversed_region_is_not_stored() {
    let region = Region { start: 2 * PAGE, end: PAGE, header: Header::default(), ..anon(0..1, 1) };
    let space = space(&[region, anon(5..5, 1)]);
    assert_eq!(mapped(&space), []);
    assert!(!space.regions_known);
}

#[test]
fn the_peak_is_the_largest_size_since_the_program_began() {
    let mut space = space(&[anon(0..100, 1)]);
    space.erase(&anon(0..90, 2));
    space.begin(Layout::default());
    assert_eq!(space.peak_bytes, 10 * PAGE);
    space.store(&anon(0..20, 3));
    space.erase(&anon(0..20, 4));
    assert_eq!(space.peak_bytes, 30 * PAGE);
}

#[test]
fn a_torn_down_space_keeps_its_size_without_its_regions() {
    for (keep, regions) in [(true, 1), (false, 0)] {
        let mut space = space(&[anon(0..10, 1)]);
        space.end(Ledger::default(), keep);
        assert_eq!(space.mapped(), 10 * PAGE);
        assert_eq!(space.regions.count(), regions);
        assert_eq!(given_up(&space, Path::Exit), (1, 10));
    }
}

#[test]
fn a_space_that_exec_replaced_was_given_up_by_exec() {
    let mut space = space(&[anon(0..10, 1)]);
    let mut ledger = Ledger::default();
    ledger.paths[Path::Exec.index()].zapped_pages[0] = 1;
    space.end(ledger, true);
    assert_eq!((given_up(&space, Path::Exec), given_up(&space, Path::Exit)), ((1, 10), (0, 0)));
}

/// Kinds of these regions in this layout, in address order.
fn kinds(layout: Layout, regions: &[Region]) -> Vec<RegionKind> {
    let space = AddressSpace { layout, ..space(regions) };
    space.regions.iter().map(|vma| space.kind(vma)).collect()
}

#[test]
fn heap_stack_and_vdso_are_told_by_the_layout() {
    let layout = Layout {
        start_brk: 100 * PAGE + 16,
        brk: 104 * PAGE + 16,
        start_stack: 503 * PAGE + 8,
        vdso: 600 * PAGE,
    };
    let file = memtrace_common::Backing::File as u16;
    let regions = [
        Region { backing: file, inode: 1, ..anon(90..100, 1) },
        anon(100..105, 1),
        anon(105..106, 1),
        shmem(300..310, 5, 0, 1),
        anon(500..504, 1),
        anon(600..602, 1),
    ];
    use RegionKind::{Anon, File, Heap, Shmem, Stack, Vdso};
    assert_eq!(kinds(layout, &regions), [File, Heap, Anon, Shmem, Stack, Vdso]);
}

#[test]
fn up_to_three_read_only_regions_in_front_of_the_vdso_are_vvar() {
    use RegionKind::{Anon, Vdso, Vvar};
    let layout = Layout { vdso: 20 * PAGE, ..Layout::default() };
    let read_only = |pages| Region { flags: flag::READ, ..anon(pages, 1) };
    let code = Region { flags: flag::READ | flag::EXEC, ..anon(20..22, 1) };
    let far = [6..10, 10..14, 14..18, 18..20].map(read_only);
    assert_eq!(kinds(layout, &[&far[..], &[code]].concat()), [Anon, Vvar, Vvar, Vvar, Vdso]);
    let writable = kinds(layout, &[read_only(14..18), anon(18..20, 1), code]);
    assert_eq!(writable, [Anon, Anon, Vdso]);
    let gap = kinds(layout, &[read_only(14..17), read_only(18..20), code]);
    assert_eq!(gap, [Anon, Vvar, Vdso]);
}

#[test]
fn without_a_layout_nothing_is_special() {
    let kinds = kinds(Layout::default(), &[anon(1..2, 1), anon(5..6, 1)]);
    assert_eq!(kinds, [RegionKind::Anon; 2]);
}
