//! Any text of `/proc` gives a value or nothing. Bytes that are not UTF-8 are replaced first, as
//! the callers do.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::source::procfs::{self, parse_smaps, parse_stat};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    if let Some(stat) = parse_stat(&text) {
        assert!(text.contains(&stat.comm));
        let _ = stat.is_dead();
    }
    let mappings = parse_smaps(&text);
    assert!(mappings.len() <= text.lines().count());
    for mapping in &mappings {
        assert!(mapping.start < mapping.end);
        assert!(text.contains(&mapping.name));
        let region = procfs::region(1, mapping);
        assert_eq!((region.start, region.end), (mapping.start, mapping.end));
    }
});
