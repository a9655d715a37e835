//! Any bytes decode to an event or fail cleanly, and an event that was decoded is the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace_common::{Header, decode};

fuzz_target!(|bytes: &[u8]| {
    match decode(bytes) {
        Ok(event) => {
            assert!(bytes.len() >= size_of::<Header>());
            assert_eq!(decode(bytes), Ok(event));
            // What follows a record does not change it.
            let longer = [bytes, &[0xff; 8]].concat();
            assert_eq!(decode(&longer), Ok(event));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
