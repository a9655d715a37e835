//! The packets as they are written; `tests/formats` reads them with Perfetto's own definitions.

use std::io::Read as _;

use flate2::read::ZlibDecoder;
use prost::Message;

use super::{
    proto::{TracePacket, TrackEvent, Type},
    *,
};
use crate::model::report::{Evidence, Host, Memory, Reclaimed, SCHEMA, Window};

const HOSTILE: &str = "a\u{1b}[2J\n\u{202e}<b>\0";

#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<TracePacket>,
}

fn change(time_ns: u64, what: What) -> Change {
    Change { time_ns, tgid: 42, tid: 43, what }
}

fn call(call: &'static str, detail: &str, path: Option<&'static str>, freed: Option<u64>) -> What {
    What::Call {
        call,
        start: 0x1000,
        requested: 8192,
        detail: detail.into(),
        ret: 0,
        path,
        zapped: Some(8192),
        freed,
        duration_ns: path.map(|_| 50),
    }
}

fn memory(resident: u64) -> What {
    What::Memory {
        resident: Some(resident),
        live: None,
        free_resident: None,
        lazy_free: None,
        trimmable: None,
        regions: Vec::new(),
    }
}

fn report(tgids: &[u32], resident: Option<u64>, freed: u64) -> Report {
    let by_path = PathReport { zapped: Some(freed), freed: Some(freed), ..PathReport::default() };
    let process = |&tgid: &u32| ProcessReport {
        tgid,
        memory: Memory { resident, ..Memory::default() },
        reclaimed: Reclaimed {
            by_path: [("munmap", by_path.clone())].into(),
            ..Reclaimed::default()
        },
        ..ProcessReport::default()
    };
    Report {
        schema: SCHEMA,
        host: Host::default(),
        window: Window { end_ns: 2000, dropped: 7, ..Window::default() },
        processes: tgids.iter().map(process).collect(),
        stacks: None,
    }
}

/// Returns the packets of a trace of some changes.
fn packets(changes: &[Change], report: &Report) -> Vec<TracePacket> {
    let mut bytes = Vec::new();
    let mut timeline = Timeline::new(&mut bytes);
    let model = Model::new(Evidence::Frames);
    changes.iter().for_each(|change| timeline.apply(&model, change));
    timeline.finish(report).expect("it can be written");
    let blocks = Trace::decode(&*bytes).expect("it is a trace").packet;
    let packets = blocks.iter().flat_map(|block| {
        let mut bytes = Vec::new();
        let compressed = block.compressed_packets.as_deref().expect("all are compressed");
        ZlibDecoder::new(compressed).read_to_end(&mut bytes).expect("it is zlib");
        Trace::decode(&*bytes).expect("it is a trace").packet
    });
    packets.collect()
}

/// Returns a line for each packet.
fn lines(packets: &[TracePacket]) -> String {
    let line = |packet: &TracePacket| match (&packet.track_descriptor, &packet.track_event) {
        (Some(track), None) => {
            let what = match (&track.process, &track.thread, &track.name) {
                (Some(process), None, None) => format!("process {:?}", process.pid),
                (None, Some(thread), None) => format!("thread {:?}", thread.tid),
                (None, None, Some(name)) => name.clone(),
                _ => panic!("{track:?}"),
            };
            format!("track {:x}: {what}\n", track.uuid.expect("it has a number"))
        }
        (None, Some(event)) => {
            let TrackEvent { track_uuid, name, counter_value, debug_annotations, .. } = event;
            let (time, track) = (packet.timestamp.expect("a time"), track_uuid.expect("a track"));
            let mut line = format!("{time} {track:x} {:?}", event.r#type());
            line += &name.as_ref().map_or(String::new(), |name| format!(" {name}"));
            line += &counter_value.map_or(String::new(), |value| format!(" {value}"));
            for figure in debug_annotations {
                line += &format!(" {}={:?}", figure.name(), figure.value.as_ref().expect("one"));
            }
            line + "\n"
        }
        _ => panic!("{packet:?}"),
    };
    packets.iter().map(line).collect()
}

#[test]
fn a_life_is_drawn() {
    let changes = [
        change(100, What::Exec { path: HOSTILE.into() }),
        change(150, memory(9000)),
        change(200, call("munmap", "", Some("munmap"), Some(4096))),
        change(300, call("madvise", "DONTNEED", None, Some(0))),
        change(350, call("mmap", "PROT_READ", None, Some(0))),
        change(400, What::Exit { code: 3 }),
        change(450, What::MmEnd { zapped: Some(4096), freed: Some(0) }),
    ];
    insta::assert_snapshot!(lines(&packets(&changes, &report(&[42], Some(8000), 8192))), @r#"
    track 1: memtrace
    track 100000000: process Some(42)
    100 100000000 Instant exec path=Text("a\\u{1b}[2J\\n\\u{202e}<b>\\0")
    track 180000000: memory.resident
    150 180000000 Counter 9000
    track 180000001: reclaimed.by_path.munmap.freed
    200 180000001 Counter 4096
    track 10000002b: thread Some(43)
    150 10000002b SliceBegin munmap start=Pointer(4096) requested=Uint(8192) zapped=Uint(8192) freed=Uint(4096)
    200 10000002b SliceEnd
    300 10000002b SliceBegin madvise DONTNEED start=Pointer(4096) requested=Uint(8192) zapped=Uint(8192) freed=Uint(0)
    300 10000002b SliceEnd
    400 100000000 Instant exit code=Int(3)
    400 10000002b SliceBegin exit zapped=Uint(4096) freed=Uint(0)
    450 10000002b SliceEnd
    track 180000002: reclaimed.by_path.exit.freed
    450 180000002 Counter 0
    400 180000000 Counter 8000
    450 180000000 Counter 0
    2000 180000001 Counter 8192
    2000 1 Instant window evidence=Text("frames") emitted=Uint(0) dropped=Uint(7) untracked=Uint(0) missed=Uint(0) complete=Bool(false)
    "#);
}

#[test]
fn the_next_process_with_a_number_is_another_one() {
    let changes = [
        change(1, memory(1)),
        change(2, What::Exit { code: 0 }),
        change(3, What::MmEnd { zapped: Some(0), freed: Some(0) }),
        change(4, memory(2)),
    ];
    let report = report(&[42, 42, 44], Some(5), 1);
    let packets = packets(&changes, &report);
    let tracks = packets.iter().filter_map(|packet| packet.track_descriptor.as_ref());
    let processes: Vec<_> = tracks
        .filter_map(|track| Some((track.uuid? >> 32, track.process.as_ref()?.pid?)))
        .collect();
    assert_eq!(processes, [(1, 42), (2, 42), (3, 44)]);
    let last = |process: u64| {
        let events = packets.iter().filter_map(|packet| {
            let event = packet.track_event.as_ref()?;
            Some((event.track_uuid? >> 32, packet.timestamp?, event.counter_value?))
        });
        let of_it = events.filter(|&(place, ..)| place == process);
        of_it.map(|(_, time, value)| (time, value)).collect::<Vec<_>>()
    };
    // What it held is from its exit to its teardown; what left it is told at the end of the window.
    assert_eq!(last(1), [(1, 1), (3, 0), (2, 5), (3, 0), (2000, 1)]);
    assert_eq!(last(2), [(4, 2), (2000, 5), (2000, 1)]);
    assert_eq!(last(3), [(2000, 5), (2000, 1)]);
}

#[test]
fn what_is_not_counted_is_not_drawn() {
    let changes = [change(1, call("munmap", "", Some("munmap"), None))];
    let mut none = report(&[], None, 0);
    let drawn = lines(&packets(&changes, &none));
    assert!(drawn.contains("reclaimed.by_path.munmap.zapped"), "{drawn}");
    assert!(!drawn.contains("freed"), "{drawn}");
    none.window.complete = true;
    assert!(lines(&packets(&[], &none)).contains("complete=Bool(true)"));
}

#[test]
fn a_long_trace_is_in_several_blocks_and_begins_once() {
    let many: Vec<Change> =
        (0..5000).map(|at| change(at * 100, call("munmap", "", Some("munmap"), Some(1)))).collect();
    let packets = packets(&many, &report(&[42], None, 5000));
    let slices = |kind: Type| {
        let events = packets.iter().filter_map(|packet| packet.track_event.as_ref());
        events.filter(|event| event.r#type() == kind).count()
    };
    assert_eq!((slices(Type::SliceBegin), slices(Type::SliceEnd)), (5000, 5000));
    let first = packets.iter().filter(|packet| packet.sequence_flags == Some(TracePacket::FIRST));
    assert_eq!(first.count(), 1);
    assert_eq!(packets[0].sequence_flags, Some(TracePacket::FIRST));
}

#[test]
fn a_full_disk_is_told_in_the_end() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut timeline = Timeline::new(Full);
    timeline.apply(&Model::new(Evidence::Frames), &change(1, memory(1)));
    let error = timeline.finish(&report(&[], None, 0)).expect_err("the disk is full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}
