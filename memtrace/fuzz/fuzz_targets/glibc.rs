//! Whatever a heap of glibc holds: a walk ends, and what it says adds up.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use memtrace::{
    allocator::{glibc, image::Image, mappings::Mappings},
    source::procfs::parse_smaps,
};
use memtrace_fuzz::{scribble, walk_adds_up};

const MAPS: &str = "400000-401000 rw-p 00000000 fe:01 7 /usr/bin/program\n\
                    55550000-55590000 rw-p 00000000 00:00 0 [heap]\n\
                    70000000-70002000 rw-p 00000000 fe:01 8 /usr/lib/libc.so.6\n\
                    78000000-78040000 rw-p 00000000 00:00 0\n\
                    78040000-7c000000 ---p 00000000 00:00 0\n";
const HEAP: u64 = 0x5555_0000;
const HEAP_END: u64 = HEAP + 0x4_0000;
/// `main_arena` of 2.36, and one of a thread, in a heap of its own.
const ARENA: u64 = 0x7000_0350;
const BINS: u64 = ARENA + 112;
const THREADS_HEAP: u64 = 0x7800_0000;
const THREADS_ARENA: u64 = THREADS_HEAP + 48;
const KEY: u64 = 0x1122_3344_5566_7788;

/// Two arenas with chunks of every class.
fn memory() -> Image {
    let mut memory = Image::default();
    memory.touch(0x40_0000..0x40_1000);
    memory.touch(0x7000_0000..0x7000_2000);
    memory.touch(HEAP..HEAP_END);
    memory.touch(THREADS_HEAP..THREADS_HEAP + 0x4_0000);
    arena(&mut memory, ARENA, THREADS_ARENA);
    arena(&mut memory, THREADS_ARENA, ARENA);
    memory.write(THREADS_HEAP, &[THREADS_ARENA, 0, 0x4_0000, 0x4_0000]);
    let top = chunks(&mut memory, ARENA, HEAP, HEAP_END);
    memory.write(BINS - 16, &[top, 0]);
    let first = (THREADS_ARENA + 112 + 2088).next_multiple_of(16);
    let top = chunks(&mut memory, THREADS_ARENA, first, THREADS_HEAP + 0x4_0000);
    memory.write(THREADS_ARENA + 96, &[top, 0]);
    memory
}

fn arena(memory: &mut Image, arena: u64, next: u64) {
    let bins = arena + 112;
    for bin in 0..127 {
        let own = bins + 16 * bin - 16;
        memory.write(own + 16, &[own, own]);
    }
    memory.write(bins + 2048, &[next, 0, 1, 0x4_0000, 0x4_0000]);
}

/// Writes chunks, and returns the top, which takes the rest.
fn chunks(memory: &mut Image, arena: u64, start: u64, end: u64) -> u64 {
    let mut chunk = start;
    let mut before = 0;
    // The cache, and then: in use, free, cached, in a fastbin.
    for (number, size) in [0x290, 0x100, 0x1000, 0x20, 0x40, 0x30, 0x500].into_iter().enumerate() {
        memory.write(chunk, &[before, size | u64::from(before == 0)]);
        before = 0;
        match number {
            2 => before = size,
            4 => {
                memory.write(chunk + 16, &[(chunk + 16) >> 12, KEY]);
                memory.write(start + 16 + 128 + 16, &[chunk + 16]);
                memory.write(start + 16, &[1 << 32]);
            }
            5 => {
                memory.write(chunk + 16, &[(chunk + 16) >> 12]);
                memory.write(arena + 16 + 8, &[chunk]);
            }
            _ => {}
        }
        chunk += size;
    }
    memory.write(chunk, &[before, (end - chunk) | 1]);
    chunk
}

const AREAS: [Range<u64>; 6] = [
    HEAP..HEAP + 0x2000,
    HEAP..HEAP_END,
    ARENA..ARENA + 112 + 2088,
    BINS + 2032..BINS + 2088,
    THREADS_HEAP..THREADS_HEAP + 0x3000,
    0x7000_0000..0x7000_2000,
];

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let mut memory = memory();
    scribble(&mut memory, bytes, &AREAS);
    let mappings = Mappings::new(parse_smaps(MAPS));
    let minor = (first & 31 > 0).then_some(26 + u32::from(first & 31) % 18);
    let is_stopped = first & 32 != 0;
    let about = glibc::About { exe: Some("/usr/bin/program"), minor, is_stopped };
    walk_adds_up(|| glibc::walk(&memory, &mappings, &about));
});
