//! Runs memtrace on a workload and reads its report.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// A test that needs root. Required: where it cannot run, that counts as a failure in CI.
pub(crate) fn trial(
    name: &str,
    test: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    trial_or_ignored(name, || test().map(|()| Completion::Completed))
}

/// A test that needs root and may find that it needs more.
pub(crate) fn trial_or_ignored(
    name: &str,
    test: impl FnOnce() -> Result<Completion, Failed> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root"));
        }
        test()
    })
}

/// Lines for the table of kernels, printed when all tests are done: in between they would tear
/// those of the tests.
static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps a line for the end.
pub(crate) fn note(line: String) {
    NOTES.lock().expect("no test panics here").push(line);
}

/// Prints what was kept.
pub(crate) fn print_notes() {
    for line in NOTES.lock().expect("no test panics here").drain(..) {
        println!("{line}");
    }
}

/// Returns the first two numbers of the kernel's release.
pub(crate) fn kernel() -> Result<(u32, u32), Failed> {
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).ok_or_else(|| format!("what kernel is {release}?").into())
}

/// Returns a size in bytes out of a file of `/proc` that tells it in kB.
pub(crate) fn size(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// The kernel's setting of transparent huge pages.
pub(crate) const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Tells whether nobody gets huge pages, whatever a program asks for.
pub(crate) fn no_huge_pages() -> Result<bool, Failed> {
    Ok(fs::read_to_string(HUGE_PAGES)?.contains("[never]"))
}

/// The binary under test.
pub(crate) fn memtrace() -> PathBuf {
    std::env::var_os("MEMTRACE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_memtrace").into(), PathBuf::from)
}

/// This binary, which is the workload as well.
pub(crate) fn this() -> PathBuf {
    std::env::current_exe().expect("the path of this binary")
}

/// A name for a file of this test run.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("memtrace-{}-{number}-{name}", std::process::id()))
}

/// A report in JSON.
pub(crate) struct Report(pub(crate) Value);

/// The figures of a path, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) calls: u64,
    pub(crate) requested: u64,
    pub(crate) zapped: u64,
    /// In the call or late.
    pub(crate) freed: u64,
    pub(crate) late: u64,
    pub(crate) kept: u64,
}

impl Report {
    fn read(path: &PathBuf) -> Result<Self, Failed> {
        let text = fs::read_to_string(path)?;
        let _ = fs::remove_file(path);
        Ok(Self(serde_json::from_str(&text)?))
    }

    /// Returns the first traced process.
    pub(crate) fn process(&self) -> &Value {
        &self.0["processes"][0]
    }

    /// Returns every traced process.
    pub(crate) fn processes(&self) -> &[Value] {
        self.0["processes"].as_array().expect("an array")
    }

    /// Returns a process and its child.
    ///
    /// Errors: there are fewer, or more.
    pub(crate) fn family(&self) -> Result<&[Value; 2], Failed> {
        let processes = self.processes();
        let count = processes.len();
        Ok(processes.try_into().map_err(|_| format!("two processes, not {count}"))?)
    }

    /// Returns the figures of a path of the first process; zero when nothing took it.
    pub(crate) fn path(&self, path: &str) -> Figures {
        Figures::of(self.process(), path)
    }

    /// Tells whether pages were counted, or only arguments seen.
    pub(crate) fn counts(&self) -> bool {
        self.0["window"]["evidence"] != "args"
    }

    /// Returns the pages that left a process by a path; where they are not counted, the pages that
    /// were asked to.
    pub(crate) fn gone(&self, process: &Value, path: &str) -> u64 {
        let figure = if self.counts() { "zapped" } else { "requested" };
        process["reclaimed"]["by_path"][path][figure].as_u64().unwrap_or(0) / PAGE
    }

    /// Checks that nothing was lost and that all books balance.
    pub(crate) fn check_books(&self) -> Result<(), Failed> {
        self.check_complete()?;
        self.processes().iter().try_for_each(|process| self.check_balance(process))
    }

    /// Checks that nothing was lost.
    pub(crate) fn check_complete(&self) -> Result<(), Failed> {
        let window = &self.0["window"];
        if window["complete"] != true {
            return Err(format!("incomplete: {window}").into());
        }
        Ok(())
    }

    /// Checks that the books of a process balance within 0.5 %; where nothing is counted, that
    /// there are none.
    pub(crate) fn check_balance(&self, process: &Value) -> Result<(), Failed> {
        let balance = &process["balance"];
        if !self.counts() {
            let known = |figure: &Value| !figure.is_null();
            let paths = process["reclaimed"]["by_path"].as_object().expect("an object");
            let figures = paths.values().flat_map(|path| [&path["zapped"], &path["freed"]]);
            if figures.chain([&balance["in"], &balance["unexplained"]]).any(known) {
                return Err(format!("nobody counted that: {process}").into());
            }
            return Ok(());
        }
        let number = |key: &str| balance[key].as_i64().ok_or(format!("no {key}: {balance}"));
        let (came_in, left_over) = (number("in")?, number("unexplained")?);
        if left_over.abs() * 200 > came_in {
            return Err(format!("the books do not balance: {balance}").into());
        }
        Ok(())
    }
}

impl Figures {
    /// Returns what a process has of a path; zero when nothing took it.
    pub(crate) fn of(process: &Value, path: &str) -> Self {
        let path = &process["reclaimed"]["by_path"][path];
        let number = |key: &str| path[key].as_u64().unwrap_or(0);
        let pages = |key: &str| number(key) / PAGE;
        Self {
            calls: number("calls"),
            requested: pages("requested"),
            zapped: pages("zapped"),
            freed: pages("freed"),
            late: pages("late"),
            kept: pages("kept_elsewhere"),
        }
    }
}

/// Traces a workload with `memtrace run` and returns the report.
pub(crate) fn run(options: &[&str], workload: &[&str]) -> Result<Report, Failed> {
    let path = scratch("run.json");
    let output = Command::new(memtrace())
        .arg("run")
        .args(options)
        .args(["--format", "json", "-o"])
        .arg(&path)
        .arg("--")
        .arg(this())
        .arg("--workload")
        .args(workload)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() && !workload.contains(&"sigkill") {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("memtrace run … {workload:?}: {}: {said}", output.status).into());
    }
    Report::read(&path)
}

/// A workload that was started without memtrace and does what its standard input says.
pub(crate) struct Started {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Started {
    /// Starts a workload and waits until it says that it is ready.
    pub(crate) fn new(workload: &[&str]) -> Result<Self, Failed> {
        let mut child = Command::new(this())
            .arg("--workload")
            .args(workload)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().expect("piped");
        let stdin = child.stdin.take();
        let mut started = Self { child, stdin, lines: BufReader::new(stdout).lines() };
        started.expect("ready")?;
        Ok(started)
    }

    /// Waits for a line of output.
    pub(crate) fn expect(&mut self, wanted: &str) -> Result<(), Failed> {
        match self.lines.next() {
            Some(Ok(line)) if line == wanted => Ok(()),
            other => Err(format!("the workload should say {wanted:?}, not {other:?}").into()),
        }
    }

    /// Returns the next line of output.
    pub(crate) fn line(&mut self) -> Result<String, Failed> {
        Ok(self.lines.next().ok_or("the workload ended")??)
    }

    /// Tells the workload to go on.
    pub(crate) fn go(&mut self) -> Result<(), Failed> {
        self.tell("")
    }

    /// Tells the workload something.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Failed> {
        use std::io::Write as _;
        Ok(self.stdin.as_mut().expect("open").write_all(format!("{line}\n").as_bytes())?)
    }

    /// Tells it that nothing more will be said.
    pub(crate) fn hang_up(&mut self) {
        self.stdin.take();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, Failed> {
        Ok(self.child.wait()?)
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) -> Result<(), Failed> {
        Ok(self.child.kill()?)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It ends when its input does; should it hang, it is ours to end.
        self.stdin.take();
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command said before it ended, and how it ended.
pub(crate) type Ended = (ExitStatus, Vec<String>);

/// Starts a command and waits until it says a word to stderr.
pub(crate) fn start(command: &mut Command, word: &str) -> Result<Result<Child, Ended>, Failed> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut said = Vec::new();
    for line in lines.by_ref() {
        let line = line?;
        if line.contains(word) {
            // Whatever else it says must not block it.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            return Ok(Ok(child));
        }
        said.push(line);
    }
    Ok(Err((child.wait()?, said)))
}

/// Ends a command as Ctrl-C does.
pub(crate) fn interrupt(child: &mut Child) -> Result<ExitStatus, Failed> {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    Ok(child.wait()?)
}

/// `memtrace attach` under way.
pub(crate) struct Attached {
    child: Child,
    path: PathBuf,
}

impl Attached {
    /// Attaches and waits until tracing has begun.
    pub(crate) fn new(options: &[&str], pids: &[u32]) -> Result<Self, Failed> {
        Self::with(Command::new(memtrace()), options, pids)
    }

    /// The same with a command that begins so.
    pub(crate) fn with(
        mut attach: Command,
        options: &[&str],
        pids: &[u32],
    ) -> Result<Self, Failed> {
        let path = scratch("attach.json");
        attach.arg("attach").args(options).args(["-v", "--format", "json", "-o"]).arg(&path);
        attach.args(pids.iter().map(u32::to_string));
        match start(&mut attach, "tracing")? {
            Ok(child) => Ok(Self { child, path }),
            Err((_, said)) => Err(format!("attach failed: {said:?}").into()),
        }
    }

    /// Ends the trace as Ctrl-C does and returns the report.
    pub(crate) fn stop(mut self) -> Result<Report, Failed> {
        let status = interrupt(&mut self.child)?;
        if !status.success() {
            return Err(format!("attach ended with {status}").into());
        }
        Report::read(&self.path)
    }

    /// Kills memtrace.
    pub(crate) fn kill(&mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it ends by itself and returns the report.
    pub(crate) fn finish(mut self) -> Result<Report, Failed> {
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("attach ended with {status}").into());
        }
        Report::read(&self.path)
    }

    /// Returns the largest resident size that memtrace had, in bytes.
    pub(crate) fn peak_resident(&self) -> Result<u64, Failed> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        Ok(size(&status, "VmHWM:").ok_or("no VmHWM")?)
    }
}
