//! Any bytes as a core file give a walk of its heaps or a clean error: as they are, or as damage to a
//! core that can be walked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::source::core::{Core, made_up::MadeUp};

/// More is mapped than a walk takes in the time that a run has.
const TOO_MUCH: u64 = 256 << 20;

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"\x7fELF") {
        walk(bytes);
        return;
    }
    let mut core = MadeUp::program().bytes();
    for record in bytes.chunks_exact(4) {
        let at =
            usize::from(record[0]) | usize::from(record[1]) << 8 | usize::from(record[2]) << 16;
        let at = at % core.len();
        core[at] = record[3];
    }
    walk(&core);
});

fn walk(bytes: &[u8]) {
    let Ok(core) = Core::read(bytes) else { return };
    let mapped = core.mappings.iter().map(|m| m.end - m.start);
    if mapped.fold(0, u64::saturating_add) > TOO_MUCH {
        return;
    }
    for walked in core.walk(|_| Some(bytes.to_vec())).walked {
        assert_eq!((walked.free_resident, walked.trim), (None, None));
        assert!(walked.arenas.iter().all(|arena| arena.trimmable.is_none()));
    }
}
