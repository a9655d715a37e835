//! Whatever the segments of mimalloc hold: a walk ends, and what it says adds up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::{
    allocator::{image::Image, mappings::Mappings, mimalloc},
    source::procfs::parse_smaps,
};
use memtrace_fuzz::{scribble, walk_adds_up};

const MAPS: &str = "100000-101000 rw-p 00000000 fe:01 7 /usr/lib/libmimalloc.so.2.1\n\
                    2000000-6000000 rw-p 00000000 00:00 0\n";
const START: u64 = 32 << 20;
const SLICE: u64 = 64 << 10;
const COOKIE: u64 = 0x1234_5678_9abc_def1;
const HEAP: u64 = 0x10_0800;
const BLOCK: u64 = 4096;

/// Offsets of 2.0.9, 2.1.7 and 2.4.1: of a segment, and of a page.
struct Layout {
    commit_mask: u64,
    cookie: u64,
    segment_slices: u64,
    slice_entries: u64,
    slices: u64,
    page: u64,
    used: u64,
    local_free: u64,
    thread_free: u64,
    delayed_free: u64,
}

const PACKED: Layout = Layout {
    commit_mask: 112,
    cookie: 216,
    segment_slices: 224,
    slice_entries: 248,
    slices: 264,
    page: 80,
    used: 24,
    local_free: 32,
    thread_free: 40,
    delayed_free: 2840,
};
const WIDE: Layout =
    Layout { page: 96, used: 32, local_free: 24, thread_free: 56, delayed_free: 8, ..PACKED };
const NEWEST: Layout = Layout {
    commit_mask: 120,
    cookie: 224,
    segment_slices: 248,
    slice_entries: 272,
    slices: 288,
    ..WIDE
};

fn slice(memory: &mut Image, layout: &Layout, index: u64, count: u64, page: [u64; 6]) {
    let at = START + layout.slices + index * layout.page;
    memory.write(at, &[count]);
    let [counts, free, local_free, thread_free, used, block] = page;
    if block == 0 {
        return;
    }
    memory.write(at + 8, &[counts, free]);
    memory.write(at + layout.local_free, &[local_free]);
    memory.write(at + layout.thread_free, &[thread_free | 2, HEAP]);
    match layout.page {
        80 => memory.write(at + layout.used, &[used | block << 32]),
        _ => memory.write(at + layout.used, &[used, block, START + index * SLICE]),
    }
}

/// A segment: its books, two pages of blocks, a page of one large block, and free slices.
fn memory(layout: &Layout) -> Image {
    let mut memory = Image::default();
    memory.write(0x10_0100, &[COOKIE]);
    memory.write(START + layout.cookie, &[START ^ COOKIE]);
    memory.write(START + layout.segment_slices, &[512, 1, 0]);
    memory.write(START + layout.slice_entries, &[512]);
    memory.write(START + layout.commit_mask, &[0b111_1111]);
    memory.touch(START..START + 8 * SLICE);
    let block = |page: u64, number: u64| START + page * SLICE + number * BLOCK;
    slice(&mut memory, layout, 0, 1, [0, 0, 0, 0, 0, SLICE]);
    let counts = 10 << 16 | 16 << 32;
    let lists = [counts, block(1, 0), block(1, 4), block(1, 6), 7, BLOCK];
    slice(&mut memory, layout, 1, 1, lists);
    memory.write(block(1, 0), &[block(1, 2)]);
    slice(&mut memory, layout, 2, 1, [16 << 16 | 16 << 32, 0, 0, 0, 16, BLOCK]);
    slice(&mut memory, layout, 3, 2, [1 << 16 | 1 << 32, 0, 0, 0, 1, 2 * SLICE]);
    slice(&mut memory, layout, 5, 507, [0; 6]);
    memory.write(HEAP + layout.delayed_free, &[block(2, 3)]);
    memory
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let layout = [PACKED, WIDE, NEWEST].into_iter().nth(usize::from(first % 3)).unwrap_or(WIDE);
    let mut memory = memory(&layout);
    let slices = START + layout.slices;
    let areas = [
        slices..slices + 8 * layout.page,
        START + SLICE..START + 3 * SLICE,
        START..START + 320,
        HEAP + layout.delayed_free..HEAP + layout.delayed_free + 8,
        slices..slices + 512 * layout.page,
    ];
    scribble(&mut memory, bytes, &areas);
    let mappings = Mappings::new(parse_smaps(MAPS));
    walk_adds_up(|| mimalloc::walk(&memory, &mappings));
});
