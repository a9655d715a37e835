//! `run` and `attach` on real programs: what memtrace leaves alone, where its report goes, and how
//! it ends. Needs root; a test that this machine cannot run is ignored with the reason.
//!
//! Not here: whether the figures are right. That is `tests/kernel`.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, ExitCode, Output, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};
use serde_json::Value;

const MEMTRACE: &str = env!("CARGO_BIN_EXE_memtrace");
/// Set in the environment, this program is a workload of this name.
const WORKLOAD: &str = "MEMTRACE_TEST_WORKLOAD";
/// Nothing here takes a tenth of it on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at again.
const PAUSE: Duration = Duration::from_millis(10);

type Outcome = Result<Completion, Failed>;

fn main() -> ExitCode {
    if env::var_os(WORKLOAD).is_some() {
        map_touch_and_unmap();
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // Loading probes is work for the kernel: more at a time only makes each slower.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let trials = vec![
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
    let schema: Value = serde_json::from_str(include_str!("../../docs/report.schema.json"))?;
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

/// A shell that forks for each line that it gets, and answers.
struct Target {
    running: Running,
}

impl Target {
    fn start() -> Result<Self, Failed> {
        let mut command = Command::new("sh");
        command.args(["-c", "while read line; do ( : ); echo answer; done"]);
        Ok(Self { running: Running::start(command)? })
    }

    /// Attaches memtrace and returns once it has seen the target do something.
    fn attach(&mut self, options: &[&str]) -> Result<Running, Failed> {
        let pid = self.running.child.id().to_string();
        let args = [&["attach", "--events"][..], options, &[&pid]].concat();
        let mut attached = Running::start(memtrace(args))?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.is_alive()?;
            if attached.stderr.next(PAUSE)?.is_some_and(|line| line.contains("fork ")) {
                return Ok(attached);
            }
            check(Instant::now() < deadline, "memtrace saw no fork")?;
        }
    }

    /// Gives it a line and waits for its answer.
    fn is_alive(&mut self) -> Result<(), Failed> {
        self.running.stdin()?.write_all(b"\n")?;
        self.running.stdout.wait_for("answer")
    }
}

/// A program that this test started. Dropped, it is killed.
struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    fn start(mut command: Command) -> Result<Self, Failed> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = Lines::of(child.stdout.take().ok_or("no stdout")?);
        let stderr = Lines::of(child.stderr.take().ok_or("no stderr")?);
        Ok(Self { child, stdout, stderr })
    }

    fn stdin(&mut self) -> Result<&mut ChildStdin, Failed> {
        self.child.stdin.as_mut().ok_or_else(|| "its stdin is closed".into())
    }

    fn signal(&self, signal: Signal) -> Result<(), Failed> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// Closes its stdin and waits for its end.
    fn finish(mut self) -> Result<Output, Failed> {
        drop(self.child.stdin.take());
        until("it ends", || Ok(self.child.try_wait()?.is_some()))?;
        let status = self.child.wait()?;
        Ok(Output { status, stdout: self.stdout.rest()?, stderr: self.stderr.rest()? })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program writes, line by line, read by a thread.
struct Lines {
    lines: Receiver<Vec<u8>>,
    /// Those that were taken already.
    taken: Vec<u8>,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        Self { lines, taken: Vec::new() }
    }

    /// Takes the next line if one comes within `timeout`.
    fn next(&mut self, timeout: Duration) -> Result<Option<String>, Failed> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => {
                self.taken.extend(&line);
                Ok(Some(text(&line).trim_end().to_owned()))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(format!("it ended after {:?}", text(&self.taken)).into())
            }
        }
    }

    fn wait_for(&mut self, expected: &str) -> Result<(), Failed> {
        let deadline = Instant::now() + DEADLINE;
        while let Some(line) = self.next(deadline.saturating_duration_since(Instant::now()))? {
            if line == expected {
                return Ok(());
            }
        }
        Err(format!("no line {expected:?} in time, but {:?}", text(&self.taken)).into())
    }

    /// Waits for the stream's end and returns all that was written.
    fn rest(&mut self) -> Result<Vec<u8>, Failed> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.taken.extend(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(std::mem::take(&mut self.taken)),
                Err(RecvTimeoutError::Timeout) => return Err("its output does not end".into()),
            }
        }
    }
}

fn memtrace<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(MEMTRACE);
    command.args(args);
    command
}

fn finish(command: Command) -> Result<Output, Failed> {
    Running::start(command)?.finish()
}

/// Returns memtrace with [`map_touch_and_unmap`] as its command.
fn workload<const N: usize>(args: [&str; N]) -> Result<Command, Failed> {
    let mut command = memtrace(args);
    command.arg("--").arg(env::current_exe()?).env(WORKLOAD, "1");
    Ok(command)
}

const WORKLOAD_MAPPED: usize = 4 << 20;
const WORKLOAD_TOUCHED: usize = 1 << 20;

fn map_touch_and_unmap() {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, written inside its bounds and used by nobody else.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), WORKLOAD_MAPPED, prot, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        // A huge page would bring in more than was touched.
        libc::madvise(start, WORKLOAD_MAPPED, libc::MADV_NOHUGEPAGE);
        start.cast::<u8>().write_bytes(1, WORKLOAD_TOUCHED);
        assert_eq!(libc::munmap(start, WORKLOAD_MAPPED), 0);
    }
}

/// Returns the ids of the BPF programs that a process holds, itself or by links.
fn bpf_programs_of(pid: u32) -> Result<Vec<u32>, Failed> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path())?;
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        programs.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(programs)
}

/// Asks the kernel for a program by its id (`BPF_PROG_GET_FD_BY_ID`, include/uapi/linux/bpf.h).
fn bpf_program_exists(id: u32) -> bool {
    const PROG_GET_FD_BY_ID: i32 = 13;
    let attributes = [id, 0, 0];
    // SAFETY: the kernel reads 12 bytes, which are there, and returns a descriptor or an error.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_GET_FD_BY_ID,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if fd >= 0 {
        // SAFETY: the kernel just opened it for us.
        unsafe { libc::close(fd as i32) };
    }
    fd >= 0
}

/// Looks at a condition until it holds.
fn until(what: &str, mut holds: impl FnMut() -> Result<bool, Failed>) -> Result<(), Failed> {
    let deadline = Instant::now() + DEADLINE;
    while !holds()? {
        if Instant::now() > deadline {
            return Err(format!("waited {DEADLINE:?} in vain: {what}").into());
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn check(holds: bool, message: impl Into<String>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(message.into().into()) }
}

fn is<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result<(), Failed> {
    check(found == expected, format!("found {found:?}, expected {expected:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
