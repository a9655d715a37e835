//! Programs that the tests start, and what they say.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub(crate) const MEMTRACE: &str = env!("CARGO_BIN_EXE_memtrace");
/// Set in the environment, this program is a workload of this name.
pub(crate) const WORKLOAD: &str = "MEMTRACE_TEST_WORKLOAD";
/// Nothing here takes a tenth of it on a slow machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at again.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// A shell that forks for each line that it gets, and answers.
pub(crate) struct Target {
    pub(crate) running: Running,
}

impl Target {
    pub(crate) fn start() -> Result<Self, Failed> {
        let mut command = Command::new("sh");
        command.args(["-c", "while read line; do ( : ); echo answer; done"]);
        Ok(Self { running: Running::start(command)? })
    }

    /// Attaches memtrace and returns once it has seen the target do something.
    pub(crate) fn attach(&mut self, options: &[&str]) -> Result<Running, Failed> {
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
    pub(crate) fn is_alive(&mut self) -> Result<(), Failed> {
        self.running.stdin()?.write_all(b"\n")?;
        self.running.stdout.wait_for("answer")
    }
}

/// A program that this test started. Dropped, it is killed.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Result<Self, Failed> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = Lines::of(child.stdout.take().ok_or("no stdout")?);
        let stderr = Lines::of(child.stderr.take().ok_or("no stderr")?);
        Ok(Self { child, stdout, stderr })
    }

    pub(crate) fn stdin(&mut self) -> Result<&mut ChildStdin, Failed> {
        self.child.stdin.as_mut().ok_or_else(|| "its stdin is closed".into())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failed> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// Closes its stdin and waits for its end.
    pub(crate) fn finish(mut self) -> Result<Output, Failed> {
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
pub(crate) struct Lines {
    lines: Receiver<Vec<u8>>,
    /// Those that were taken already.
    taken: Vec<u8>,
}

impl Lines {
    pub(crate) fn of(stream: impl Read + Send + 'static) -> Self {
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
    pub(crate) fn next(&mut self, timeout: Duration) -> Result<Option<String>, Failed> {
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

    pub(crate) fn wait_for(&mut self, expected: &str) -> Result<(), Failed> {
        let deadline = Instant::now() + DEADLINE;
        while let Some(line) = self.next(deadline.saturating_duration_since(Instant::now()))? {
            if line == expected {
                return Ok(());
            }
        }
        Err(format!("no line {expected:?} in time, but {:?}", text(&self.taken)).into())
    }

    /// Waits for the stream's end and returns all that was written.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, Failed> {
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

pub(crate) fn memtrace<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(MEMTRACE);
    command.args(args);
    command
}

pub(crate) fn finish(command: Command) -> Result<Output, Failed> {
    Running::start(command)?.finish()
}

/// Returns memtrace with [`map_touch_and_unmap`] as its command.
pub(crate) fn workload<const N: usize>(args: [&str; N]) -> Result<Command, Failed> {
    let mut command = memtrace(args);
    command.arg("--").arg(env::current_exe()?).env(WORKLOAD, "1");
    Ok(command)
}

/// The workload that has a large heap, says so, and waits for the end of its input.
pub(crate) const HEAP: &str = "heap";

pub(crate) fn fill_the_heap() -> std::io::Result<()> {
    let pieces: Vec<Box<[u8; 48]>> = (0..6 << 20).map(|_| Box::new([1; 48])).collect();
    println!("{HEAP}");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    drop(pieces);
    Ok(())
}

pub(crate) const WORKLOAD_MAPPED: usize = 4 << 20;
pub(crate) const WORKLOAD_TOUCHED: usize = 1 << 20;

pub(crate) fn map_touch_and_unmap() {
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
pub(crate) fn bpf_programs_of(pid: u32) -> Result<Vec<u32>, Failed> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // What it opens for a moment is closed by now.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        programs.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(programs)
}

/// Asks the kernel for a program by its id (`BPF_PROG_GET_FD_BY_ID`, include/uapi/linux/bpf.h).
pub(crate) fn bpf_program_exists(id: u32) -> bool {
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
pub(crate) fn until(
    what: &str,
    mut holds: impl FnMut() -> Result<bool, Failed>,
) -> Result<(), Failed> {
    let deadline = Instant::now() + DEADLINE;
    while !holds()? {
        if Instant::now() > deadline {
            return Err(format!("waited {DEADLINE:?} in vain: {what}").into());
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

pub(crate) fn check(holds: bool, message: impl Into<String>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(message.into().into()) }
}

pub(crate) fn is<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result<(), Failed> {
    check(found == expected, format!("found {found:?}, expected {expected:?}"))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
