//! Any memory gives a walk of jemalloc's extents or a clean error, in bounded time.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use memtrace::{
    allocator::{
        jemalloc,
        mappings::Mappings,
        memory::{PageState, Piece, ReadMemory},
    },
    source::procfs::parse_smaps,
};

const MAPS: &str = "10000-11000 rw-p 00000000 fe:01 7 /lib/libjemalloc.so.2\n\
                    11000-300000 rw-p 00000000 00:00 0\n\
                    40000000-40400000 rw-p 00000000 00:00 0\n";

/// Records of an offset into what is mapped and the word there; all else is zeros.
struct Memory(Vec<(u64, u64)>);

impl Memory {
    fn new(bytes: &[u8]) -> Self {
        let records = bytes.chunks_exact(12).map(|record| {
            let at = u64::from(u32::from_le_bytes(record[..4].try_into().expect("four bytes")));
            let word = u64::from_le_bytes(record[4..].try_into().expect("eight bytes"));
            let at = at % 0x6f0_000 & !7;
            (if at < 0x2f0_000 { 0x10000 + at } else { 0x4000_0000 + at - 0x2f0_000 }, word)
        });
        Self(records.take(4096).collect())
    }
}

impl ReadMemory for Memory {
    fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()> {
        states.fill(PageState::Absent);
        for (at, _) in &self.0 {
            let index = (at & !4095).wrapping_sub(start) / 4096;
            if let Some(state) = states.get_mut(index as usize) {
                *state = PageState::Own;
            }
        }
        Ok(())
    }

    fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
        for Piece { address, into } in pieces {
            into.fill(0);
            for (at, word) in &self.0 {
                for (at, byte) in (*at..).zip(word.to_le_bytes()) {
                    if let Some(into) = into.get_mut(at.wrapping_sub(*address) as usize) {
                        *into = byte;
                    }
                }
            }
        }
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let memory = Memory::new(bytes);
    let mappings = Mappings::new(parse_smaps(MAPS));
    if let Ok(walked) = jemalloc::walk(&memory, &mappings, || None) {
        assert!(walked.free_bytes().saturating_add(walked.unknown) <= walked.system);
    }
});
