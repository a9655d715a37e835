//! A trace for Perfetto, read by `read_trace.py` with Perfetto's own definitions.

use std::{fs, path::Path, process::Output};

use memtrace::{
    model::{Model, change::Change, report::Evidence},
    sink::{json, perfetto::Timeline},
};
use serde_json::Value;

use crate::{MEMTRACE, TRACES, json_of, made_up, python::python, trace};

/// Tells whether the definitions are there.
pub(crate) fn is_there() -> bool {
    read_trace(&[]).is_some_and(|output| output.status.success())
}

/// What the last value of each counter has to be: the field of its name.
pub(crate) fn ends_at_the_figures_of_json() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in TRACES {
        let file = folder.path().join(name);
        let mut command = assert_cmd::Command::new(MEMTRACE);
        command.args(["replay", "--format", "perfetto", "-o"]).arg(&file).arg(trace(name));
        command.assert().success().stdout("");
        assert_is(&read(&file), &json_of(name));
    }
    let file = folder.path().join("made-up");
    draw(&file, &[]);
    let report = serde_json::from_str(&json::render(&made_up::report())).expect("JSON");
    assert_is(&read(&file), &report);
}

pub(crate) fn hostile_names_are_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trace");
    draw(&file, &made_up::changes());
    let drawn = read(&file);
    assert_eq!(drawn["errors"], Value::Array(vec![]));
    let exec = drawn["instants"].as_array().expect("instants").iter();
    let exec: Vec<&Value> = exec.filter(|instant| instant["name"] == "exec").collect();
    assert!(!exec.is_empty(), "{drawn}");
    for path in exec.iter().map(|exec| exec["figures"]["path"].as_str().expect("a path")) {
        assert!(!path.contains(char::is_control) && !path.contains('\u{202e}'), "{path:?}");
    }
}

pub(crate) fn refused() {
    for (words, hint) in [
        ("report 1", "memtrace run --format perfetto -o FILE -- CMD"),
        ("ledger", "memtrace run --format perfetto -o FILE -- CMD"),
        ("run --events -- true", "leave --events out"),
    ] {
        let words = ["--format", "perfetto"].into_iter().chain(words.split(' '));
        let assert = assert_cmd::Command::new(MEMTRACE).args(words).assert().code(2).stdout("");
        let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert!(stderr.contains("\nhint: ") && stderr.contains(hint), "{stderr}");
    }
}

/// Writes the made-up report after some changes.
fn draw(file: &Path, changes: &[Change]) {
    let mut timeline = Timeline::new(fs::File::create(file).expect("it can be written"));
    let model = Model::new(Evidence::Frames);
    changes.iter().for_each(|change| timeline.apply(&model, change));
    timeline.finish(&made_up::report()).expect("it can be written");
}

#[track_caller]
fn assert_is(drawn: &Value, report: &Value) {
    assert_eq!(drawn["errors"], Value::Array(vec![]));
    let processes = report["processes"].as_array().expect("processes");
    assert_eq!(drawn["processes"].as_array().map(Vec::len), Some(processes.len()));
    for process in processes {
        let places = drawn["processes"].as_array().expect("processes");
        let place = places.iter().find(|place| place["pid"] == process["tgid"]);
        let counters = place.expect("it is there")["counters"].as_object().expect("counters");
        // What an exited process held, it has given up since.
        let exit = process["state"] == "exited";
        let mut compared = 0;
        for (name, values) in counters {
            let values = values.as_array().expect("values");
            let is_gone = exit && name.starts_with("memory.") && values.len() > 1;
            let last = values.iter().map(|at| &at[1]).nth_back(usize::from(is_gone));
            let pointer = format!("/{}", name.replace('.', "/"));
            assert_eq!(last, process.pointer(&pointer), "{name}");
            compared += 1;
        }
        let known = ["resident", "live"].iter().filter(|field| process["memory"][**field].is_u64());
        let paths = process["reclaimed"]["by_path"].as_object().expect("paths").len();
        assert!(compared >= known.count() + paths, "{counters:?}");
    }
    let window = drawn["instants"].as_array().expect("instants").last().expect("the window");
    for field in ["emitted", "dropped", "missed", "untracked", "complete", "evidence"] {
        assert_eq!(window["figures"][field], report["window"][field], "{field}");
    }
}

fn read(file: &Path) -> Value {
    let output = read_trace(&[file]).expect("python3 is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn read_trace(files: &[&Path]) -> Option<Output> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats/read_trace.py");
    python("MEMTRACE_PERFETTO").arg(script).args(files).output().ok()
}
