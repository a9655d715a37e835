//! The daemon as its users meet it. Needs root; counts every process of the machine for a moment, and walks
//! a program of its own.

mod budget;
#[path = "../common/churn.rs"]
mod churn;
mod connect;
#[path = "../common/copied.rs"]
mod copied;
mod crowd;
mod daemon;
#[path = "../common/disk.rs"]
mod disk;
#[expect(dead_code, reason = "others have use for more of it")]
#[path = "../common/group.rs"]
mod group;
mod kubernetes;
mod openapi;
mod otlp;
mod packaging;
mod privileges;
#[expect(dead_code, reason = "others have use for more of it")]
#[path = "../run/program.rs"]
mod program;
mod prometheus;
#[path = "../common/python.rs"]
mod python;
mod recordings;
#[expect(dead_code, reason = "others have use for more of it")]
#[path = "../run/terminal.rs"]
mod terminal;
#[path = "../common/trial.rs"]
mod trial;
mod unit;

use std::{fs, io::Write as _, process::ExitCode};

use libtest_mimic::{Arguments, Completion, Trial};
use nix::sys::signal::Signal;

use self::{
    daemon::{Daemon, HEAP, Heap, metric},
    trial::{anywhere, has_program, without},
};

fn main() -> ExitCode {
    if crowd::play() {
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // Each counts the whole machine.
    arguments.test_threads.get_or_insert(1);
    let mut trials = vec![
        rooted("metrics_page_and_report_have_the_same_figures", the_same_figures),
        rooted("a_token_lets_in_and_nothing_else_does", token),
        rooted("a_configuration_is_read_again", read_again),
        rooted("what_is_no_request_is_refused", no_request),
        rooted("a_thousand_idle_connections_shut_nobody_out", idle),
        rooted("a_killed_daemon_leaves_nothing_in_the_way", killed),
        rooted("a_reading_of_two_thousand_processes_is_cheap", crowd::is_cheap),
        rooted("little_memory_is_enough_for_two_thousand_processes", crowd::fits),
        rooted("many_may_ask_at_once", crowd::may_ask),
        rooted("a_process_is_recorded_by_request", recordings::by_request),
        with(Some("setpriv"), "an_ordinary_user_records", recordings::by_a_user),
        rooted("a_process_is_recorded_by_rule", recordings::by_rule),
        rooted("a_killed_daemon_leaves_whole_recordings", recordings::killed),
        rooted("nothing_is_recorded_where_there_is_no_room", recordings::no_room),
        rooted("a_disk_that_fills_up_ends_a_recording", recordings::full_disk),
        rooted("more_is_left_out_until_the_budget_is_kept", budget::is_kept),
        rooted("it_is_measured_how_long_probes_run", budget::probes_are_measured),
        rooted("a_report_is_asked_of_the_daemon", connect::report),
        with(Some("tmux"), "the_live_view_is_asked_of_the_daemon", connect::top),
        with(
            Some("setpriv"),
            "an_ordinary_user_with_capabilities_counts_and_walks",
            privileges::enough,
        ),
        with(Some("setpriv"), "what_lacks_a_capability_is_off_and_it_says_so", privileges::lacking),
        with(Some("setpriv"), "no_thread_keeps_what_it_needs_no_more", privileges::given_up),
        with(Some("systemd-analyze"), "systemd_finds_no_fault_with_the_unit", unit::verify),
        with(Some("systemd-analyze"), "the_unit_exposes_no_more_than_the_docs_say", unit::exposure),
        with_all(
            vec!["systemd-analyze", "strace"],
            "the_unit_lets_every_call_through",
            unit::filter,
        ),
        with(Some("prometheus"), "prometheus_reads_the_figures_of_the_report", prometheus::reads),
        with(Some("promtool"), "promtool_finds_no_fault", prometheus::check),
        rooted("metrics_of_the_dashboard_and_the_alerts_are_there", packaging::metrics_are_there),
        anywhere("panels_of_the_dashboard_are_apart", packaging::panels_are_apart),
        with(Some("promtool"), "alerts_fire_when_they_should", packaging::rules),
        rooted("a_receiver_of_otlp_has_the_figures_of_the_page", otlp::the_same_figures),
        rooted("a_receiver_of_otlp_that_is_not_there_harms_nobody", otlp::nobody_there),
        rooted("answers_are_as_openapi_describes_them", openapi::answers_are_as_described),
        rooted_unless(
            || (!openapi::has_schemathesis()).then_some("schemathesis"),
            "a_fuzzer_of_openapi_finds_no_fault",
            openapi::fuzzed,
        ),
    ];
    trials.extend(kubernetes::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn rooted(name: &str, test: fn()) -> Trial {
    rooted_unless(|| None, name, test)
}

/// A test that needs a program as well.
fn with(program: Option<&'static str>, name: &str, test: fn()) -> Trial {
    with_all(program.into_iter().collect(), name, test)
}

/// A test that needs several.
fn with_all(programs: Vec<&'static str>, name: &str, test: fn()) -> Trial {
    let missing = move || programs.iter().copied().find(|program| !has_program(program));
    rooted_unless(missing, name, test)
}

/// A test that needs something which may be missing.
fn rooted_unless(
    missing: impl Fn() -> Option<&'static str> + Send + 'static,
    name: &str,
    test: fn(),
) -> Trial {
    Trial::ignorable_test(name, move || {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root"));
        }
        if let Some(what) = missing() {
            return without(what);
        }
        test();
        Ok(Completion::Completed)
    })
}

/// A daemon on a port of its own that walks the tests' program alone.
fn daemon() -> Daemon {
    daemon_with("")
}

/// The same, with more of a configuration.
fn daemon_with(more: &str) -> Daemon {
    Daemon::start(&format!("{}{more}", config()))
}

fn config() -> String {
    format!(
        "listen = \"127.0.0.1:0\"\ninterval = \"200ms\"\nwalk_only = [\"{HEAP}\"]\nwalk_budget = \"20%\"\n"
    )
}

fn the_same_figures() {
    let heap = Heap::start();
    let daemon = daemon();
    assert_eq!(daemon.get("/healthz"), (200, "ok\n".to_owned()));
    daemon.wait_until_ready();
    let report = daemon.report_of(&heap);
    let process = &report["processes"][0];
    let free = process["memory"]["freed_not_reclaimed"]["allocator"].as_u64().expect("it is known");
    assert!(free > 40 << 20, "{process}");
    let pid = heap.pid();
    let told = |daemon: &Daemon, name: &str| {
        let page = daemon.get("/metrics").1;
        let start = format!("memtrace_process_{name}{{pid=\"{pid}\",comm=\"{HEAP}\"");
        let line = page.lines().find(|line| line.starts_with(&start))?;
        line.rsplit_once(' ')?.1.parse::<u64>().ok()
    };
    let allocator = daemon
        .wait_until("its metrics", |daemon| told(daemon, "freed_not_reclaimed_allocator_bytes"));
    assert_eq!(allocator, free);
    assert_eq!(told(&daemon, "live_bytes"), process["memory"]["live"].as_u64());
    // The sums have it as well, and nothing else was walked.
    let page = daemon.get("/metrics").1;
    assert_eq!(metric(&page, "memtrace_machine_walked_processes"), Some(1.0));
    assert_eq!(
        metric(&page, "memtrace_machine_freed_not_reclaimed_allocator_bytes"),
        Some(free as f64)
    );
    let processes = daemon.get_json("/api/v1/processes");
    let known = processes["processes"].as_array().expect("a list").iter();
    let one = known.clone().find(|process| process["tgid"] == pid).expect("it is there");
    assert_eq!(one["freed_not_reclaimed"]["allocator"], free);
    assert!(known.clone().all(|other| other["tgid"] == pid || other["looked_ns"].is_null()));
    let regions = daemon.get_json(&format!("/api/v1/processes/{pid}/regions"));
    assert_eq!(regions["regions"], process["regions"]);
    let (status, page) = daemon.get(&format!("/api/v1/processes/{pid}/page"));
    assert!(status == 200 && page.starts_with("<!DOCTYPE html>"), "{page}");
    for (path, status) in [
        ("/", 404),
        ("/api/v1/processes/x", 400),
        ("/api/v1/processes/4194305", 404),
        (&*format!("/api/v1/processes/{}", std::process::id()), 503),
    ] {
        let (found, body) = daemon.get(path);
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains("\"detail\":"), "{body}");
    }
}

fn token() {
    const TOKEN: &str = "0123456789abcdef0123";
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).expect("it can be written");
    let config = format!("listen = \"unix:SOCKET\"\ntoken_file = {file:?}\nwalk_budget = \"0%\"\n");
    let daemon = Daemon::start(&config);
    let asks = |path: &str, header: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
        daemon.ask(&request).0
    };
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/metrics", "/api/v1/processes", "/api/v1/processes/1/page"] {
        assert_eq!(asks(path, ""), 401, "{path}");
        assert_eq!(asks(path, "Authorization: Bearer wrong\r\n"), 401, "{path}");
        assert_ne!(asks(path, &bearer), 401, "{path}");
    }
    assert_eq!(asks("/healthz", ""), 200);
    assert_eq!(asks("/metrics", &bearer), 200);
}

fn read_again() {
    let daemon = daemon();
    let budget = |daemon: &Daemon| daemon.metric("memtrace_walk_budget_ratio");
    daemon.wait_until("the budget", |daemon| (budget(daemon) == Some(0.2)).then_some(()));
    let config = fs::read_to_string(daemon.config()).expect("it is there");
    fs::write(daemon.config(), config.replace("20%", "10%")).expect("it can be written");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until("the new budget", |daemon| (budget(daemon) == Some(0.1)).then_some(()));
    // What is wrong changes nothing.
    fs::write(daemon.config(), "walk_budget = 3").expect("it can be written");
    daemon.signal(Signal::SIGHUP);
    let walks = daemon.metric("memtrace_self_cpu_seconds_total");
    daemon.wait_until("another reading", |daemon| {
        (daemon.metric("memtrace_self_cpu_seconds_total") > walks).then_some(())
    });
    assert_eq!(budget(&daemon), Some(0.1));
}

fn no_request() {
    let daemon = daemon();
    let long = "x".repeat(40_000);
    for (request, expected) in [
        ("\r\n\r\nnonsense\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"), 431),
        ("DELETE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 405),
        (
            "GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                .to_owned(),
            404,
        ),
        ("\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), 400),
    ] {
        let (status, body) = daemon.ask(&request);
        assert_eq!(status, expected, "{:?}: {body}", &request[..request.len().min(60)]);
    }
    assert_eq!(daemon.get("/healthz").0, 200);
}

fn idle() {
    let daemon = daemon();
    daemon.wait_until_ready();
    let before = daemon.resident();
    let mut idle: Vec<_> = (0..1000).map(|_| daemon.connect()).collect();
    for stream in &mut idle {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").expect("it takes it");
    }
    assert_eq!(daemon.get("/healthz").0, 200);
    assert_eq!(daemon.get("/metrics").0, 200);
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{} KiB more for 1000 connections", grown >> 10);
    // They are closed when the head of their request does not come.
    let mut last = idle.pop().expect("there are some");
    let mut answer = Vec::new();
    last.read_to_end(&mut answer).expect("it is closed, not kept");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

fn killed() {
    let mut daemon = Daemon::start("listen = \"unix:SOCKET\"\nwalk_budget = \"0%\"\n");
    let socket = daemon.address.clone();
    assert_eq!(daemon.get("/healthz").0, 200);
    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.wait(), None);
    assert!(fs::metadata(&socket).is_ok(), "nobody takes it away");
    daemon.start_again();
    assert_eq!(daemon.get("/healthz").0, 200);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(), Some(0));
    assert!(fs::metadata(&socket).is_err(), "it takes its socket away");
    // What is not a socket stays.
    fs::write(&socket, "mine").expect("it can be written");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_memtrace"))
        .args(["serve", "--config"])
        .arg(daemon.config())
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read_to_string(&socket).expect("it is there"), "mine");
}
