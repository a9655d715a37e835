//! Whatever the books of Go's runtime hold, and the file of a program: a walk ends, and what it says
//! adds up.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use memtrace::{
    allocator::{go, image::Image, mappings::Mappings},
    source::procfs::parse_smaps,
};
use memtrace_fuzz::{scribble, walk_adds_up};

const MAPS: &str = "500000-520000 rw-p 00000000 fe:01 7 /bin/prog\n\
                    c000000000-c000800000 rw-p 00000000 00:00 0\n\
                    700000000000-700000010000 rw-p 00000000 00:00 0\n\
                    710000000000-712000000000 rw-p 00000000 00:00 0\n\
                    720000000000-720000100000 rw-p 00000000 00:00 0\n\
                    730000000000-730001000000 rw-p 00000000 00:00 0\n";
/// The tables of bitmaps, and the word that leads to the arenas.
const CHUNKS: u64 = 0x50_0100;
const ARENAS: u64 = CHUNKS + (64 << 10) + 0x200;
const RANGES: u64 = 0x7000_0000_0000;
const SPANS: u64 = RANGES + 0x1000;
const BITS: u64 = RANGES + 0x8000;
const TABLE: u64 = 0x7100_0000_0000;
const BITMAPS: u64 = 0x7200_0000_0000;
const ARENA: u64 = 0x7300_0000_0000;
const HEAP: u64 = 0xc0_0000_0000;
const LEN: u64 = 4 << 20;
const PAGE: u64 = 8192;

/// As in 1.22: spans of slots of 1 KiB, and a pool of stacks.
fn memory() -> Image {
    let mut memory = Image::default();
    memory.write(CHUNKS + 0x1018 * 8, &[BITMAPS]);
    memory.write(CHUNKS + (64 << 10) + 24, &[RANGES, 1, 2, LEN]);
    memory.write(RANGES, &[HEAP, HEAP + LEN]);
    memory.write(ARENAS, &[TABLE]);
    memory.write(TABLE + 0x20_3000 * 8, &[ARENA]);
    memory.write(BITMAPS, &[(1 << 45) - 1, 0, 0, 0, 0, 0, 0, 0]);
    memory.write(BITMAPS + 64, &[0, 0, !0 << 19, !0, !0, !0, !0, !0]);
    memory.touch(HEAP..HEAP + LEN / 4);
    for number in 0..41 {
        let (at, bits) = (SPANS + 160 * number, BITS + 8 * number);
        let is_pool = number == 40;
        memory.write(at + 24, &[HEAP + number * PAGE, if is_pool { 4 } else { 1 }]);
        memory.write(at + 48, &[if is_pool { 0 } else { 2 | 8 << 16 }, 0, bits]);
        memory.write(at + 96, &[if is_pool { 3 | 2 << 24 } else { 2 | 1 << 24 }]);
        memory.write(at + 104, &[if is_pool { PAGE } else { 1024 }]);
        memory.write(bits, &[3]);
        for page in number..number + if is_pool { 4 } else { 1 } {
            memory.write(ARENA + 8 * page, &[at]);
        }
    }
    memory.write(SPANS + 160 * 40 + 40, &[HEAP + 41 * PAGE]);
    memory
}

const AREAS: [Range<u64>; 8] = [
    SPANS..SPANS + 41 * 160,
    BITS..BITS + 41 * 8,
    ARENA..ARENA + 48 * 8,
    BITMAPS..BITMAPS + 128,
    HEAP + 40 * PAGE..HEAP + 44 * PAGE,
    RANGES..RANGES + 32,
    CHUNKS + (64 << 10) + 24..ARENAS + 8,
    ARENA..ARENA + 0x20_1000,
];

fuzz_target!(|bytes: &[u8]| {
    let mut memory = memory();
    scribble(&mut memory, bytes, &AREAS);
    let mappings = Mappings::new(parse_smaps(MAPS));
    let read_at = |offset: u64, into: &mut [u8]| {
        let from = usize::try_from(offset).ok().and_then(|from| bytes.get(from..));
        let from = from.unwrap_or_default();
        let len = from.len().min(into.len());
        into[..len].copy_from_slice(&from[..len]);
        Ok(len)
    };
    let version = go::version(read_at).expect("a slice can be read");
    let version = version.or_else(|| Some("1.22.5".to_owned()));
    walk_adds_up(|| go::walk(&memory, &mappings, go::About { exe: Some("/bin/prog"), version }));
});
