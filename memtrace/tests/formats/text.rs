//! The report for people: figures are rounded there, but stand in rows and columns.

use memtrace::{
    model::report::Report,
    sink::{
        size,
        text::{self, Style},
    },
};
use serde_json::Value;

/// Returns the report as text, wide enough for every column.
pub(crate) fn render(report: &Report) -> String {
    text::render(report, Style { color: false, width: 200 })
}

/// Checks that what a process holds and what left it is in a text as the report has it.
#[track_caller]
pub(crate) fn assert_tells(text: &str, report: &Value) {
    for process in report["processes"].as_array().expect("processes") {
        let memory = &process["memory"];
        for (label, field) in [
            ("mapped", "/mapped"),
            ("resident", "/resident"),
            ("live", "/live"),
            ("freed, not reclaimed", "/freed_not_reclaimed/total"),
            ("reserved", "/reserved"),
            ("swapped", "/swapped"),
        ] {
            let expected = shown(memory.pointer(field).unwrap_or_else(|| panic!("no {field}")));
            let row = row(text, label);
            assert_eq!(row.get(1), Some(&expected), "{label}: {row:?}");
        }
        let by_path = process["reclaimed"]["by_path"].as_object().expect("paths");
        for (path, left) in by_path {
            let row = row(text, label(path));
            let fields = ["requested", "zapped", "freed", "late", "kept_elsewhere"];
            let expected: Vec<String> = [left["calls"].to_string()]
                .into_iter()
                .chain(fields.map(|field| shown(&left[field])))
                .collect();
            assert_eq!(row[1..], expected, "{path}");
        }
    }
}

/// Returns what people call a path.
fn label(path: &str) -> &str {
    match path {
        "brk" => "heap trim (brk)",
        "dont_need" => "MADV_DONTNEED",
        "free" => "MADV_FREE",
        "remove" => "MADV_REMOVE/punch hole",
        "overmap" => "MAP_FIXED over",
        path => path,
    }
}

fn shown(figure: &Value) -> String {
    figure.as_u64().map_or("–".to_owned(), size)
}

/// Returns the cells of the row with a label.
#[track_caller]
fn row(text: &str, label: &str) -> Vec<String> {
    let cells = |line: &str| -> Vec<String> {
        let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect()
    };
    let mut rows = text.lines().map(cells).filter(|cells| cells.len() > 1 && cells[0] == label);
    rows.next().unwrap_or_else(|| panic!("no row {label} in\n{text}"))
}
