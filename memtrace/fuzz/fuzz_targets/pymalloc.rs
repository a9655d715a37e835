//! Whatever the memory of a Python or a JVM holds: a walk ends, and what it says adds up.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use memtrace::{
    allocator::{
        jvm,
        mappings::Mappings,
        memory::{PageState, Piece, ReadMemory},
        pymalloc,
    },
    source::procfs::parse_smaps,
};
use memtrace_fuzz::walk_adds_up;

const MAPS: &str = "400000-401000 rw-p 00000000 fe:01 7 /usr/bin/python3.11\n\
                    500000-510000 rw-p 00000000 00:00 0 [heap]\n\
                    600000-608000 rw-s 00000000 fe:01 9 /tmp/hsperfdata_root/1\n\
                    700000-900000 rw-p 00000000 00:00 0\n";

/// The fuzzer's bytes, the same for every region.
struct Bytes<'a>(&'a [u8]);

impl ReadMemory for Bytes<'_> {
    fn pages(&self, _: u64, states: &mut [PageState]) -> io::Result<()> {
        states.fill(PageState::Own);
        Ok(())
    }

    fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
        for Piece { address, into } in pieces {
            let at = (*address % 0x10_0000) as usize;
            let bytes = self.0.get(at..).unwrap_or_default();
            let len = bytes.len().min(into.len());
            into.fill(0);
            into[..len].copy_from_slice(&bytes[..len]);
        }
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (memory, mappings) = (Bytes(bytes), Mappings::new(parse_smaps(MAPS)));
    walk_adds_up(|| pymalloc::walk(&memory, &mappings, None));
    walk_adds_up(|| jvm::walk(&memory, &mappings));
});
