//! `run` and `attach` on real programs: what memtrace leaves alone, where its report goes, and how
//! it ends. Needs root; a test that this machine cannot run is ignored with the reason.
//!
//! Not here: whether the figures are right. That is `tests/kernel`.

#[expect(dead_code, reason = "others have use for more of it")]
#[path = "../common/disk.rs"]
mod disk;
mod full_disk;
mod program;
mod progress;
mod terminal;
mod top;
#[expect(dead_code, reason = "others have use for more of it")]
#[path = "../common/trial.rs"]
mod trial;

use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, ExitCode},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::{
    sys::signal::Signal,
    unistd::{User, geteuid},
};
use serde_json::Value;

use self::program::*;

type Outcome = Result<Completion, Failed>;

fn main() -> ExitCode {
    match env::var_os(WORKLOAD) {
        Some(name) if name == HEAP => {
            return if fill_the_heap().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Some(_) => {
            map_touch_and_unmap();
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    let mut arguments = Arguments::from_args();
    // Loading probes is work for the kernel: more at a time only makes each slower.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let trials = vec![
        anywhere("top::keys_do_what_they_say", || top::in_terminal(top::keys_do_what_they_say)),
        anywhere("top::a_signal_gives_the_terminal_back", || {
            top::in_terminal(top::a_signal_gives_the_terminal_back)
        }),
        anywhere("top::it_goes_to_the_background_and_comes_back", || {
            top::in_terminal(top::it_goes_to_the_background_and_comes_back)
        }),
        anywhere(
            "progress::a_long_replay_says_so_and_leaves_the_terminal_clean",
            progress::a_long_replay_says_so_and_leaves_the_terminal_clean,
        ),
        anywhere("progress::a_quiet_replay_does_not", progress::a_quiet_replay_does_not),
        anywhere("progress::no_progress_goes_into_a_pipe", progress::no_progress_goes_into_a_pipe),
        anywhere(
            "progress::a_large_heap_is_walked_by_parts_that_are_told",
            progress::a_large_heap_is_walked_by_parts_that_are_told,
        ),
        Trial::ignorable_test("progress::a_command_has_the_terminal_for_itself", || {
            cannot_trace().map_or_else(progress::a_command_has_the_terminal_for_itself, |why| {
                Ok(Completion::ignored_with(why))
            })
        }),
        anywhere("a_kernel_thread_has_no_address_space", a_kernel_thread_has_no_address_space),
        traced(
            "the_commands_stdin_and_stdout_are_its_own",
            the_commands_stdin_and_stdout_are_its_own,
        ),
        traced("the_exit_code_is_the_commands", the_exit_code_is_the_commands),
        traced("the_command_runs_in_the_same_folder", the_command_runs_in_the_same_folder),
        traced(
            "options_behind_the_command_are_the_commands",
            options_behind_the_command_are_the_commands,
        ),
        traced("the_report_goes_to_stderr", the_report_goes_to_stderr),
        traced(
            "the_report_goes_to_the_file_that_was_named",
            the_report_goes_to_the_file_that_was_named,
        ),
        traced("the_json_report_keeps_to_its_schema", the_json_report_keeps_to_its_schema),
        traced(
            "an_operation_is_streamed_with_its_figures",
            an_operation_is_streamed_with_its_figures,
        ),
        traced("the_stream_is_json_where_asked", the_stream_is_json_where_asked),
        traced(
            "the_command_runs_as_the_user_that_was_named",
            the_command_runs_as_the_user_that_was_named,
        ),
        traced("a_missing_interpreter_gives_127", a_missing_interpreter_gives_127),
        traced(
            "a_report_that_cannot_be_written_stops_before_the_command",
            a_report_that_cannot_be_written_stops_before_the_command,
        ),
        traced(
            "full_disk::the_report_is_written_all_the_same",
            full_disk::the_report_is_written_all_the_same,
        ),
        traced("full_disk::a_recording_ends", full_disk::a_recording_ends),
        traced("sigterm_reaches_the_command", sigterm_reaches_the_command),
        traced("the_command_outlives_a_killed_memtrace", the_command_outlives_a_killed_memtrace),
        traced("attach_ends_when_the_process_exits", attach_ends_when_the_process_exits),
        traced("attach_ends_after_its_duration", attach_ends_after_its_duration),
        traced("verify_agrees_with_the_kernel", || verify(&[])),
        traced("verify_lets_a_stopped_process_run_on", || verify(&["--stop"])),
        traced(
            "a_killed_verify_leaves_no_process_stopped",
            a_killed_verify_leaves_no_process_stopped,
        ),
        traced("verify_of_a_process_that_exits_says_so", verify_of_a_process_that_exits_says_so),
        traced("sigint_ends_attach_with_a_report", || {
            a_signal_ends_attach_with_a_report(Signal::SIGINT)
        }),
        traced("sigterm_ends_attach_with_a_report", || {
            a_signal_ends_attach_with_a_report(Signal::SIGTERM)
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn anywhere(name: &str, test: fn() -> Outcome) -> Trial {
    Trial::ignorable_test(name, test)
}

/// A test that attaches probes.
fn traced(name: &str, test: fn() -> Result<(), Failed>) -> Trial {
    Trial::ignorable_test(name, move || match cannot_trace() {
        Some(why) => Ok(Completion::ignored_with(why)),
        None => test().map(|()| Completion::Completed),
    })
}

fn cannot_trace() -> Option<&'static str> {
    if !geteuid().is_root() {
        return Some("needs root");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF (/sys/kernel/btf/vmlinux)");
    }
    None
}

fn a_kernel_thread_has_no_address_space() -> Outcome {
    if !fs::read_to_string("/proc/2/comm").is_ok_and(|comm| comm == "kthreadd\n") {
        return Ok(Completion::ignored_with("optional: this PID namespace has no kernel thread"));
    }
    let output = memtrace(["attach", "2"]).output()?;
    let stderr = text(&output.stderr);
    let sentence = "memtrace: 2 (kthreadd) is a kernel thread: it has no address space\n";
    check(stderr.starts_with(sentence) && stderr.contains("\nhint: "), stderr)?;
    is(output.status.code(), Some(2))?;
    Ok(Completion::Completed)
}

fn the_commands_stdin_and_stdout_are_its_own() -> Result<(), Failed> {
    let mut running = Running::start(memtrace(["run", "--", "cat"]))?;
    running.stdin()?.write_all(b"x")?;
    let output = running.finish()?;
    is(text(&output.stdout), "x".to_owned())
}

fn the_exit_code_is_the_commands() -> Result<(), Failed> {
    for (script, code) in [("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137)] {
        let output = finish(memtrace(["run", "--", "sh", "-c", script]))?;
        is(output.status.code(), Some(code))?;
    }
    Ok(())
}

fn the_command_runs_in_the_same_folder() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let mut command = memtrace(["run", "--", "pwd", "-P"]);
    command.current_dir(&folder);
    let output = finish(command)?;
    is(text(&output.stdout), format!("{}\n", fs::canonicalize(&folder)?.display()))
}

fn options_behind_the_command_are_the_commands() -> Result<(), Failed> {
    for dashes in [&["--"][..], &[]] {
        let args = [&["run"][..], dashes, &["echo", "--format", "-o", "--"]].concat();
        is(text(&finish(memtrace(args))?.stdout), "--format -o --\n".to_owned())?;
    }
    Ok(())
}

fn the_report_goes_to_stderr() -> Result<(), Failed> {
    let output = finish(memtrace(["run", "--", "true"]))?;
    is(text(&output.stdout), String::new())?;
    let stderr = text(&output.stderr);
    check(stderr.starts_with("true (pid "), stderr.as_str())?;
    check(stderr.contains("exited with 0") && stderr.contains("none lost"), stderr)
}

fn the_report_goes_to_the_file_that_was_named() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("report");
    let output =
        finish(memtrace([OsStr::new("run"), "-o".as_ref(), file.as_ref(), "true".as_ref()]))?;
    is(text(&output.stderr), String::new())?;
    let report = fs::read_to_string(file)?;
    check(report.starts_with("true (pid "), report)
}

fn the_json_report_keeps_to_its_schema() -> Result<(), Failed> {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/report.schema.json"))?;
    let output = finish(workload(["run", "--format", "json"])?)?;
    let report: Value = serde_json::from_slice(&output.stderr)?;
    is(&report["schema"], &Value::from("memtrace.report/1"))?;
    if let Err(error) = jsonschema::validate(&schema, &report) {
        return Err(error.to_string().into());
    }
    let [process] = report["processes"].as_array().ok_or("no processes")?.as_slice() else {
        return Err("not one process".into());
    };
    is(&process["state"], &Value::from("exited"))?;
    is(&process["exit_code"], &Value::from(0))
}

fn an_operation_is_streamed_with_its_figures() -> Result<(), Failed> {
    let stderr = text(&finish(workload(["run", "--events"])?)?.stderr);
    let line = |what: &str| stderr.lines().any(|line| line.contains(what));
    check(line("munmap "), stderr.as_str())?;
    check(line("4.0 MiB  zapped 1.0 MiB  freed "), stderr.as_str())?;
    check(line("exec "), stderr.as_str())?;
    check(line("+++ exited with 0 +++"), stderr)
}

fn the_stream_is_json_where_asked() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("report").display().to_string();
    let output = finish(workload(["run", "--events", "--format", "json", "-o", &file])?)?;
    let stderr = text(&output.stderr);
    let events: Vec<Value> = stderr.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let unmapped = events
        .iter()
        .find(|event| event["call"] == "munmap" && event["requested"] == WORKLOAD_MAPPED);
    let event = unmapped.ok_or_else(|| format!("no munmap of the workload in {stderr}"))?;
    is(&event["zapped"], &Value::from(WORKLOAD_TOUCHED))?;
    is(&event["path"], &Value::from("munmap"))
}

fn the_command_runs_as_the_user_that_was_named() -> Result<(), Failed> {
    let nobody = User::from_name("nobody")?.ok_or("there is no user nobody")?;
    let output = finish(memtrace(["run", "--user", "nobody", "--", "id", "-u"]))?;
    is(text(&output.stdout), format!("{}\n", nobody.uid))
}

fn a_missing_interpreter_gives_127() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n")?;
    check(Command::new("chmod").arg("+x").arg(&script).status()?.success(), "chmod")?;
    let output = finish(memtrace([OsStr::new("run"), "--".as_ref(), script.as_ref()]))?;
    let stderr = text(&output.stderr);
    let sentence = format!("memtrace: cannot execute {}: ", script.display());
    let hint = "\nhint: does its interpreter (#! line) exist?\n";
    check(stderr.starts_with(&sentence) && stderr.ends_with(hint), stderr)?;
    is(output.status.code(), Some(127))
}

fn a_report_that_cannot_be_written_stops_before_the_command() -> Result<(), Failed> {
    let output = finish(memtrace(["run", "-o", "/no/such/folder/report", "--", "echo", "ran"]))?;
    let stderr = text(&output.stderr);
    check(
        stderr.starts_with("memtrace: cannot write to /no/such/folder/report: "),
        stderr.as_str(),
    )?;
    check(stderr.lines().nth(1).is_some_and(|line| line.starts_with("hint: ")), stderr)?;
    is(text(&output.stdout), String::new())?;
    is(output.status.code(), Some(1))
}

fn sigterm_reaches_the_command() -> Result<(), Failed> {
    let script = "trap 'echo got it; exit 5' TERM; echo ready; read line";
    let mut running = Running::start(memtrace(["run", "--", "sh", "-c", script]))?;
    running.stdout.wait_for("ready")?;
    running.signal(Signal::SIGTERM)?;
    running.stdout.wait_for("got it")?;
    is(running.finish()?.status.code(), Some(5))
}

fn the_command_outlives_a_killed_memtrace() -> Result<(), Failed> {
    let script = "echo ready; read line; echo the natural end";
    let mut running = Running::start(memtrace(["run", "--", "sh", "-c", script]))?;
    running.stdout.wait_for("ready")?;
    let programs = bpf_programs_of(running.child.id())?;
    check(programs.len() > 5, format!("{} programs while tracing", programs.len()))?;
    running.signal(Signal::SIGKILL)?;
    // `wait` would close its stdin, which is the command's too.
    until("memtrace is dead", || Ok(running.child.try_wait()?.is_some()))?;
    until("the kernel gives up the programs", || {
        Ok(programs.iter().all(|&id| !bpf_program_exists(id)))
    })?;
    running.stdin()?.write_all(b"\n")?;
    running.stdout.wait_for("the natural end")
}

fn attach_ends_when_the_process_exits() -> Result<(), Failed> {
    let mut target = Target::start()?;
    let attached = target.attach(&[])?;
    drop(target.running.child.stdin.take());
    let output = attached.finish()?;
    is(output.status.code(), Some(0))?;
    let report = text(&output.stdout);
    check(report.starts_with("sh (pid ") && report.contains("exited with 0"), report)
}

fn attach_ends_after_its_duration() -> Result<(), Failed> {
    let mut target = Target::start()?;
    let output = target.attach(&["--duration", "500ms"])?.finish()?;
    is(output.status.code(), Some(0))?;
    let report = text(&output.stdout);
    check(report.contains(" is running"), report)?;
    target.is_alive()
}

fn a_signal_ends_attach_with_a_report(signal: Signal) -> Result<(), Failed> {
    let mut target = Target::start()?;
    let attached = target.attach(&[])?;
    attached.signal(signal)?;
    let output = attached.finish()?;
    is(output.status.code(), Some(0))?;
    let report = text(&output.stdout);
    check(report.contains(" is running"), report)?;
    target.is_alive()
}

fn verify(options: &[&str]) -> Result<(), Failed> {
    let mut target = Target::start()?;
    let pid = target.running.child.id().to_string();
    let args = ["verify", "--duration", "500ms", "--format", "json"];
    let output = finish(memtrace([&args[..], options, &[&pid]].concat()))?;
    is(output.status.code(), Some(0))?;
    let verdict: Value = serde_json::from_slice(&output.stdout)?;
    check(verdict["looks"].as_u64() > Some(0), format!("it looked: {verdict}"))?;
    is(&verdict["differences"], &serde_json::json!([]))?;
    is(&verdict["pages"][0], &verdict["pages"][1])?;
    target.is_alive()
}

/// Killed in the middle of its looks, over and over.
fn a_killed_verify_leaves_no_process_stopped() -> Result<(), Failed> {
    let mut target = Target::start()?;
    let pid = target.running.child.id();
    let stopped = || -> Result<bool, Failed> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['t', 'T'])))
    };
    let args = ["verify".to_owned(), "--stop".into(), "--duration".into(), "1m".into()];
    let mut verifying = Running::start(memtrace([&args[..], &[pid.to_string()]].concat()))?;
    until("the process is stopped", stopped)?;
    verifying.child.kill()?;
    verifying.child.wait()?;
    until("the process runs again", || Ok(!stopped()?))?;
    target.is_alive()
}

fn verify_of_a_process_that_exits_says_so() -> Result<(), Failed> {
    let mut target = Target::start()?;
    let pid = target.running.child.id().to_string();
    let verifying = Running::start(memtrace(["verify", "-v", "--duration", "1m", &pid]))?;
    until("it traces", || Ok(!bpf_programs_of(verifying.child.id())?.is_empty()))?;
    drop(target.running.child.stdin.take());
    let output = verifying.finish()?;
    let said = text(&output.stdout) + &text(&output.stderr);
    check(said.contains("exited"), said)
}
