//! Golden traces: records of real programs, kept once, through the model and both reports.
//!
//! `tests/data` was written on Linux 6.18, x86-64, by `memtrace run --record` (then still version 1):
//!
//! | trace | command |
//! |---|---|
//! | `true.records` | `true` |
//! | `children.records` | `--follow -- sh -c 'cat </dev/null; (exit 4)'` |
//! | `paths.records` | `./paths`, which is `gcc -O1 -static -nostdlib -fno-stack-protector paths.c` |
//! | `true.trace` | `/bin/true` |
//!
//! `*.records` are bare records, from before there was a trace file around them.
//!
//! Records are part of the trace format: a change that cannot read these must not be made. Where
//! the report changed on purpose, `INSTA_UPDATE=always cargo test --test replay` takes it down anew.

use std::collections::HashMap;

use insta::assert_snapshot;
use memtrace::{
    model::{
        Model,
        build::{Surroundings, report},
        region_map::PAGE,
        report::{Host, Report},
    },
    sink::{
        json,
        text::{self, Style},
    },
    source::{
        replay::records,
        trace_file::{Entry, MAGIC, TraceReader},
    },
};
use memtrace_common::{Event, Header, ProbeStats};
use serde_json::Value;

const TRUE: &[u8] = include_bytes!("data/true.records");
const CHILDREN: &[u8] = include_bytes!("data/children.records");
const PATHS: &[u8] = include_bytes!("data/paths.records");
const TRACE_FILE: &[u8] = include_bytes!("data/true.trace");
const TRACES: [&[u8]; 4] = [TRUE, CHILDREN, PATHS, TRACE_FILE];

#[test]
fn the_trace_of_true_gives_its_report() {
    let report = replay(TRUE);
    assert_snapshot!("true.text", as_text(&report));
    assert_snapshot!("true.json", json::render(&report));
}

#[test]
fn the_trace_of_a_shell_and_its_children_gives_their_report() {
    let report = replay(CHILDREN);
    assert_snapshot!("children.text", as_text(&report));
    assert_snapshot!("children.json", json::render(&report));
}

#[test]
fn the_trace_of_a_program_that_takes_every_path_gives_its_report() {
    let report = replay(PATHS);
    assert_snapshot!("paths.text", as_text(&report));
    assert_snapshot!("paths.json", json::render(&report));
}

#[test]
fn a_trace_file_gives_its_report() {
    assert_snapshot!("trace_file.text", as_text(&replay(TRACE_FILE)));
}

#[test]
fn each_path_was_asked_for_what_the_program_asked() {
    let report = replay(PATHS);
    let by_path = &report.processes[0].reclaimed.by_path;
    // Calls and pages, as paths.c has them; munmap includes shmdt.
    let expected = [
        ("brk", 1, 7),
        ("dont_need", 1, 8),
        ("free", 1, 4),
        ("mremap", 1, 10),
        ("munmap", 2, 16 + 7),
        ("overmap", 1, 4),
        ("remove", 1, 5),
    ];
    for (path, calls, pages) in expected {
        let figures = &by_path[path];
        assert_eq!(
            (figures.calls, figures.requested.expect("known") / PAGE),
            (calls, pages),
            "{path}"
        );
    }
    let zapped = |path: &str| by_path[path].zapped.expect("counted") / PAGE;
    // The heap's page 3 was touched up to its first page boundary: nine pages, six cut off.
    assert_eq!(["brk", "dont_need", "free", "mremap"].map(zapped), [6, 8, 0, 10]);
    assert_eq!(["munmap", "overmap", "remove"].map(zapped), [16 + 7, 4, 5]);
}

#[test]
fn every_report_of_a_trace_balances() {
    for trace in TRACES {
        for process in replay(trace).processes {
            assert_eq!(process.balance.unexplained, Some(0), "{} {}", process.comm, process.tgid);
        }
    }
}

#[test]
fn every_report_of_a_trace_keeps_to_the_schema() {
    let schema: Value =
        serde_json::from_str(include_str!("../../docs/report.schema.json")).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    for trace in TRACES {
        let report: Value = serde_json::from_str(&json::render(&replay(trace))).expect("JSON");
        let errors: Vec<String> = schema.iter_errors(&report).map(|e| e.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new());
    }
}

#[test]
fn the_same_trace_gives_the_same_report_twice() {
    for trace in TRACES {
        let (first, second) = (replay(trace), replay(trace));
        assert_eq!(first, second);
        assert_eq!(as_text(&first), as_text(&second));
    }
}

#[test]
fn a_trace_that_ends_at_any_record_gives_a_report_whose_sums_hold() {
    for trace in TRACES {
        let events = events(trace);
        let mut model = Model::default();
        for (at, event) in events.iter().enumerate() {
            model.apply(event);
            let report = build(&model, &events[..=at]);
            for process in &report.processes {
                let rows: u64 = process.regions.iter().map(|region| region.mapped).sum();
                if let Some(mapped) = process.memory.mapped {
                    assert_eq!(rows, mapped, "after record {at}");
                }
            }
            assert!(!as_text(&report).is_empty());
        }
        assert_eq!(model.living().count(), 0);
        assert!(model.living_mms().is_empty());
    }
}

#[test]
fn a_trace_that_is_cut_in_a_record_gives_what_came_before() {
    for trace in TRACES {
        let whole = events(trace);
        for cut in (0..trace.len()).step_by(13) {
            let (read, is_cut) = read(&trace[..cut]);
            assert_eq!(read, whole[..read.len()], "cut at {cut}");
            // Bare records that are cut between two of them do not show it.
            assert!(is_cut || read.len() < whole.len(), "cut at {cut}");
        }
    }
}

#[test]
fn records_that_come_twice_or_out_of_order_do_not_panic() {
    for trace in TRACES {
        let events = events(trace);
        let backwards: Vec<Event> = events.iter().rev().copied().collect();
        let twice = [&events[..], &events[..]].concat();
        for events in [backwards, twice] {
            let mut model = Model::default();
            for event in &events {
                model.apply(event);
            }
            let _ = as_text(&build(&model, &events));
        }
    }
}

#[test]
fn every_child_is_followed_to_its_exit() {
    let report = replay(CHILDREN);
    let exits: Vec<(&str, Option<i32>)> =
        report.processes.iter().map(|process| (process.comm.as_str(), process.exit_code)).collect();
    assert_eq!(exits, [("sh", Some(4)), ("cat", Some(0)), ("sh", Some(4))]);
}

fn events(trace: &[u8]) -> Vec<Event> {
    let (events, is_cut) = read(trace);
    assert!(!is_cut, "the trace is whole");
    events
}

/// Returns the events of a trace file or of bare records, and whether they are seen to be cut.
fn read(trace: &[u8]) -> (Vec<Event>, bool) {
    if !trace.starts_with(&MAGIC) {
        let mut records = records(trace);
        let events = records.by_ref().collect::<Result<_, _>>();
        return (events.expect("no record is damaged"), records.left_over() > 0);
    }
    let Ok(mut trace) = TraceReader::open(trace) else { return (Vec::new(), true) };
    let entries = trace.by_ref().collect::<Result<Vec<_>, _>>().expect("no record is damaged");
    let events = entries.into_iter().filter_map(|entry| match entry {
        Entry::Event(event) => Some(event),
        Entry::Fact(_) | Entry::State(_) => None,
    });
    (events.collect(), trace.end().is_none())
}

fn replay(trace: &[u8]) -> Report {
    let events = events(trace);
    let mut model = Model::default();
    for event in &events {
        model.apply(event);
    }
    build(&model, &events)
}

fn build(model: &Model, events: &[Event]) -> Report {
    let time = |header: &Header| header.time_ns;
    let start_ns = events.first().map_or(0, |event| time(event.header()));
    let end_ns = events.iter().map(|event| time(event.header())).max().unwrap_or(0);
    let (kernel, arch) = ("6.18.0".to_owned(), "x86_64".to_owned());
    let host = Host { kernel, arch, page_size: PAGE, ..Host::default() };
    let emitted = events.len() as u64;
    let stats = ProbeStats { emitted, ..ProbeStats::default() };
    let surroundings =
        Surroundings { host, start_ns, end_ns, stats, missed: 0, probes: Vec::new() };
    report(model, surroundings, &HashMap::new())
}

fn as_text(report: &Report) -> String {
    text::render(report, Style { color: false, width: 100 })
}
