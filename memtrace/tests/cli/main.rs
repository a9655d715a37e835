//! What the command line does with bad input: one sentence, one hint, the right exit code, and
//! nothing on stdout. No test here needs root: those that do are in `run.rs`.

#[path = "../common/copied.rs"]
mod copied;
mod cores;
mod reports;

use std::{
    ffi::OsStr,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use assert_cmd::assert::Assert;
use nix::{
    sys::wait::{Id, WaitPidFlag, waitid},
    unistd::{Pid, geteuid, gettid},
};

use self::copied::copied;

const MEMTRACE: &str = env!("CARGO_BIN_EXE_memtrace");
/// One more than the largest PID that a kernel gives (`PID_MAX_LIMIT`, include/linux/threads.h).
const NO_SUCH_PID: &str = "4194304";

fn memtrace<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(MEMTRACE);
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it. What is taken for good input may trace for ever.
fn run(command: Command) -> Assert {
    assert_cmd::Command::from_std(command).timeout(Duration::from_secs(60)).assert()
}

/// Runs it and asserts that it says one sentence and one hint. Returns the sentence.
#[track_caller]
fn refused(command: Command, code: i32) -> String {
    let assert = run(command).code(code).stdout("");
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    let lines: Vec<&str> = stderr.lines().collect();
    let &[sentence, hint] = lines.as_slice() else {
        panic!("not one sentence and one hint: {stderr}")
    };
    assert!(hint.starts_with("hint: "), "{stderr}");
    let sentence = sentence.strip_prefix("memtrace: ").unwrap_or_else(|| panic!("{stderr}"));
    sentence.to_owned()
}

/// As [`refused`], for what clap finds: its own words, exit code 2. Returns the first line.
#[track_caller]
fn misused<const N: usize>(args: [&str; N]) -> String {
    let assert = run(memtrace(args)).code(2).stdout("");
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert!(stderr.ends_with("For more information, try '--help'.\n"), "{stderr}");
    stderr.lines().next().expect("not empty").to_owned()
}

#[test]
fn attach_needs_a_process_that_exists() {
    for command in ["attach", "maps", "report"] {
        let sentence = refused(memtrace([command, NO_SUCH_PID]), 1);
        assert_eq!(sentence, format!("there is no process {NO_SUCH_PID}"));
    }
}

#[test]
fn nobody_is_quiet_and_verbose() {
    for args in [["-q", "maps", "-v", "1"], ["maps", "-qv", "1", "--"]] {
        let sentence = refused(memtrace(args), 2);
        assert_eq!(sentence, "--quiet and --verbose ask for opposite things");
    }
}

#[test]
fn a_quiet_failure_is_one_sentence() {
    let sentence = format!("memtrace: there is no process {NO_SUCH_PID}\n");
    run(memtrace(["maps", "--quiet", NO_SUCH_PID])).code(1).stdout("").stderr(sentence);
}

#[test]
fn top_needs_a_terminal() {
    let sentence = refused(memtrace(["top"]), 2);
    assert_eq!(sentence, "top needs a terminal to show something on and to read keys from");
    let sentence = refused(memtrace(["top", "--format", "json"]), 2);
    assert_eq!(sentence, "top is a view on a terminal: it writes no report");
}

#[test]
fn pid_0_is_not_a_process() {
    let sentence = refused(memtrace(["attach", "0"]), 2);
    assert_eq!(sentence, "PID 0 is the kernel's idle task, not a process");
}

#[test]
fn a_thread_is_refused_with_the_pid_of_its_process() {
    let (announce, announced) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        announce.send(gettid()).expect("the test listens");
        let _ = ended.recv();
    });
    let tid = announced.recv().expect("the thread runs");
    let sentence = refused(memtrace(["attach", &tid.to_string()]), 2);
    drop(end);
    thread.join().expect("the thread ends");
    assert_eq!(sentence, format!("{tid} is a thread of process {}", std::process::id()));
}

#[test]
fn a_zombie_has_no_memory_any_more() {
    let mut zombie = Command::new("true").spawn().expect("true runs");
    let id = Id::Pid(Pid::from_raw(zombie.id() as i32));
    waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("it exits");
    let sentence = refused(memtrace(["attach", &zombie.id().to_string()]), 1);
    zombie.wait().expect("it exited");
    let expected = format!("process {} (true) exited already: its memory is gone", zombie.id());
    assert_eq!(sentence, expected);
}

#[test]
fn memtrace_does_not_trace_itself() {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" attach $$", MEMTRACE]);
    let sentence = refused(command, 2);
    assert!(sentence.ends_with(" is memtrace itself"), "{sentence}");
}

#[test]
fn a_report_is_of_processes_or_of_a_core_file() {
    assert!(misused(["report"]).contains("required"));
    assert!(misused(["report", "--core", "core", "1"]).contains("cannot be used with"));
    assert!(misused(["report", "--core", "core", "--exact"]).contains("cannot be used with"));
}

#[test]
fn run_needs_a_command() {
    assert!(misused(["run"]).contains("required"));
    assert!(misused(["run", "--"]).contains("required"));
}

#[test]
fn remanence_needs_frames() {
    let pid = std::process::id().to_string();
    for level in ["args", "rss"] {
        let options = ["--remanence", "--evidence", level];
        for command in [&["run"][..], &["attach"]] {
            let what = if command == ["run"] { "true" } else { &pid };
            let sentence = refused(memtrace([command, &options, &[what]].concat()), 2);
            assert!(sentence.starts_with("--remanence is about frames"), "{sentence}");
        }
    }
}

#[test]
fn call_stacks_are_written_only_where_they_are_sampled() {
    for format in ["folded", "flamegraph"] {
        let usage = |args: &[&str]| {
            let mut command = memtrace(args);
            command.args(["--format", format]);
            refused(command, 2)
        };
        let start = format!("--format {format} shows call stacks, which ");
        let not_sampled = start.clone() + "this command does not sample";
        for args in [&["maps", "1"][..], &["report", "1"], &["doctor"], &["ledger"]] {
            assert_eq!(usage(args), not_sampled);
        }
        let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/python.trace");
        let untold = refused(memtrace(["replay", trace, "--format", format]), 1);
        assert_eq!(untold, "the trace has no call stacks");
        for args in [["attach", "1"], ["run", "true"]] {
            assert_eq!(
                refused(
                    {
                        let mut command = memtrace([args[0], "--format", format]);
                        command.arg(args[1]);
                        command
                    },
                    2
                ),
                start.clone() + "are sampled with --stacks only"
            );
        }
        let events =
            refused(memtrace(["run", "--stacks", "--events", "--format", format, "--", "true"]), 2);
        assert!(events.starts_with("--events writes lines"), "{events}");
        let exited = refused(
            memtrace(["run", "--stacks", "--flame=freed-resident", "--format", format, "true"]),
            2,
        );
        assert!(exited.starts_with("what is resident is not known"), "{exited}");
    }
    assert!(misused(["run", "--flame", "freed", "--", "true"]).contains("required"));
}

#[test]
fn what_a_flame_graph_shows_is_taken() {
    let flame = |stacks: &str, flame: &str| {
        refused(memtrace(["run", stacks, "--flame", flame, "--", "true"]), 2)
    };
    for (stacks, measure, kind) in [
        ("--stacks", "reclaimed", "reclaimed"),
        ("--stacks=allocations", "faults", "faults"),
        ("--stacks=reclaimed,allocations", "faults", "faults"),
        ("--stacks=faults", "retained", "allocations"),
        ("--stacks=faults,reclaimed", "freed-resident", "allocations"),
    ] {
        let wanted =
            format!("--flame {measure} shows call stacks that are taken with --stacks={kind} only");
        assert_eq!(flame(stacks, measure), wanted);
    }
    let unknown = misused(["run", "--stacks=frees", "--", "true"]);
    assert!(unknown.contains("invalid value 'frees'"), "{unknown}");
}

#[test]
fn an_empty_command_is_refused() {
    assert_eq!(refused(memtrace(["run", "--", ""]), 2), "the command is empty");
}

#[test]
fn a_command_that_is_not_found_gives_127() {
    for name in ["memtrace-has-no-such-command", "./no/such/file"] {
        let sentence = refused(memtrace(["run", "--", name]), 127);
        assert_eq!(sentence, format!("cannot find the command {name}"));
    }
}

#[test]
fn a_folder_of_a_folder_in_path_is_no_command() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("command")).expect("a folder in it");
    let mut command = memtrace(["run", "--", "command"]);
    command.env("PATH", folder.path());
    refused(command, 127);
}

#[test]
fn a_file_that_is_not_executable_gives_126() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().display().to_string();
    let sentence = refused(memtrace(["run", "--", &path]), 126);
    assert_eq!(sentence, format!("cannot execute {path}: it is not an executable file"));
}

#[test]
fn a_directory_is_no_command() {
    let sentence = refused(memtrace(["run", "--", "/"]), 126);
    assert_eq!(sentence, "cannot execute /: it is a directory");
}

#[test]
fn an_unknown_option_is_not_taken_for_the_command() {
    for args in [["run", "--bogus", "true"], ["attach", "--bogus", "1"], ["maps", "--bogus", "1"]] {
        assert_eq!(misused(args), "error: unexpected argument '--bogus' found");
    }
}

#[test]
fn an_unknown_user_is_refused() {
    let sentence = refused(memtrace(["run", "--user", "no-such-user", "--", "true"]), 2);
    assert_eq!(sentence, "there is no user no-such-user");
}

#[test]
fn a_report_needs_a_file_that_can_be_written() {
    let me = std::process::id().to_string();
    let sentence = refused(memtrace(["maps", &me, "-o", "/no/such/folder/report"]), 1);
    assert!(sentence.starts_with("cannot write to /no/such/folder/report: "), "{sentence}");
}

#[test]
fn a_buffer_that_the_kernel_would_refuse_is_refused_first() {
    for size in ["3K", "0", "1K", "8G", "-1", "x", ""] {
        let line = misused(["run", &format!("--buffer={size}"), "--", "true"]);
        assert!(line.contains("for '--buffer <SIZE>': must be"), "{line}");
    }
}

#[test]
fn a_duration_that_never_ends_or_never_begins_is_refused() {
    for time in ["0", "-1s", "1d", "inf", "nan", ""] {
        let line = misused(["attach", &format!("--duration={time}"), "1"]);
        assert!(line.contains("for '--duration <TIME>': must be"), "{line}");
    }
}

#[test]
fn a_pid_is_a_number() {
    for pid in ["init", "1.5", "99999999999"] {
        assert!(misused(["attach", pid]).contains("for '<PID>...'"));
    }
}

#[test]
fn tracing_without_privileges_says_how_to_get_them() {
    // Where the build lies, another user may not look.
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let copy = copied(MEMTRACE, folder.path());
    let me = std::process::id().to_string();
    for args in [&["run", "--", "true"][..], &["attach", &me], &["doctor"]] {
        let sentence = refused(unprivileged(&copy, args), 1);
        assert_eq!(sentence, "tracing needs root, or CAP_BPF and CAP_PERFMON");
    }
}

/// Returns a command that runs as `nobody` where this is root.
fn unprivileged(program: &Path, args: &[&str]) -> Command {
    const NOBODY: u32 = 65534;
    let mut command = Command::new(program);
    command.args(args).current_dir("/");
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}
