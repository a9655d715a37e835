use super::{
    layout::{Layout, TABLE},
    *,
};
use crate::{allocator::image::Image, model::region_map::PAGE, source::procfs::parse_smaps};

/// A process that uses jemalloc.
pub(super) struct Process {
    pub(super) memory: Image,
    pub(super) mappings: Mappings,
    pub(super) root: u64,
    /// Where its extents are, and what they describe.
    pub(super) extents: Vec<(u64, u64)>,
}

/// A slab of 512 byte regions (5 of 8 in use, on one page), 8 KiB in use, 3 pages dirty of which 2
/// are resident, a muzzy and a retained page.
pub(super) fn process(layout: Layout) -> Process {
    const MAPS: &str = "10000-11000 rw-p 00000000 fe:01 7 /lib/libjemalloc.so.2\n\
                        11000-300000 rw-p 00000000 00:00 0\n\
                        40000000-40008000 rw-p 00000000 00:00 0\n\
                        80000000-80400000 rw-p 00000000 00:00 0\n";
    let (root, block, heap) = (0x11238, 0x8000_0000, 0x4000_0000);
    let mut memory = Image::default();
    // One block, with the unused rest at its end.
    let leaf = block + 0x10c0;
    for (at, word) in [(0, 2 * TABLE), (24, block + 2 * TABLE - 64), (32, 64)] {
        memory.write(block + at, &[word]);
    }
    memory.write(root + 8, &[leaf]);
    let (state_at, class_at) = match layout {
        Layout::V5_1 => (16, 18),
        Layout::V5_3 => (17, 20),
    };
    let extents = [(0, 1, 0, 16), (1, 2, 0, 32), (3, 3, 1, 232), (6, 1, 2, 232), (7, 1, 3, 232)];
    for (number, (page, pages, state, class)) in (0..).zip(extents) {
        let extent = block + 0x300_000 + 128 * number;
        let is_slab = u64::from(number == 0);
        let bits = is_slab << 12 | state << state_at | class << class_at;
        memory.write(extent, &[bits | (3 * is_slab) << (class_at + 8)]);
        memory.write(extent + 8, &[heap + page * PAGE]);
        memory.write(extent + 16, &[(pages * PAGE) | 1]);
        // Free regions, and what an earlier slab left behind its own.
        memory.write(extent + 64, &[0b1000_1001]);
        memory.write(extent + 72, &[u64::MAX]);
        let state = if layout == Layout::V5_3 { state << 2 } else { 0 };
        for page in [page, page + pages - 1] {
            memory.write(leaf + 8 * page, &[class << 48 | extent | state | is_slab]);
        }
    }
    for page in [0, 1, 3, 5, 6] {
        memory.write(heap + page * PAGE, &[1]);
    }
    let starts = extents.iter().map(|extent| heap + extent.0 * PAGE);
    let extents = (block + 0x300_000..).step_by(128).zip(starts).collect();
    Process { memory, mappings: Mappings::new(parse_smaps(MAPS)), root, extents }
}

#[test]
fn all_that_it_holds_is_told() {
    for layout in Layout::ALL {
        let Process { memory, mappings, .. } = process(layout);
        let walked = walk(&memory, &mappings, || Some(true)).expect("it is jemalloc");
        let free: Vec<u64> = walked.free.values().copied().collect();
        assert_eq!(free, [3 * PAGE, PAGE, 0, 3 * 512]);
        assert_eq!(walked.system, 7 * PAGE + 2 * TABLE);
        assert_eq!(walked.in_use, 5 * 512 + 2 * PAGE + 2 * TABLE);
        assert_eq!(walked.free_resident, Some(2 * PAGE + 3 * 512));
        assert_eq!(walked.free_by_region, [(0x4000_0000, 2 * PAGE + 3 * 512)].into());
        let trim = walked.trim.expect("it has a purge");
        assert_eq!((trim.frees, trim.partly_used, trim.held), (2 * PAGE, 3 * 512, 0));
        assert_eq!(walked.settings, [("background_thread", 1)].into());
        assert_eq!((walked.arenas.len(), walked.unknown, walked.resyncs), (1, 0, 0));
    }
}

/// Every word of its books is damaged once, each in one of several ways.
#[test]
fn damaged_books_give_a_value_or_an_error() {
    let books: Vec<u64> = process(Layout::V5_3).memory.words().collect();
    let ways = [0, 1, 0x4000_0000, 0x8000_0000, 0x8000_10c0, 1 << 47, u64::MAX];
    for (number, layout) in Layout::ALL.into_iter().enumerate() {
        for (&address, word) in books.iter().zip(ways.into_iter().cycle().skip(number)) {
            let Process { mut memory, mappings, .. } = process(layout);
            memory.write(address, &[word]);
            if let Ok(walked) = walk(&memory, &mappings, || None) {
                assert!(walked.system <= 0x410_000 + 2 * TABLE, "{address:x}: {word:x}");
            }
        }
    }
}
