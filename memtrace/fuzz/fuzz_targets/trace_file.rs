//! Any bytes are a trace or a clean error, read in bounded memory: never more records than the bytes
//! can hold, and every byte accounted for. With a good header in front it is all about the records.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace::{
    model::report::Evidence,
    source::{
        replay::records,
        trace_file::{Entry, TraceEnd, TraceHeader, TraceReader, TraceWriter},
    },
};

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let header = TraceHeader {
        arch: "x86_64".to_owned(),
        kernel: "6.18.0".to_owned(),
        page_size: 4096,
        start_ns: 1,
        evidence: Evidence::Frames,
    };
    let mut file = Vec::new();
    TraceWriter::create(&mut file, &header).expect("memory takes it");
    read(&[&file, bytes].concat());
    let mut blocks = TraceWriter::create(Vec::new(), &header).expect("memory takes it");
    for record in bytes.chunks(100) {
        let _ = blocks.write(record);
    }
    let blocks = blocks.finish(&TraceEnd::default()).expect("memory takes it");
    assert!(blocks > file.len() as u64);
    // Version 1 has the records as they are.
    file[8] = 1;
    file.extend_from_slice(bytes);
    let in_file = read(&file);
    // The file ends at its own last record; without one it holds what the bare records hold.
    let bare = records(bytes).map_while(Result::ok).count();
    let (events, ended) = in_file.expect("the header is good");
    assert!(events == bare || ended && events < bare);
});

/// Returns how many events there were and whether the trace ended as it should.
fn read(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut trace = match TraceReader::open(bytes) {
        Ok(trace) => trace,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    let (mut events, mut failed) = (0, false);
    for event in trace.by_ref() {
        assert!(!failed, "nothing is read behind an error");
        match event {
            Ok(Entry::Event(_)) => events += 1,
            Ok(Entry::Fact(_) | Entry::State(_)) => {}
            Err(error) => failed = !error.to_string().is_empty(),
        }
    }
    assert!(trace.next().is_none());
    let ended = trace.end().is_some();
    // A fact may take several records.
    assert!(trace.whole() >= events as u64 + trace.skipped() + u64::from(ended));
    assert!(trace.left_over() <= bytes.len());
    Some((events, ended))
}
