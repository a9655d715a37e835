//! Whatever the books of musl's mallocng hold: a walk ends, and what it says adds up.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use memtrace::{
    allocator::{image::Image, mappings::Mappings, musl},
    source::procfs::parse_smaps,
};
use memtrace_fuzz::{scribble, walk_adds_up};

const MAPS: &str = "10000-11000 rw-p 00000000 fe:01 7 /lib/ld-musl-x86_64.so.1\n\
                    11000-13000 rw-p 00000000 00:00 0 [heap]\n\
                    13000-33000 rw-p 00000000 00:00 0\n";
const SECRET: u64 = 0x1234_5678_9abc_def1;
const AREA: u64 = 0x1_1000;
const HEAP: u64 = 0x1_3000;

fn meta(start: u64, masks: u64, last: u64, class: u64, pages: u64) -> [u64; 5] {
    [0, 0, start, masks, last | 1 << 5 | class << 6 | pages << 12]
}

/// A context with two areas, and groups in pages, in slots of others, and alone.
fn memory() -> Image {
    let mut memory = Image::default();
    memory.touch(0x1_0000..0x3_3000);
    memory.write(0x1_0100, &[SECRET, 1, 0, 0, 0, 0, 0, AREA, AREA + 0x1000]);
    memory.write(AREA, &[SECRET, AREA + 0x1000, 101]);
    memory.write(AREA + 0x1000, &[SECRET, 0, 3]);
    let groups = [
        meta(HEAP, 2 << 32, 1, 35, 8),
        meta(HEAP + 0x10, 1 | 4 << 32, 3, 15, 0),
        meta(HEAP + 0x8000, 1, 0, 63, 4),
        meta(HEAP + 0xc000, 2 | 8 << 32, 9, 2, 0),
    ];
    for (at, group) in (AREA + 24..).step_by(40).zip(groups) {
        memory.write(at, &group);
    }
    memory.write(AREA + 0x1018, &meta(HEAP + 0x1_0000, 5 | 8 << 32, 4, 35, 20));
    memory
}

const AREAS: [Range<u64>; 5] = [
    AREA..AREA + 0x100,
    AREA..AREA + 0x1000,
    AREA + 0x1000..AREA + 0x2000,
    0x1_0100..0x1_0148,
    HEAP..HEAP + 0x2_0000,
];

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let mut memory = memory();
    scribble(&mut memory, bytes, &AREAS);
    let mappings = Mappings::new(parse_smaps(MAPS));
    let patch = (first < 6).then_some(first.into());
    walk_adds_up(|| musl::walk(&memory, &mappings, &musl::About { exe: None, patch }));
});
