//! `memtrace replay` on good and bad files: the report, what it says of a cut, and for what it cannot
//! read one sentence, one hint and the right exit code. Needs no root.
//!
//! The format itself is tested in `source/trace_file_tests.rs`, the reports in `replay.rs`.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::{NamedTempFile, tempdir};

const TRACE: &[u8] = include_bytes!("data/true.trace");
const PYTHON: &[u8] = include_bytes!("data/python.trace");
/// Bytes of the header.
const HEADER: usize = 112;
/// Bytes of the last record.
const END: usize = 64;

fn replay<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memtrace"));
    command.arg("replay").args(args).stdin(Stdio::null());
    command.output().expect("memtrace runs")
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("there is room");
    file
}

/// Replays and asserts that the report is there. Returns it and what was said beside it.
#[track_caller]
fn reported(bytes: &[u8], code: i32) -> (Value, String) {
    let file = file(bytes);
    let output = replay([file.path().as_os_str(), "--format=json".as_ref()]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let schema: Value =
        serde_json::from_str(include_str!("../../docs/report.schema.json")).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = schema.iter_errors(&report).map(|e| e.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new());
    (report, stderr.replace(&file.path().display().to_string(), "FILE"))
}

/// Replays and asserts that it says one sentence and one hint. Returns the sentence.
#[track_caller]
fn refused<const N: usize>(args: [&Path; N], code: i32) -> String {
    let output = replay(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    let lines: Vec<&str> = stderr.lines().collect();
    let &[sentence, hint] = lines.as_slice() else {
        panic!("not one sentence and one hint: {stderr}")
    };
    assert!(hint.starts_with("hint: "), "{stderr}");
    let sentence = sentence.strip_prefix("memtrace: ").unwrap_or_else(|| panic!("{stderr}"));
    sentence.replace(&args[0].display().to_string(), "FILE")
}

#[test]
fn a_whole_trace_is_complete_and_says_where_it_was_recorded() {
    let (report, stderr) = reported(TRACE, 0);
    assert_eq!(stderr, "");
    let window = &report["window"];
    assert_eq!(window["complete"], true);
    assert_eq!(window["emitted"], 57);
    assert!(window["end_ns"].as_u64() > window["start_ns"].as_u64(), "{window}");
    assert_eq!(report["host"]["kernel"], "6.18.44");
    assert_eq!(report["host"]["arch"], "x86_64");
    let process = &report["processes"][0];
    assert_eq!((&process["comm"], &process["exit_code"]), (&"true".into(), &0.into()));
    assert_eq!(process["balance"]["unexplained"], 0);
}

/// The trace of version 2 was written on Linux 6.18, x86-64, by `memtrace attach --record`, of a python3
/// that had freed 20,000 objects.
#[test]
fn a_trace_of_a_running_process_has_what_its_allocators_held() {
    let (report, stderr) = reported(PYTHON, 0);
    assert_eq!(stderr, "");
    let output = replay([file(PYTHON).path()]);
    insta::assert_snapshot!("python.text", String::from_utf8_lossy(&output.stdout));
    insta::assert_snapshot!("python.json", serde_json::to_string_pretty(&report).expect("JSON"));
}

#[test]
fn a_trace_in_blocks_that_is_cut_gives_the_whole_blocks() {
    let (report, stderr) = reported(&PYTHON[..PYTHON.len() - 1], 0);
    let block = PYTHON.len() - 1 - HEADER;
    let cut = format!("it stops after 0 records, {block} bytes into the next block");
    assert!(stderr.starts_with(&format!("[WARN ] FILE is cut: {cut}\n")), "{stderr}");
    assert_eq!(report["window"]["complete"], false);
}

#[test]
fn a_report_goes_to_the_file_that_was_named_and_not_over_the_trace() {
    let trace = file(TRACE);
    let folder = tempdir().expect("a temporary folder");
    let report = folder.path().join("report");
    let output = replay([trace.path(), Path::new("-o"), &report]);
    assert!(output.status.success() && output.stdout.is_empty());
    let text = fs::read_to_string(&report).expect("it was written");
    assert!(text.starts_with("true (pid "), "{text}");

    let link = folder.path().join("link");
    std::os::unix::fs::symlink(trace.path(), &link).expect("a link");
    for output in [trace.path(), &link] {
        let sentence = refused([trace.path(), Path::new("-o"), output], 2);
        assert_eq!(sentence, "the report would overwrite the trace");
    }
    assert_eq!(fs::read(trace.path()).expect("it is there"), TRACE);
}

#[test]
fn a_cut_trace_gives_what_was_gathered_and_says_where_it_was_cut() {
    let (report, stderr) = reported(&TRACE[..3000], 0);
    assert_eq!(stderr, "[WARN ] FILE is cut: it stops after 29 records, 72 bytes into the next\n");
    assert_eq!(report["window"]["complete"], false);
    assert_eq!(report["window"]["emitted"], 29);
    assert_eq!(report["processes"][0]["comm"], "true");
    assert_eq!(report["processes"][0]["state"], "unknown");
}

#[test]
fn a_trace_that_was_not_ended_is_not_complete() {
    let (report, stderr) = reported(&TRACE[..TRACE.len() - END], 0);
    assert_eq!(stderr, "[WARN ] FILE is cut: it stops after 57 records and was not ended\n");
    assert_eq!(report["window"]["complete"], false);
    assert_eq!(report["processes"][0]["state"], "exited");
}

#[test]
fn a_trace_without_a_record_names_no_process() {
    let (report, stderr) = reported(&TRACE[..HEADER], 0);
    assert_eq!(
        stderr,
        "[WARN ] FILE is cut: it stops after 0 records and was not ended\n\
         [WARN ] FILE does not tell how any process began\n"
    );
    assert_eq!(report["processes"], Value::Array(vec![]));
}

#[test]
fn a_trace_that_was_ended_before_any_process_began_is_not_complete() {
    let trace = [&TRACE[..HEADER], &TRACE[TRACE.len() - END..]].concat();
    let (report, stderr) = reported(&trace, 0);
    assert_eq!(stderr, "[WARN ] FILE does not tell how any process began\n");
    assert_eq!(report["window"]["complete"], false);
}

#[test]
fn a_record_of_a_kind_that_is_not_known_is_counted() {
    let mut unknown = [0; 40];
    unknown[28..32].copy_from_slice(b"\xe7\x03\x28\0");
    let trace = [&TRACE[..HEADER], &unknown, &unknown, &TRACE[HEADER..]].concat();
    let (report, stderr) = reported(&trace, 0);
    assert_eq!(stderr, "[WARN ] 2 records were not understood: a newer memtrace may know them\n");
    assert_eq!(report["window"]["complete"], false);
    assert_eq!(report["processes"], reported(TRACE, 0).0["processes"]);
}

#[test]
fn records_that_were_lost_when_it_was_recorded_are_told() {
    let mut trace = TRACE.to_vec();
    let dropped = TRACE.len() - END + 40;
    trace[dropped] = 5;
    let (report, stderr) = reported(&trace, 0);
    assert_eq!(stderr, "");
    assert_eq!(report["window"]["dropped"], 5);
    assert_eq!(report["window"]["complete"], false);
}

#[test]
fn a_damaged_record_gives_what_came_before_it_and_fails() {
    let mut trace = TRACE.to_vec();
    // The length of the second record; the first has 88 bytes.
    trace[HEADER + 88 + 30..HEADER + 88 + 32].fill(0);
    let (report, stderr) = reported(&trace, 1);
    assert_eq!(
        stderr,
        "[WARN ] FILE does not tell how any process began\n\
         memtrace: cannot read all of FILE: the record at byte 200 is damaged: it says that it is \
         0 bytes long\n\
         hint: the report holds what came before it\n"
    );
    assert_eq!(report["window"]["emitted"], 1);
    assert_eq!(report["window"]["complete"], false);
}

#[test]
fn what_is_not_there_or_no_file_is_refused() {
    let sentence = refused([Path::new("/no/such/trace")], 1);
    assert_eq!(sentence, "cannot read FILE: No such file or directory (os error 2)");
    let folder = tempdir().expect("a temporary folder");
    assert_eq!(refused([folder.path()], 1), "cannot replay FILE: it is a directory");
}

#[test]
fn what_is_no_trace_or_no_longer_one_is_refused() {
    let with = |at: usize, bytes: &[u8]| {
        let mut trace = TRACE.to_vec();
        trace[at..at + bytes.len()].copy_from_slice(bytes);
        trace
    };
    let bare_records = include_bytes!("data/true.records");
    for (bytes, why) in [
        (vec![], "it is empty"),
        (b"#!/bin/sh\n".to_vec(), "it is not a trace"),
        (bare_records.to_vec(), "it is not a trace"),
        (TRACE[..50].to_vec(), "it is cut in its header, after 50 bytes"),
        (with(8, &[3]), "it has version 3 of the format, and this memtrace reads 2"),
        (with(8, &[0]), "its header is damaged"),
        (with(12, &[10, 11, 12, 13]), "it was recorded on a machine of the other byte order"),
        (
            with(16, &[0, 0x40]),
            "it was recorded with pages of 16384 bytes, and this memtrace counts in 4096",
        ),
    ] {
        let sentence = refused([file(&bytes).path()], 1);
        assert_eq!(sentence, format!("cannot replay FILE: {why}"));
    }
}

#[test]
fn a_file_that_cannot_be_replayed_leaves_the_last_report_alone() {
    let report = file(b"the last report");
    refused([file(b"no trace").path(), Path::new("-o"), report.path()], 1);
    assert_eq!(fs::read(report.path()).expect("it is there"), b"the last report");
}

#[test]
fn replay_needs_one_file() {
    for args in [&[][..], &["a", "b"]] {
        let output = replay(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stderr.starts_with(b"error: "));
    }
}
