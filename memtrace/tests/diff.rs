//! `memtrace diff`: its JSON against docs/diff.schema.json and docs/OUTPUT.md, its exit codes, and what
//! it makes of files that are no reports. Needs no root.

mod common;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use assert_cmd::assert::Assert;
use serde_json::{Value, json};

use common::missing;

const MEMTRACE: &str = env!("CARGO_BIN_EXE_memtrace");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// A folder with two reports.
struct Reports {
    folder: tempfile::TempDir,
}

impl Reports {
    /// Of a family of processes that was traced once, and of the same with what `change` does to it.
    fn new(change: impl FnOnce(&mut Value)) -> Self {
        let reports = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let json = include_str!("snapshots/replay__children.json.snap").splitn(3, "---\n").nth(2);
        let json = json.expect("a snapshot has a head");
        let mut report: Value = serde_json::from_str(json).expect("JSON");
        reports.write("a", &report.to_string());
        change(&mut report);
        reports.write("b", &report.to_string());
        reports
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("there is room");
    }

    fn diff(&self, options: &[&str]) -> Assert {
        let [a, b] = ["a", "b"].map(|name| self.path(name));
        memtrace(&[&["diff", a.as_str(), &b], options].concat())
    }

    fn json(&self, options: &[&str]) -> (Value, i32) {
        let made = self.diff(&[&["--format", "json"], options].concat());
        let output = made.get_output();
        let value = serde_json::from_slice(&output.stdout).expect("JSON");
        (value, output.status.code().expect("it ends"))
    }
}

fn memtrace(args: &[&str]) -> Assert {
    let mut command = Command::new(MEMTRACE);
    command.args(args).stdin(Stdio::null());
    assert_cmd::Command::from_std(command).assert()
}

/// Lets the first process hold more.
fn grow(report: &mut Value, bytes: u64) {
    let memory = &mut report["processes"][0]["memory"];
    let resident = memory["resident"].as_u64().expect("known");
    memory["resident"] = (resident + bytes).into();
}

fn schema() -> Value {
    serde_json::from_str(include_str!("../../docs/diff.schema.json")).expect("JSON")
}

fn errors(document: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(&schema()).expect("a schema");
    validator.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path)).collect()
}

/// A comparison in which every list has something.
fn whole() -> Value {
    let allocator = |free: u64| {
        json!({
            "name": "glibc", "version": "2.36", "evidence": "walked", "system": 2 * free, "in_use": free,
            "free": {"bins": free}, "unknown": 0, "resyncs": 0, "locked": 0, "free_resident": free,
            "trimmable": free, "trimmable_late": 0, "remains": null, "settings": {},
            "arenas": [{
                "address": "0x1000", "system": 2 * free, "free": free, "free_resident": free,
                "trimmable": free, "threads": 1,
            }],
        })
    };
    let reports = Reports::new(|report| {
        grow(report, 1 << 20);
        let process = &mut report["processes"][0];
        process["allocators"] = json!([allocator(2 << 20)]);
        process["findings"] =
            json!([{"id": "live", "bytes": 1, "summary": "", "evidence": "", "advice": ""}]);
    });
    let (diff, code) = reports.json(&["--fail-above", "live=0"]);
    assert_eq!(code, 0);
    for list in ["allocators", "findings", "regions"] {
        let list = &diff["processes"][0][list];
        assert!(list.as_array().is_some_and(|list| !list.is_empty()), "{list}");
    }
    diff
}

#[test]
fn a_comparison_is_valid() {
    jsonschema::meta::validate(&schema()).expect("the schema keeps to draft 2020-12");
    assert_eq!(errors(&whole()), Vec::<String>::new());
}

#[test]
fn a_missing_an_extra_and_a_wrong_field_are_refused() {
    let diff = whole();
    for pointer in [
        "",
        "/before",
        "/limits/0",
        "/all",
        "/all/resident",
        "/processes/0",
        "/processes/0/before",
        "/processes/0/allocators/0",
        "/processes/0/allocators/0/arenas/0",
        "/processes/0/findings/0",
        "/processes/0/regions/0",
        "/processes/0/paths/exit",
    ] {
        let fields = diff.pointer(pointer).and_then(Value::as_object).expect("an object").clone();
        let broken = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
            let mut broken = diff.clone();
            change(broken.pointer_mut(pointer).and_then(Value::as_object_mut).expect("an object"));
            errors(&broken)
        };
        for field in fields.keys() {
            let wrong = broken(&|object| drop(object.insert(field.clone(), 0.5.into())));
            assert!(!wrong.is_empty(), "{pointer}/{field} is 0.5");
            let missing = broken(&|object| drop(object.remove(field)));
            assert!(!missing.is_empty(), "{pointer}/{field} is missing");
        }
        let extra = broken(&|object| drop(object.insert("surprise".into(), Value::Null)));
        assert!(!extra.is_empty(), "{pointer}/surprise");
    }
}

#[test]
fn the_document_names_every_field() {
    let text = include_str!("../../docs/OUTPUT.md");
    let section = text.split("## What differs").nth(1).expect("the section is there");
    let section = section.split("\n## ").next().expect("it has an end");
    let missing = missing(&schema(), section);
    assert!(missing.is_empty(), "docs/OUTPUT.md lacks {missing:?}");
}

#[test]
fn a_report_does_not_differ_from_itself() {
    let (diff, code) = Reports::new(|_| ()).json(&["--fail-above", "0"]);
    assert_eq!(code, 0);
    fn changes(value: &Value, found: &mut Vec<i64>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("change").and_then(Value::as_i64));
                object.values().for_each(|value| changes(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| changes(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    changes(&diff, &mut found);
    assert!(found.len() > 50, "{diff}");
    assert!(found.iter().all(|change| *change == 0), "{diff}");
    for process in diff["processes"].as_array().expect("a list") {
        assert_eq!(process["matched_by"], "process");
    }
}

#[test]
fn growth_above_the_limit_exits_with_1_and_says_by_how_much() {
    let reports = Reports::new(|report| grow(report, 3 << 20));
    for (limit, code) in [("3M", 0), ("3145727", 1), ("resident=1G", 0), ("live=0", 0)] {
        let made = reports.diff(&["--fail-above", limit]).code(code);
        let output = made.get_output();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("resident grew by 3.0 MiB"), "{text}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            stderr.contains("memtrace: resident grew by 3.0 MiB, more than 3.0 MiB"),
            code == 1
        );
    }
    let (diff, code) = reports.json(&["--fail-above", "1M", "--fail-above", "live=1M"]);
    assert_eq!(code, 1);
    let limits = [("resident", 3 << 20, "exceeded"), ("live", 0, "held")].map(
        |(class, change, state)| json!({"class": class, "allowed": 1 << 20, "change": change, "state": state}),
    );
    assert_eq!(diff["limits"], json!(limits));
}

#[test]
fn a_limit_of_what_nobody_measured_is_not_held() {
    let reports = Reports::new(|report| report["processes"][0]["memory"]["live"] = Value::Null);
    let made = reports.diff(&["--fail-above", "live=1G"]).code(1);
    let stderr = String::from_utf8_lossy(&made.get_output().stderr).into_owned();
    assert!(stderr.contains("nobody knows whether live grew by more than 1.0 GiB"), "{stderr}");
}

#[test]
fn a_limit_that_is_none_is_wrong_usage() {
    for limit in ["", "10%", "-1", "rss=1M", "live="] {
        let reports = Reports::new(|_| ());
        reports.diff(&[&format!("--fail-above={limit}")]).code(2).stdout("");
    }
    memtrace(&["diff", "a"]).code(2).stdout("");
}

/// Asserts that a file is refused with one sentence and one hint.
#[track_caller]
fn assert_refused(reports: &Reports, code: i32, options: &[&str], why: &str) {
    let made = reports.diff(options).code(code).stdout("");
    let stderr = String::from_utf8_lossy(&made.get_output().stderr).into_owned();
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].contains(why), "{stderr}");
    assert!(lines.len() == 2 && lines[1].starts_with("hint: "), "{stderr}");
}

#[test]
fn what_is_no_report_is_refused() {
    let reports = Reports::new(|_| ());
    let whole = fs::read_to_string(reports.path("a")).expect("it is there");
    let another = |schema: &str| whole.replace("memtrace.report/1", schema);
    for (text, why) in [
        (String::new(), "it is empty"),
        ("not JSON".into(), "it is neither a JSON report of memtrace nor a trace"),
        (" \n[1]".into(), "it is neither a JSON report of memtrace nor a trace"),
        ("{\"a\":\u{1b}[2J".into(), "it is no JSON report of memtrace"),
        (whole[..whole.len() / 2].to_owned(), "it is no JSON report of memtrace: EOF"),
        (format!("{whole}\n{whole}"), "it is no JSON report of memtrace: trailing"),
        (another("memtrace.report/2"), "it is of the form \"memtrace.report/2\""),
        (another("memtrace.ledger/1"), "it is no report, but \"memtrace.ledger/1\""),
        ("{\"schema\":".repeat(10_000), "it is no JSON report of memtrace"),
    ] {
        reports.write("b", &text);
        assert_refused(&reports, 1, &[], why);
    }
    let trace = fs::read(format!("{DATA}/true.trace")).expect("it is there");
    fs::write(reports.path("b"), &trace[..50]).expect("there is room");
    assert_refused(&reports, 1, &[], "it is cut in its header, after 50 bytes");
    fs::remove_file(reports.path("b")).expect("it is ours");
    assert_refused(&reports, 1, &[], "No such file");
    fs::create_dir(reports.path("b")).expect("it is ours");
    assert_refused(&reports, 1, &[], "Is a directory");
}

#[test]
fn a_trace_is_compared_as_its_report_is() {
    let reports = Reports::new(|_| ());
    let trace = format!("{DATA}/python.trace");
    memtrace(&["replay", &trace, "--format", "json", "-o", &reports.path("a")]).success();
    fs::copy(&trace, reports.path("b")).expect("there is room");
    let (diff, code) = reports.json(&[]);
    assert_eq!(code, 0);
    reports.write("b", &fs::read_to_string(reports.path("a")).expect("it is there"));
    assert_eq!(diff["processes"], reports.json(&[]).0["processes"]);
    assert_eq!(diff["processes"].as_array().map(Vec::len), Some(1), "{diff}");
}

#[test]
fn a_report_is_not_overwritten() {
    let reports = Reports::new(|_| ());
    let was = fs::read(reports.path("b")).expect("it is there");
    let output = reports.path("b");
    assert_refused(&reports, 2, &["-o", &output], "would overwrite");
    assert_eq!(fs::read(reports.path("b")).expect("it is there"), was);
    reports.diff(&["-o", &reports.path("c")]).success().stdout("");
    assert!(PathBuf::from(reports.path("c")).metadata().is_ok_and(|file| file.len() > 100));
}

#[test]
fn a_hostile_report_steers_no_terminal() {
    let reports = Reports::new(|report| {
        report["host"]["kernel"] = "\u{1b}[2J".into();
        let process = &mut report["processes"][0];
        process["comm"] = "\u{1b}]0;x\u{7}\n".into();
        process["regions"][0]["kind"] = "\u{1b}[1m".into();
        process["regions"][0]["name"] = format!("{}\u{202e}", "x".repeat(4096)).into();
        process["reclaimed"]["by_path"]["\u{1b}[0m"] = json!({"calls": 1});
        process["findings"] = json!([{"id": "\u{1b}[2J", "bytes": 1}]);
        process["allocators"] = json!([{
            "name": "\u{1b}[2J", "version": "\r", "evidence": "", "system": 1, "in_use": 1,
            "free": {"\u{9b}1m": 1}, "free_resident": 1, "trimmable": null, "arenas": [],
        }]);
    });
    let made = reports.diff(&[]).success();
    let text = String::from_utf8(made.get_output().stdout.clone()).expect("UTF-8");
    let bad = text.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
    assert_eq!(bad, None, "{text}");
}
