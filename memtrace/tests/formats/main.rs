//! One model, every format: the same figures.
//!
//! A Perfetto trace is read with Perfetto's own definitions (`pip install perfetto protobuf`, in the folder
//! that `MEMTRACE_PERFETTO` names, if it does). A machine without them skips that, but for one where `CI`
//! is set.

#[path = "../page/figures.rs"]
mod figures;
#[expect(dead_code, reason = "the page has use for more of it")]
#[path = "../page/made_up.rs"]
mod made_up;
mod perfetto;
#[path = "../common/python.rs"]
mod python;
mod text;
#[expect(dead_code, reason = "others have use for more of it")]
#[path = "../common/trial.rs"]
mod trial;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use libtest_mimic::{Arguments, Completion, Trial};
use memtrace::{
    model::report::Report,
    sink::{
        folded::{Measure, by_measure},
        html, json,
    },
};
use serde_json::Value;

use self::trial::{anywhere, without};

const MEMTRACE: &str = env!("CARGO_BIN_EXE_memtrace");

/// Traces that were kept.
const TRACES: [&str; 2] = ["true.trace", "python.trace"];

fn main() -> ExitCode {
    let trials = vec![
        anywhere("html_has_the_figures_of_json", html_has_the_figures_of_json),
        anywhere("text_has_the_figures_of_json", text_has_the_figures_of_json),
        anywhere("call_stacks_add_up_to_the_figures_of_json", call_stacks_add_up),
        anywhere("a_report_differs_in_nothing_from_its_trace", no_difference),
        anywhere("what_has_no_time_makes_no_trace_for_perfetto", perfetto::refused),
        read("perfetto_ends_at_the_figures_of_json", perfetto::ends_at_the_figures_of_json),
        read("hostile_names_are_text_in_perfetto", perfetto::hostile_names_are_text),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test that needs Perfetto's definitions.
fn read(name: &str, test: fn()) -> Trial {
    Trial::ignorable_test(name, move || {
        if perfetto::is_there() {
            test();
            return Ok(Completion::Completed);
        }
        without("perfetto for python3")
    })
}

fn html_has_the_figures_of_json() {
    for (report, page) in [(as_json(&made_up::report()), html::render(&made_up::report(), None))]
        .into_iter()
        .chain(TRACES.map(|name| (json_of(name), replay(name, &["--format", "html"]))))
    {
        let found = figures::figures(&page);
        assert!(found.len() > 50, "only {} figures", found.len());
        for figures::Figure { pointer, value, text } in found {
            let expected = report.pointer(&pointer).unwrap_or_else(|| panic!("no {pointer}"));
            let shown = value.map_or(Value::Null, |value| value.parse().expect("a number"));
            assert_eq!(shown, *expected, "{pointer}, shown as {text}");
        }
    }
}

fn text_has_the_figures_of_json() {
    text::assert_tells(&text::render(&made_up::report()), &as_json(&made_up::report()));
    for name in TRACES {
        text::assert_tells(&replay(name, &[]), &json_of(name));
    }
}

fn call_stacks_add_up() {
    let report = made_up::report();
    let stacks = report.stacks.as_ref().expect("it has stacks");
    let json = as_json(&report);
    let faults = stacks.processes[0].faulted_by.iter().flatten().map(|row| row.faults).sum::<u64>();
    for (measure, expected) in [
        (Measure::Retained, &json["stacks"]["processes"][0]["retained"]),
        (Measure::Freed, &json["stacks"]["processes"][0]["freed"]),
        (Measure::FreedResident, &json["stacks"]["processes"][0]["freed_resident_estimate"]),
        (Measure::Reclaimed, &json["processes"][0]["reclaimed"]["total"]),
        (Measure::Faults, &faults.into()),
    ] {
        let lines = by_measure(stacks, &report.processes, measure);
        let bytes = lines.lines().map(|line| line.rsplit_once(' ').expect("a number").1);
        let sum: u64 = bytes.map(|bytes| bytes.parse::<u64>().expect("a number")).sum();
        assert_eq!(expected.as_u64(), Some(sum), "{measure:?}:\n{lines}");
        assert!(sum > 0, "{measure:?}");
    }
}

/// The report of a trace against the trace itself.
fn no_difference() {
    for name in TRACES {
        let folder = tempfile::tempdir().expect("a folder");
        let report = folder.path().join("report.json");
        std::fs::write(&report, replay(name, &["--format", "json"])).expect("it can be written");
        let mut command = assert_cmd::Command::new(MEMTRACE);
        let assert = command
            .args(["diff", "--format", "json", "--fail-above", "0"])
            .args([report, trace(name)])
            .assert()
            .success();
        let diff: Value = serde_json::from_slice(&assert.get_output().stdout).expect("JSON");
        let mut figures = BTreeMap::new();
        changes(&diff, String::new(), &mut figures);
        assert!(figures.len() > 10, "{figures:?}");
        figures.retain(|_, change| *change != 0);
        assert!(figures.is_empty(), "{figures:?}");
    }
}

/// Finds every difference.
fn changes(value: &Value, at: String, found: &mut BTreeMap<String, i64>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_i64() {
                    Some(change) if name == "change" => _ = found.insert(at.clone(), change),
                    _ => changes(value, format!("{at}/{name}"), found),
                }
            }
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(i, item)| changes(item, format!("{at}/{i}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn as_json(report: &Report) -> Value {
    serde_json::from_str(&json::render(report)).expect("a report is JSON")
}

fn json_of(name: &str) -> Value {
    serde_json::from_str(&replay(name, &["--format", "json"])).expect("a report is JSON")
}

fn trace(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn replay(name: &str, options: &[&str]) -> String {
    let mut command = assert_cmd::Command::new(MEMTRACE);
    let assert = command.arg("replay").args(options).arg(trace(name)).assert().success();
    String::from_utf8(assert.get_output().stdout.clone()).expect("it is UTF-8")
}
