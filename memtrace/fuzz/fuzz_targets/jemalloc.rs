//! Any memory gives a walk of jemalloc's extents or a clean error, in bounded time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::{
    allocator::{image::Image, jemalloc, mappings::Mappings},
    source::procfs::parse_smaps,
};
use memtrace_fuzz::walk_adds_up;

const MAPS: &str = "10000-11000 rw-p 00000000 fe:01 7 /lib/libjemalloc.so.2\n\
                    11000-300000 rw-p 00000000 00:00 0\n\
                    40000000-40400000 rw-p 00000000 00:00 0\n";

/// Returns records of an offset into what is mapped and the word there; all else is zeros.
fn memory(bytes: &[u8]) -> Image {
    let mut memory = Image::default();
    for record in bytes.chunks_exact(12).take(4096) {
        let at = u64::from(u32::from_le_bytes(record[..4].try_into().expect("four bytes")));
        let word = u64::from_le_bytes(record[4..].try_into().expect("eight bytes"));
        let at = at % 0x6f0_000 & !7;
        let at = if at < 0x2f0_000 { 0x10000 + at } else { 0x4000_0000 + at - 0x2f0_000 };
        memory.write(at, &[word]);
    }
    memory
}

fuzz_target!(|bytes: &[u8]| {
    let memory = memory(bytes);
    let mappings = Mappings::new(parse_smaps(MAPS));
    walk_adds_up(|| jemalloc::walk(&memory, &mappings, || None));
});
