mod parts;

use memtrace_common::Exit;
use proptest::prelude::*;

use super::*;

fn header() -> TraceHeader {
    TraceHeader {
        arch: "x86_64".to_owned(),
        kernel: "6.18.0-test".to_owned(),
        page_size: PAGE,
        start_ns: 0x0102_0304_0506_0708,
        evidence: Evidence::Rss,
    }
}

fn end() -> TraceEnd {
    TraceEnd {
        time_ns: 9,
        stats: ProbeStats { emitted: 3, dropped: 2, untracked: 1, operations: 5 },
        missed: 4,
    }
}

fn exit(tgid: u32, kind: u16) -> Vec<u8> {
    let len = size_of::<Exit>() as u16;
    let header = Header { tgid, kind, len, ..Header::default() };
    Exit { header, ..Exit::default() }.as_bytes().to_vec()
}

const KNOWN: u16 = Kind::Exit as u16;

/// Returns a trace of version 1: the header and the records as they are.
fn plain(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = trace(&[])[..112].to_vec();
    bytes[8] = 1;
    let TraceEnd { time_ns, stats: ProbeStats { emitted, dropped, untracked, .. }, missed } = end();
    let header = Header { time_ns, kind: END, len: 64, ..Header::default() };
    let end = RawEnd { header, emitted, dropped, untracked, missed };
    bytes.extend(records.concat());
    bytes.extend(end.as_bytes());
    bytes
}

/// Returns a trace that was recorded to its end.
fn trace(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = TraceWriter::create(&mut bytes, &header()).expect("memory takes it");
    for record in records {
        writer.write(record).expect("memory takes it");
    }
    writer.finish(&end()).expect("memory takes it");
    bytes
}

fn open(bytes: &[u8]) -> TraceReader<&[u8]> {
    TraceReader::open(bytes).expect("a trace")
}

fn refused(bytes: &[u8]) -> String {
    TraceReader::open(bytes).expect_err("not a trace that can be read").to_string()
}

fn tgids(trace: &mut TraceReader<&[u8]>) -> Vec<u32> {
    let events = trace.filter_map(|entry| match entry.expect("no error") {
        Entry::Event(event) => Some(event.header().tgid),
        Entry::Fact(_) | Entry::State(_) => None,
    });
    events.collect()
}

#[test]
fn the_header_stands_as_documented() {
    let bytes = trace(&[]);
    let mut expected = b"\x89memtrc\n\x02\0\x70\0\x0d\x0c\x0b\x0a\0\x10\0\0\x02\0\0\0".to_vec();
    expected.extend(b"\x08\x07\x06\x05\x04\x03\x02\x01x86_64");
    expected.resize(48, 0);
    expected.extend(b"6.18.0-test");
    expected.resize(112, 0);
    assert_eq!(bytes[..112], expected);
    assert_eq!(VERSION, 2, "an older memtrace refuses this: is it meant?");
}

#[test]
fn the_last_record_stands_as_documented() {
    let whole = trace(&[]);
    let bytes = in_blocks(&whole);
    let mut expected = b"\x09".to_vec();
    expected.resize(28, 0);
    expected.extend(b"\xff\xff\x40\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
    expected.extend(b"\x01\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0");
    assert_eq!(bytes, expected);
}

/// Returns the records of a trace's blocks.
fn in_blocks(trace: &[u8]) -> Vec<u8> {
    let (mut source, mut bytes) = (BlockReader::new(&trace[112..], 112).expect("zstd"), Vec::new());
    source.read_to_end(&mut bytes).expect("whole blocks");
    bytes
}

#[test]
fn a_block_stands_as_documented() {
    let bytes = trace(&[]);
    let body = (bytes.len() - 112 - 40) as u32;
    let mut expected = b"\x89blk".to_vec();
    for number in [body, 64, 1] {
        expected.extend(number.to_ne_bytes());
    }
    for number in [9_u64, 9, 0] {
        expected.extend(number.to_ne_bytes());
    }
    assert_eq!(bytes[112..152], expected);
    assert_eq!(bytes[152..156], 0xfd2f_b528_u32.to_le_bytes(), "a frame of Zstandard");
}

#[test]
fn the_documented_sizes_of_the_kinds_are_theirs() {
    let document = include_str!("../../../../../docs/TRACE_FORMAT.md");
    for &(kind, len) in Event::SIZES {
        let row = format!("| {} | {len} | ", kind as u16);
        assert!(document.contains(&row), "{row}");
    }
}

#[test]
fn what_was_written_is_read() {
    let bytes = trace(&[exit(1, KNOWN), exit(2, 999), exit(3, KNOWN)]);
    let mut trace = open(&bytes);
    assert_eq!(trace.header(), &header());
    assert_eq!(trace.end(), None);
    assert_eq!(tgids(&mut trace), [1, 3]);
    assert_eq!(trace.end(), Some(end()));
    assert_eq!((trace.whole(), trace.skipped(), trace.left_over()), (4, 1, 0));
}

#[test]
fn a_name_that_is_too_long_is_cut() {
    let long = TraceHeader { arch: "a".repeat(99), kernel: "k".repeat(99), ..header() };
    let mut bytes = Vec::new();
    TraceWriter::create(&mut bytes, &long).expect("memory takes it");
    let read = open(&bytes);
    assert_eq!((read.header().arch.len(), read.header().kernel.len()), (16, 64));
}

#[test]
fn a_record_of_another_length_than_it_says_is_not_written() {
    let mut bytes = Vec::new();
    let mut writer = TraceWriter::create(&mut bytes, &header()).expect("memory takes it");
    let record = exit(1, KNOWN);
    for wrong in [&record[..record.len() - 1], &[&record[..], &[0]].concat(), &[]] {
        let error = writer.write(wrong).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    drop(writer);
    assert_eq!(bytes.len(), size_of::<RawHeader>());
}

#[test]
fn what_is_no_trace_is_told_from_one_that_cannot_be_read() {
    let good = trace(&[]);
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    assert_eq!(refused(b""), "it is empty");
    assert_eq!(refused(b"\x7fELF"), "it is not a trace");
    assert_eq!(refused(&with(7, b"\r")), "it is not a trace");
    assert_eq!(refused(&good[..1]), "it is cut in its header, after 1 bytes");
    assert_eq!(refused(&good[..15]), "it is cut in its header, after 15 bytes");
    assert_eq!(refused(&good[..111]), "it is cut in its header, after 111 bytes");
    let newer = "it has version 3 of the format, and this memtrace reads 2";
    assert_eq!(refused(&with(8, &[3, 0])), newer);
    // Nothing but its first bytes is known of a newer one.
    assert_eq!(refused(&with(8, &[3, 0, 1, 0])), newer);
    let foreign = "it was recorded on a machine of the other byte order";
    assert_eq!(refused(&with(8, &[0, 1, 0, 0x70, 10, 11, 12, 13])), foreign);
    let pages = "it was recorded with pages of 65536 bytes, and this memtrace counts in 4096";
    assert_eq!(refused(&with(16, &65536_u32.to_ne_bytes())), pages);
    for damaged in [with(8, &[0, 0]), with(10, &[111, 0]), with(12, &[0; 4])] {
        assert_eq!(refused(&damaged), "its header is damaged");
    }
}

#[test]
fn a_longer_header_of_the_same_version_is_read() {
    let mut bytes = trace(&[exit(1, KNOWN)]);
    bytes[10..12].copy_from_slice(&120_u16.to_ne_bytes());
    bytes.splice(112..112, [0xff; 8]);
    let mut trace = open(&bytes);
    assert_eq!(trace.header(), &header());
    assert_eq!(tgids(&mut trace), [1]);
    assert_eq!(trace.end(), Some(end()));
}

#[test]
fn nothing_is_read_behind_the_last_record() {
    let more = trace(&[exit(2, KNOWN)]);
    for bytes in [
        [trace(&[exit(1, KNOWN)]), more[112..].to_vec()].concat(),
        [plain(&[exit(1, KNOWN)]), exit(2, KNOWN)].concat(),
    ] {
        let mut trace = open(&bytes);
        assert_eq!(tgids(&mut trace), [1]);
        assert!(trace.next().is_none());
    }
}

#[test]
fn a_damaged_record_says_at_which_byte_of_the_file_it_stands() {
    let mut bytes = plain(&[exit(1, KNOWN), exit(2, KNOWN)]);
    let at = 112 + size_of::<Exit>();
    bytes[at + 30] = 31;
    let mut trace = open(&bytes);
    assert!(trace.next().is_some_and(|event| event.is_ok()));
    let error = trace.next().expect("an error").expect_err("damaged").to_string();
    assert_eq!(error, "the record at byte 168 is damaged: it says that it is 31 bytes long");
    assert!(trace.next().is_none());
    assert_eq!(trace.end(), None);
}

#[test]
fn a_large_trace_is_read_in_bounded_memory() {
    /// The header, and then one long record over and over.
    struct Endless<'a> {
        head: &'a [u8],
        record: Vec<u8>,
        at: usize,
        left: usize,
    }
    impl Read for Endless<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            assert!(into.len() <= BUFFER_BYTES, "{}", into.len());
            if !self.head.is_empty() {
                return self.head.read(into);
            }
            let there = &self.record[self.at..];
            let taken = there.len().min(into.len()).min(self.left);
            into[..taken].copy_from_slice(&there[..taken]);
            self.at = (self.at + taken) % self.record.len();
            self.left -= taken;
            Ok(taken)
        }
    }
    let mut record = exit(1, KNOWN);
    record[30..32].copy_from_slice(&u16::MAX.to_ne_bytes());
    record.resize(usize::from(u16::MAX), 0);
    let head = plain(&[]);
    let left = 1000 * record.len() + 100;
    let source = Endless { head: &head[..112], record, at: 0, left };
    let mut trace = TraceReader::open(source).expect("a trace");
    assert_eq!(trace.by_ref().filter(Result::is_ok).count(), 1000);
    assert_eq!(trace.left_over(), 100);
}

fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    // Far above the kinds that there are.
    let kind = prop_oneof![Just(KNOWN), 1_000..END];
    let record = (kind, 0..200_usize).prop_map(|(kind, more)| {
        let mut record = exit(1, kind);
        record.resize(record.len() + more, 0xaa);
        let len = record.len() as u16;
        record[30..32].copy_from_slice(&len.to_ne_bytes());
        record
    });
    prop::collection::vec(record, 0..20)
}

#[test]
fn what_waits_is_written_within_a_second() {
    let mut bytes = Vec::new();
    let mut writer = TraceWriter::create(&mut bytes, &header()).expect("memory takes it");
    let now = std::time::Instant::now();
    writer.write(&exit(1, KNOWN)).expect("memory takes it");
    writer.turn(now).expect("memory takes it");
    writer.turn(now + std::time::Duration::from_millis(900)).expect("memory takes it");
    writer.write(&exit(2, KNOWN)).expect("memory takes it");
    drop(writer);
    assert_eq!(tgids(&mut open(&bytes)), [1]);
}

proptest! {
    #[test]
    fn a_cut_at_any_byte_gives_every_whole_record_and_says_so(
        records in records(),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = plain(&records);
        let cut = 112 + cut.index(bytes.len() - 112);
        let mut ends: Vec<usize> = vec![112];
        for record in &records {
            ends.push(ends[ends.len() - 1] + record.len());
        }
        let whole = ends.iter().filter(|&&end| end <= cut).count() - 1;
        let known = |record: &&Vec<u8>| record[28..30] == KNOWN.to_ne_bytes();
        let mut trace = open(&bytes[..cut]);
        let events = tgids(&mut trace).len();
        prop_assert_eq!(events, records[..whole].iter().filter(known).count());
        prop_assert_eq!(trace.whole(), whole as u64);
        prop_assert_eq!(trace.skipped(), (whole - events) as u64);
        prop_assert_eq!(trace.left_over(), cut - ends[whole]);
        prop_assert_eq!(trace.end(), None);
    }

    #[test]
    fn whole_traces_end_as_they_were_ended(records in records()) {
        for bytes in [plain(&records), trace(&records)] {
            let mut trace = open(&bytes);
            prop_assert!(trace.by_ref().all(|event| event.is_ok()));
            prop_assert_eq!(trace.end(), Some(end()));
            prop_assert_eq!(trace.whole(), records.len() as u64 + 1);
            prop_assert_eq!(trace.left_over(), 0);
        }
    }

    #[test]
    fn a_cut_at_any_byte_gives_every_whole_block_and_says_so(
        counts in prop::collection::vec(1..6_usize, 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut bytes, mut tgid) = (trace(&[])[..112].to_vec(), 0);
        // Where each block ends, and how many records there are until there.
        let mut ends = vec![(112, 0)];
        for count in &counts {
            let mut blocks = blocks::BlockWriter::new(Vec::new(), 0).expect("zstd");
            for _ in 0..*count {
                tgid += 1;
                blocks.push(tgid.into(), &exit(tgid, KNOWN)).expect("memory takes it");
            }
            bytes.extend(blocks.finish().expect("memory takes it"));
            ends.push((bytes.len(), tgid));
        }
        let cut = 112 + cut.index(bytes.len() - 111);
        let (end, whole) = *ends.iter().rev().find(|(end, _)| *end <= cut).expect("the header");
        let mut trace = open(&bytes[..cut]);
        prop_assert_eq!(tgids(&mut trace), (1..=whole).collect::<Vec<_>>());
        prop_assert_eq!(trace.left_over(), cut - end);
        prop_assert_eq!(trace.end(), None);
    }

    #[test]
    fn a_changed_byte_of_a_block_is_found_out(
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let mut bytes = trace(&(1..200).map(|tgid| exit(tgid, KNOWN)).collect::<Vec<_>>());
        let at = 152 + at.index(bytes.len() - 152);
        bytes[at] ^= 1 << bit;
        let mut trace = open(&bytes);
        // Some bits mean nothing (RFC 8878, 3.1.1.1.1.4).
        match trace.next().expect("an entry") {
            Err(error) => prop_assert_eq!(error.to_string(), "the block at byte 112 is damaged"),
            Ok(_) => prop_assert_eq!(tgids(&mut trace), (2..200).collect::<Vec<_>>()),
        }
    }

    #[test]
    fn any_bytes_are_a_trace_or_a_clean_error(bytes: Vec<u8>, behind_the_header: bool) {
        let head = if behind_the_header { plain(&[])[..112].to_vec() } else { Vec::new() };
        let bytes = [head, bytes].concat();
        if let Ok(trace) = TraceReader::open(&bytes[..]) {
            prop_assert!(trace.count() <= bytes.len() / 32);
        }
    }
}
