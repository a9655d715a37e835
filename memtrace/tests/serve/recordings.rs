//! Recordings of single processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    daemon::{Daemon, HEAP, Heap, request},
    disk::Disk,
    openapi::assert_valid,
    privileges::{ENOUGH, threads},
};

/// A daemon that records into its folder, and may walk the tests' program; with more configuration.
fn daemon(more: &str) -> Daemon {
    Daemon::start(&config(more))
}

pub(crate) fn config(more: &str) -> String {
    format!(
        "listen = \"unix:SOCKET\"\ninterval = \"200ms\"\nwalk_only = [\"{HEAP}\"]\n\
         walk_budget = \"20%\"\nrecordings = \"FOLDER/recordings\"\n{more}"
    )
}

/// Returns where a recording is while it is being made.
fn partial(daemon: &Daemon, id: &str) -> PathBuf {
    daemon.folder.path().join(format!("recordings/{id}.partial"))
}

fn ask(daemon: &Daemon, method: &str, path: &str) -> (u16, String) {
    daemon.ask(&request(method, path))
}

fn start(daemon: &Daemon, heap: &Heap, duration: &str) -> (u16, Value) {
    let path = format!("/api/v1/processes/{}/recordings?duration={duration}", heap.pid());
    let (status, body) = ask(daemon, "POST", &path);
    (status, serde_json::from_str(&body).expect("JSON"))
}

fn list(daemon: &Daemon) -> Vec<Value> {
    let all = daemon.get_json("/api/v1/recordings");
    all["recordings"].as_array().expect("a list").clone()
}

#[track_caller]
fn wait_for(daemon: &Daemon, id: &str, state: &str) -> Value {
    daemon.wait_until(&format!("{id}: {state}"), |daemon| {
        let one = daemon.get_json(&format!("/api/v1/recordings/{id}"));
        (one["state"] == state).then_some(one)
    })
}

/// Waits until the daemon knows a process.
fn wait_until_known(daemon: &Daemon, heap: &Heap) {
    daemon.wait_until("a reading", |daemon| {
        let known = daemon.get_json("/api/v1/processes");
        let mut known = known["processes"].as_array().expect("a list").iter();
        known.any(|process| process["tgid"] == heap.pid()).then_some(())
    });
}

/// Records a process for a moment.
pub(crate) fn record(daemon: &Daemon, heap: &Heap) {
    wait_until_known(daemon, heap);
    let (status, begun) = start(daemon, heap, "200ms");
    assert_eq!(status, 201, "{begun}");
    wait_for(daemon, begun["id"].as_str().expect("a name"), "done");
}

/// Returns the PIDs in the report of a trace.
fn replayed(trace: &[u8]) -> Vec<Value> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), trace).expect("it can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_memtrace"))
        .args(["replay", "--format", "json"])
        .arg(file.path())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let processes = report["processes"].as_array().expect("a list").iter();
    processes.map(|process| process["tgid"].clone()).collect()
}

pub(crate) fn by_request() {
    let heap = Heap::start();
    records_by_request(&heap, &daemon(""));
}

/// Who is no root records as well, and keeps what that takes; but only where it was to record at start.
pub(crate) fn by_a_user() {
    let heap = Heap::start();
    let daemon = Daemon::start_with(&ENOUGH, &config(""));
    records_by_request(&heap, &daemon);
    for (thread, status) in threads(&daemon) {
        assert!(status.contains("CapEff:\t000000c000080004\n"), "{thread}: {status}");
        assert!(status.contains("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{thread}: {status}");
    }
    let without = config("").replace("recordings = ", "#recordings = ");
    let daemon = Daemon::start_with(&ENOUGH, &without);
    wait_until_known(&daemon, &heap);
    let written = fs::read_to_string(daemon.config()).expect("it is there");
    let with = written.replace("#recordings = ", "recordings = ").replace("20%", "10%");
    fs::write(daemon.config(), with).expect("it can be written");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until("the new configuration", |daemon| {
        (daemon.metric("memtrace_walk_budget_ratio") == Some(0.1)).then_some(())
    });
    let (status, problem) = start(&daemon, &heap, "1s");
    let detail = problem["detail"].as_str().expect("text");
    assert!(status >= 400 && detail.contains("no folder"), "{status}: {problem}");
}

fn records_by_request(heap: &Heap, daemon: &Daemon) {
    wait_until_known(daemon, heap);
    let (status, begun) = start(daemon, heap, "1h");
    assert_eq!(status, 201, "{begun}");
    assert_valid("a recording", "/components/schemas/Recording", &begun);
    let all = daemon.get_json("/api/v1/recordings");
    assert_valid("recordings", "/components/schemas/Recordings", &all);
    let id = begun["id"].as_str().expect("a name").to_owned();
    assert!(id.starts_with("tested_heap-"), "{id}");
    let path = format!("/api/v1/recordings/{id}");
    assert_eq!(start(daemon, heap, "1s").0, 409, "it is being recorded");
    assert_eq!(ask(daemon, "DELETE", &path).0, 409);
    assert_eq!(ask(daemon, "GET", &format!("{path}/trace")).0, 409);
    let partial = partial(daemon, &id);
    daemon
        .wait_until("a trace", |_| fs::metadata(&partial).is_ok_and(|f| f.len() > 0).then_some(()));

    assert_eq!(ask(daemon, "POST", &format!("{path}/stop")).0, 202);
    let done = wait_for(daemon, &id, "done");
    assert_eq!(ask(daemon, "POST", &format!("{path}/stop")).0, 409);
    let trace = daemon.get_bytes(&format!("{path}/trace"));
    assert_eq!(done["bytes"], trace.len());
    assert_eq!(replayed(&trace), [heap.pid()]);
    assert!(fs::metadata(&partial).is_err(), "nothing is left over");

    assert_eq!(ask(daemon, "DELETE", &path).0, 204);
    assert_eq!(ask(daemon, "DELETE", &path).0, 404);
    assert_eq!(list(daemon), Vec::<Value>::new());
    let folder = partial.parent().expect("it is in one");
    assert_eq!(fs::read_dir(folder).expect("it is there").count(), 0);
    for (path, expected) in [
        ("/api/v1/processes/4194305/recordings", 404),
        ("/api/v1/processes/x/recordings", 400),
        (&*format!("/api/v1/processes/{}/recordings?duration=2h", heap.pid()), 400),
        (&*format!("/api/v1/processes/{}/recordings?duration=-1s", heap.pid()), 400),
        (&*format!("/api/v1/processes/{}/recordings?folder=/etc", heap.pid()), 400),
        ("/api/v1/recordings/..%2F..%2Fetc%2Fpasswd/stop", 404),
    ] {
        assert_eq!(ask(daemon, "POST", path).0, expected, "{path}");
    }
}

pub(crate) fn by_rule() {
    let heap = Heap::start();
    let rule = format!(
        "[[rules]]\nwhen = \"freed_not_reclaimed > 20M\"\nfor = \"1s\"\nrecord = \"500ms\"\nonly = [\"{HEAP}\"]\n"
    );
    let daemon = daemon(&rule);
    let begun = daemon.wait_until("a recording", |daemon| list(daemon).pop());
    assert_eq!(begun["rule"], "freed_not_reclaimed > 20971520");
    let id = begun["id"].as_str().expect("a name");
    wait_for(&daemon, id, "done");
    let trace = daemon.get_bytes(&format!("/api/v1/recordings/{id}/trace"));
    assert_eq!(replayed(&trace), [heap.pid()]);
    // It is as it was, which is no news at the next reading.
    let read = |daemon: &Daemon| daemon.get_json("/api/v1/processes")["time_ns"].as_u64();
    let before = read(&daemon);
    daemon.wait_until("two readings", |daemon| {
        (read(daemon) > before.map(|ns| ns + 400_000_000)).then_some(())
    });
    assert_eq!(list(&daemon).len(), 1);
}

pub(crate) fn killed() {
    let heap = Heap::start();
    let mut daemon = daemon("");
    wait_until_known(&daemon, &heap);
    let (_, begun) = start(&daemon, &heap, "1h");
    let id = begun["id"].as_str().expect("a name").to_owned();
    let partial = partial(&daemon, &id);
    daemon
        .wait_until("a trace", |_| fs::metadata(&partial).is_ok_and(|f| f.len() > 0).then_some(()));
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    daemon.wait_until("the end of its recording", |_| (!is_being_made(&partial)).then_some(()));
    daemon.start_again();
    // It was told to end, and had the time to.
    let known = list(&daemon);
    assert_eq!(known[0]["id"], *id);
    assert_eq!(known[0]["state"], "done");
    assert!(fs::metadata(&partial).is_err(), "nothing is left over");
    let trace = daemon.get_bytes(&format!("/api/v1/recordings/{id}/trace"));
    assert_eq!(replayed(&trace), [heap.pid()]);
}

/// Tells whether a program runs that was started for this file.
fn is_being_made(partial: &Path) -> bool {
    let entries = fs::read_dir("/proc").expect("it is there").flatten();
    entries.into_iter().any(|entry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*partial.to_string_lossy()))
    })
}

pub(crate) fn no_room() {
    let heap = Heap::start();
    let daemon = daemon("recording_size = \"1000000G\"\n");
    wait_until_known(&daemon, &heap);
    let (status, problem) = start(&daemon, &heap, "1s");
    assert_eq!(status, 500);
    assert!(problem["detail"].as_str().expect("text").contains("bytes free"), "{problem}");
    assert_eq!(list(&daemon), Vec::<Value>::new());
}

pub(crate) fn full_disk() {
    let mut heap = Heap::start();
    let disk = Disk::new("1M");
    let daemon = Daemon::start(
        &config("recording_size = \"64K\"\n")
            .replace("FOLDER/recordings", disk.path().to_str().expect("a path")),
    );
    wait_until_known(&daemon, &heap);
    let (status, begun) = start(&daemon, &heap, "1h");
    assert_eq!(status, 201, "{begun}");
    let id = begun["id"].as_str().expect("a name");
    let partial = disk.path().join(format!("{id}.partial"));
    daemon
        .wait_until("a trace", |_| fs::metadata(&partial).is_ok_and(|f| f.len() > 0).then_some(()));
    disk.fill();
    // More than fits into the last page of the trace.
    heap.work(50_000);
    let failed = wait_for(&daemon, id, "failed");
    assert!(failed["why_not"].as_str().expect("text").contains("No space"), "{failed}");
    assert!(!partial.exists(), "it takes no room");
    assert_eq!(daemon.get("/healthz").0, 200);
}
