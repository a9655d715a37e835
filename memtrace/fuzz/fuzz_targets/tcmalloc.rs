//! Whatever the books of gperftools' tcmalloc hold: a walk ends, and what it says adds up.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use memtrace::{
    allocator::{image::Image, mappings::Mappings, tcmalloc},
    source::procfs::parse_smaps,
};
use memtrace_fuzz::{scribble, walk_adds_up};

const MAPS: &str = "100000-178000 rw-p 00000000 fe:01 7 /usr/lib/libtcmalloc.so.4\n\
                    200000-300000 rw-p 00000000 00:00 0\n\
                    10000000-10200000 rw-p 00000000 00:00 0\n";
/// A page of tcmalloc, here of the largest size that it is built with.
const SHIFT: u32 = 18;
const ROOT: u64 = 0x10_0000;
const LISTS: u64 = ROOT + (8 << 15) + 104;
const STATISTICS: u64 = LISTS + 8 * 48;
const CLASSES: u64 = 0x15_0000;
const CENTRAL: u64 = 0x16_0000;
const LEAF: u64 = 0x20_0000;
const SPANS: u64 = 0x25_0000;
const CACHE: u64 = 0x26_0000;
const HEAP: u64 = 0x1000_0000;
const FREE: u64 = 1 << SHIFT;

fn heads(memory: &mut Image, at: u64, count: u64) {
    for head in (at..).step_by(48).take(count as usize) {
        memory.write(head, &[0, 0, head, head, 0, 0]);
    }
}

/// A free span, one of eight objects, one that was given back, and one in use.
fn memory() -> Image {
    let mut memory = Image::default();
    memory.write(ROOT, &[LEAF]);
    heads(&mut memory, LISTS, 8);
    memory.write(STATISTICS, &[5 * FREE, FREE, FREE, 4 * FREE]);
    memory.write(CLASSES, &[32 << 32, 2 | 2 << 32]);
    memory.write(CLASSES + 512, &[8 << 32, 32760 | 262_144 << 32]);
    memory.write(CLASSES + 1024, &[0, 1, 1, 1]);
    for class in 0..4 {
        let list = CENTRAL + 1216 * class;
        memory.write(list, &[0, class]);
        heads(&mut memory, list + 16, 2);
    }
    let object = |number: u64| HEAP + FREE + number * 32760;
    memory.write(CENTRAL + 2 * 1216 + 128, &[object(6), object(7)]);
    memory.write(CENTRAL + 2 * 1216 + 1152, &[1 | 16 << 32]);
    memory.write(object(6), &[object(7)]);
    memory.write(object(7), &[0]);
    memory.write(0x17_0000, &[CACHE]);
    for class in 0..4 {
        memory.write(CACHE + 32 * class, &[0, 0, 0, [0, 8, 32760, 262_144][class as usize]]);
    }
    memory.touch(CACHE + 4096..CACHE + 8192);
    memory.write(CACHE + 64, &[object(5), 1]);
    memory.write(object(5), &[0]);
    let spans =
        [(0, 1, 0, 1 << 24), (1, 1, object(1), 6 | 2 << 16), (2, 1, 0, 2 << 24), (3, 2, 0, 0)];
    for (span, (page, length, objects, bits)) in (SPANS..).step_by(48).zip(spans) {
        let page = (HEAP >> SHIFT) + page;
        memory.write(span, &[page, length, 0, 0, objects, bits]);
        memory.write(LEAF + 8 * page, &[span]);
    }
    memory.write(object(1), &[object(3)]);
    memory.write(object(3), &[0]);
    memory.touch(HEAP..HEAP + 2 * FREE);
    memory
}

const AREAS: [Range<u64>; 8] = [
    SPANS..SPANS + 4 * 48,
    LEAF + 8 * (HEAP >> SHIFT)..LEAF + 8 * ((HEAP >> SHIFT) + 8),
    CACHE..CACHE + 128,
    CENTRAL..CENTRAL + 4 * 1216,
    HEAP + FREE..HEAP + 2 * FREE,
    STATISTICS..STATISTICS + 32,
    CLASSES..CLASSES + 1056,
    LISTS..STATISTICS,
];

fuzz_target!(|bytes: &[u8]| {
    let mut memory = memory();
    scribble(&mut memory, bytes, &AREAS);
    let mappings = Mappings::new(parse_smaps(MAPS));
    walk_adds_up(|| tcmalloc::walk(&memory, &mappings, &tcmalloc::About::default()));
});
