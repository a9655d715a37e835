//! Many processes: a line for each before the largest are told in full.

use std::cmp::Reverse;

use super::{
    Style,
    layout::{
        Align::{self, Left, Right},
        columns, end_of,
    },
};
use crate::{
    model::report::{ProcessReport, Report},
    sink::{
        known, known_number, printable, size,
        words::{given_back, total, was_traced},
    },
};

/// Processes that are told in full; with more of them a summary comes first.
const DETAILED: usize = 4;
/// Processes in the summary.
const SUMMARIZED: usize = 40;
/// Characters of a name in the summary: enough for every `comm` that needs no escape.
const NAME_WIDTH: usize = 16;

/// What a summary says of a process, and by what processes are ordered.
struct Summary {
    head: &'static [(&'static str, Align)],
    row: fn(&ProcessReport) -> Vec<String>,
    bytes: fn(&ProcessReport) -> u64,
    by: &'static str,
}

/// Of processes that were traced: what they have and gave back.
const TRACED: Summary = Summary {
    head: &[
        ("pid", Right),
        ("name", Left),
        ("state", Left),
        ("resident", Right),
        ("given back", Right),
        ("faults", Right),
    ],
    row: |process| {
        let state = match process.exit_code {
            Some(code) => format!("{} {code}", process.state),
            None => process.state.to_owned(),
        };
        let faults = process.faults.minor.zip(process.faults.major);
        vec![
            state,
            known(process.memory.resident),
            known(given_back(process)),
            known_number(faults.map(|(minor, major)| minor.saturating_add(major))),
        ]
    },
    bytes: |process| {
        let resident = process.memory.resident.unwrap_or(0);
        resident.saturating_add(given_back(process).unwrap_or(0))
    },
    by: "with the most memory, resident and given back",
};

/// Of processes that were looked at: what they hold free.
const LOOKED_AT: Summary = Summary {
    head: &[
        ("pid", Right),
        ("name", Left),
        ("resident", Right),
        ("live", Right),
        ("free", Right),
        ("lazy free", Right),
        ("trimmable", Right),
        ("allocators", Left),
    ],
    row: |process| {
        let freed = &process.memory.freed_not_reclaimed;
        let trimmable = process.allocators.iter().filter_map(|allocator| allocator.trimmable);
        let names: Vec<&str> = process.allocators.iter().map(|allocator| allocator.name).collect();
        vec![
            known(process.memory.resident),
            known(process.memory.live),
            known(freed.allocator),
            known(freed.lazy_free),
            known(trimmable.reduce(u64::saturating_add)),
            names.join(" "),
        ]
    },
    bytes: |process| {
        let freed = &process.memory.freed_not_reclaimed;
        freed.total.or(freed.lazy_free).unwrap_or(0)
    },
    by: "that hold the most free memory",
};

/// Adds a table of all processes if they are many; returns those to be told in full.
pub(super) fn summarize<'a>(
    out: &mut String,
    report: &'a Report,
    style: Style,
) -> Vec<&'a ProcessReport> {
    let mut processes: Vec<&ProcessReport> = report.processes.iter().collect();
    if processes.len() <= DETAILED {
        return processes;
    }
    let Summary { head, row, bytes, by } =
        if was_traced(&report.window) { TRACED } else { LOOKED_AT };
    processes.sort_by_key(|process| Reverse((bytes(process), process.memory.resident)));
    let (listed, more) = processes.split_at(processes.len().min(SUMMARIZED));
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|process| {
            let name = end_of(&printable(&process.comm), NAME_WIDTH);
            [vec![process.tgid.to_string(), name], row(process)].concat()
        })
        .collect();
    style.table(out, &columns(head, &rows));
    if !more.is_empty() {
        let bytes = total(more.iter().map(|process| bytes(process)));
        out.push_str(&format!("  … and {} more, {}\n", more.len(), size(bytes)));
    }
    out.push_str(&format!("\n{} processes; the {DETAILED} {by}:\n\n", processes.len()));
    processes.truncate(DETAILED);
    processes
}
