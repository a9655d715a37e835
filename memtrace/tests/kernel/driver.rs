//! Runs memtrace on a workload and reads its report.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use libtest_mimic::{Completion, Failed, Trial};
use nix::sys::utsname::uname;
use serde_json::Value;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// A test that needs root. Required: where it cannot run, that counts as a failure in CI.
pub(crate) fn trial(
    name: &str,
    test: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root"));
        }
        test().map(|()| Completion::Completed)
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

/// The binary under test.
pub(crate) fn memtrace() -> PathBuf {
    std::env::var_os("MEMTRACE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_memtrace").into(), PathBuf::from)
}

/// This binary, which is the workload as well.
pub(crate) fn this() -> PathBuf {
    std::env::current_exe().expect("the path of this binary")
}

/// Tells whether the kernel is of a release or a later one. For what a kernel is known to give, which
/// must not be asked of memtrace.
pub(crate) fn kernel_is(major: u32, minor: u32) -> Result<bool, Failed> {
    let release = uname()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    Ok((numbers.next(), numbers.next()) >= (Some(major), Some(minor)))
}

/// A name for a file of this test run.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("memtrace-{}-{number}-{name}", std::process::id()))
}

/// A report in JSON.
pub(crate) struct Report(pub(crate) Value);

/// The four figures of a path, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) calls: u64,
    pub(crate) requested: u64,
    pub(crate) zapped: u64,
    pub(crate) freed: u64,
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
        let path = &self.process()["reclaimed"]["by_path"][path];
        let number = |key: &str| path[key].as_u64().unwrap_or(0);
        Figures {
            calls: number("calls"),
            requested: number("requested") / PAGE,
            zapped: number("zapped") / PAGE,
            freed: number("freed") / PAGE,
        }
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

    /// Checks that nothing was lost and that the books balance within 0.5 %; where nothing is
    /// counted, that there are none.
    pub(crate) fn check_books(&self) -> Result<(), Failed> {
        let window = &self.0["window"];
        if window["complete"] != true {
            return Err(format!("incomplete: {window}").into());
        }
        for process in self.processes() {
            let balance = &process["balance"];
            if !self.counts() {
                let known = |figure: &Value| !figure.is_null();
                let paths = process["reclaimed"]["by_path"].as_object().expect("an object");
                let figures = paths.values().flat_map(|path| [&path["zapped"], &path["freed"]]);
                if figures.chain([&balance["in"], &balance["unexplained"]]).any(known) {
                    return Err(format!("nobody counted that: {process}").into());
                }
                continue;
            }
            let number = |key: &str| balance[key].as_i64().ok_or(format!("no {key}: {balance}"));
            let (came_in, left_over) = (number("in")?, number("unexplained")?);
            if left_over.abs() * 200 > came_in {
                return Err(format!("the books do not balance: {balance}").into());
            }
        }
        Ok(())
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

    /// Tells the workload to go on.
    pub(crate) fn go(&mut self) -> Result<(), Failed> {
        use std::io::Write as _;
        Ok(self.stdin.as_mut().expect("open").write_all(b"\n")?)
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

/// `memtrace attach` under way.
pub(crate) struct Attached {
    child: Child,
    path: PathBuf,
}

impl Attached {
    /// Attaches and waits until tracing has begun.
    pub(crate) fn new(options: &[&str], pids: &[u32]) -> Result<Self, Failed> {
        let path = scratch("attach.json");
        let mut child = Command::new(memtrace())
            .arg("attach")
            .args(options)
            .args(["-v", "--format", "json", "-o"])
            .arg(&path)
            .args(pids.iter().map(u32::to_string))
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().expect("piped");
        let mut lines = BufReader::new(stderr).lines();
        let mut seen = Vec::new();
        for line in lines.by_ref() {
            let line = line?;
            if line.contains("tracing") {
                // Whatever else it says must not block it.
                std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
                return Ok(Self { child, path });
            }
            seen.push(line);
        }
        child.wait()?;
        Err(format!("attach failed: {seen:?}").into())
    }

    /// Ends the trace as Ctrl-C does and returns the report.
    pub(crate) fn stop(mut self) -> Result<Report, Failed> {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("attach ended with {status}").into());
        }
        Report::read(&self.path)
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
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.ok_or("no VmHWM")? * 1024)
    }
}
