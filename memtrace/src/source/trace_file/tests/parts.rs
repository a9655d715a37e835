//! Facts between the records, and beginning to read in the middle.

use memtrace_common::{Ledger, Region};

use super::*;
use crate::model::{Model, SpaceId, space::Afterlife};

fn facts() -> Vec<Fact> {
    let region = |start: u64| Region { start, end: start + PAGE, ..Region::default() };
    let text = "a name \u{1b}[31m <b>".repeat(10_000);
    vec![
        Fact::Expected { tgid: 7 },
        Fact::Regions {
            mm: 9,
            regions: (1..3000).map(|page| region(page * PAGE)).collect(),
            sections: 5,
        },
        Fact::Regions { mm: 9, regions: Vec::new(), sections: 6 },
        Fact::Books {
            space: SpaceId(3),
            ledger: Box::new(Ledger { sections: 8, swapped_in_pages: 4, ..Ledger::default() }),
            afterlife: Box::new(Afterlife { delays: Some(Default::default()), remanence: None }),
        },
        Fact::Found { tgid: 7, comm: text, exe: None, faults: (1, 2) },
        Fact::Lost,
    ]
}

#[test]
fn facts_of_any_length_are_read_as_they_were_written() {
    let mut bytes = Vec::new();
    let mut writer = TraceWriter::create(&mut bytes, &header()).expect("memory takes it");
    for fact in facts() {
        writer.fact(&fact).expect("memory takes it");
    }
    writer.finish(&end()).expect("memory takes it");
    let read: Vec<Entry> = open(&bytes).map(|entry| entry.expect("no error")).collect();
    let read: Vec<Fact> = read
        .into_iter()
        .filter_map(|entry| if let Entry::Fact(fact) = entry { Some(fact) } else { None })
        .collect();
    assert_eq!(read, facts());
}

/// Returns a trace of a process that maps a page at a time, and writes what is known at some of them.
fn growing(pages: u64, states_at: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = TraceWriter::create(&mut bytes, &header()).expect("memory takes it");
    let mut model = Model::new(Evidence::Rss);
    let host = crate::model::report::Host { kernel: "k".to_owned(), ..Default::default() };
    writer.fact(&Fact::Machine { host, probes: Vec::new() }).expect("memory takes it");
    for page in 1..=pages {
        let header = Header { mm: 1, tgid: 1, time_ns: page, ..Header::default() };
        let (start, end) = (page * PAGE, page * PAGE + PAGE);
        let event = Event::MapRegion(Region { header, start, end, seq: page, ..Region::default() });
        writer.event(&event).expect("memory takes it");
        model.apply(&event);
        if states_at.contains(&page) {
            writer.state(&model).expect("memory takes it");
        }
    }
    writer.finish(&end()).expect("memory takes it");
    bytes
}

#[test]
fn who_begins_later_reads_only_what_follows_a_state_and_knows_the_same() {
    const PAGES: u64 = 20_000;
    let bytes = growing(PAGES, &[5_000, 15_000]);
    for (from, skipped) in [(1, 0), (4_999, 0), (5_000, 5_000), (14_999, 5_000), (u64::MAX, 15_000)]
    {
        let mut trace = TraceReader::open(io::Cursor::new(&bytes[..])).expect("a trace");
        trace.seek(from).expect("memory can be read");
        let (mut model, mut events, mut machines) = (Model::new(Evidence::Rss), 0, 0);
        for entry in trace.by_ref() {
            match entry.expect("no error") {
                Entry::Event(event) => {
                    events += 1;
                    model.apply(&event);
                }
                Entry::State(state) => model = *state,
                Entry::Fact(_) => machines += 1,
            }
        }
        assert_eq!(events, PAGES - skipped, "from {from}");
        assert_eq!(machines, 1);
        let regions = &model.space(SpaceId(0)).regions;
        assert_eq!((regions.count() as u64, regions.mapped()), (PAGES, PAGES * PAGE));
        assert_eq!(trace.end(), Some(end()));
    }
}

#[test]
fn the_end_is_found_without_what_lies_before_it() {
    let bytes = growing(20_000, &[10_000]);
    let mut trace = TraceReader::open(io::Cursor::new(&bytes[..])).expect("a trace");
    assert!(trace.by_ref().take(100).all(|entry| entry.is_ok()));
    trace.seek_end().expect("memory can be read");
    assert_eq!(trace.end(), Some(end()));
    assert!(trace.whole() < 10_000, "{}", trace.whole());
}
