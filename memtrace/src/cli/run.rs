//! `memtrace run`: a command of its own, from its first instruction to its exit.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{
            fs::PermissionsExt as _,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus},
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use nix::{
    sys::signal::{self, Signal},
    unistd::{Pid, User, getpgrp, initgroups, setgid, setuid, tcgetpgrp},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal as SignalStream, SignalKind, signal},
};

use super::{
    Common, Outcome, Tracing,
    failure::{Failure, check_executable, check_privileges},
    output::{Output, Stream},
    priority, runtime,
    tracer::Tracer,
};

/// Runs a command and reports when it exits.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) tracing: Tracing,
    /// Runs the command as this user (name or number) with that user's groups.
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

impl Run {
    /// Runs the command and returns its exit code, or 128 and the signal that ended it.
    pub(super) fn main(self, common: &Common) -> Outcome {
        self.tracing.check(common)?;
        let program = find_program(&self.command[0])?;
        check_executable(&program)?;
        let user = self.user.as_deref().map(find_user).transpose()?;
        check_privileges()?;
        let mut output = Output::open(common, Stream::Stderr)?;
        let runtime = runtime()?;
        runtime.block_on(async {
            let mut tracer = Tracer::attach(&self.tracing, common, &output, false)?;
            let waiting = Waiting::start(program, &self.command, user)?;
            tracer.expect(waiting.pid, &waiting.program)?;
            // From here on a signal is the command's: caught before it can print anything.
            let signals = Signals::new()?;
            let mut child = waiting.release()?;
            let status = follow(&mut tracer, &mut child, signals).await?;
            let report = tracer.report()?;
            self.tracing.stacks.write(&report)?;
            self.tracing.tell(&mut tracer, &report, &mut output)?;
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            Ok(ExitCode::from(code as u8))
        })
    }
}

/// Follows the child to its end and passes signals on to it meanwhile.
async fn follow(
    tracer: &mut Tracer,
    child: &mut Child,
    mut signals: Signals,
) -> Result<ExitStatus> {
    let pid = Pid::from_raw(child.id() as i32);
    let exited = pidfd(child.id())?;
    // SAFETY: the descriptor is owned and stays open.
    let exited = unsafe { AsyncFd::register_with_interest(exited, Interest::READABLE) }
        .context("cannot wait for the command")?;
    let ended = async {
        loop {
            tokio::select! {
                ready = exited.readable() => {
                    ready.context("cannot wait for the command")?.retain_ready();
                    return Ok(());
                }
                received = signals.next() => {
                    // A terminal sends its signals to the command as well.
                    if received.is_ours_to_pass_on() {
                        let _ = signal::kill(pid, received.signal);
                    }
                }
            }
        }
    };
    priority::hurry();
    tracer.follow(ended).await?;
    child.wait().context("cannot wait for the command")
}

/// The signals that are passed on.
struct Signals {
    interrupt: SignalStream,
    quit: SignalStream,
    terminate: SignalStream,
    hangup: SignalStream,
    user1: SignalStream,
    user2: SignalStream,
}

/// A signal that memtrace got.
struct Received {
    signal: Signal,
    /// A key on the terminal sends it.
    by_key: bool,
}

impl Received {
    /// Tells whether the command did not get it by itself.
    fn is_ours_to_pass_on(&self) -> bool {
        let foreground = fs::File::open("/dev/tty").ok().and_then(|tty| tcgetpgrp(tty).ok());
        !(self.by_key && foreground == Some(getpgrp()))
    }
}

impl Signals {
    fn new() -> Result<Self> {
        let stream = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            interrupt: stream(SignalKind::interrupt())?,
            quit: stream(SignalKind::quit())?,
            terminate: stream(SignalKind::terminate())?,
            hangup: stream(SignalKind::hangup())?,
            user1: stream(SignalKind::user_defined1())?,
            user2: stream(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Received {
        let (signal, by_key) = tokio::select! {
            _ = self.interrupt.recv() => (Signal::SIGINT, true),
            _ = self.quit.recv() => (Signal::SIGQUIT, true),
            _ = self.terminate.recv() => (Signal::SIGTERM, false),
            _ = self.hangup.recv() => (Signal::SIGHUP, false),
            _ = self.user1.recv() => (Signal::SIGUSR1, false),
            _ = self.user2.recv() => (Signal::SIGUSR2, false),
        };
        Received { signal, by_key }
    }
}

/// A child that waits for permission to execute its command.
struct Waiting {
    pid: u32,
    permission: io::PipeWriter,
    spawning: thread::JoinHandle<io::Result<Child>>,
    program: PathBuf,
}

impl Waiting {
    /// Forks. The child is a copy of memtrace until it is released.
    fn start(program: PathBuf, words: &[OsString], user: Option<User>) -> Result<Self> {
        let (mut announced, announcement) = io::pipe().context("cannot make a pipe")?;
        let (permitted, permission) = io::pipe().context("cannot make a pipe")?;
        let mut command = Command::new(&program);
        command.arg0(&words[0]).args(&words[1..]);
        let group = user.as_ref().map(|user| {
            std::ffi::CString::new(user.name.as_str()).map(|name| (name, user.gid, user.uid))
        });
        let group = group.transpose().context("cannot use this user's name")?;
        let permission_fd = permission.as_raw_fd();
        let before_exec = move || {
            // The child must not hold the writing end itself, or memtrace's death would leave it
            // waiting for ever.
            // SAFETY: closing a descriptor number of this process, which nobody uses after exec.
            unsafe { libc::close(permission_fd) };
            (&announcement).write_all(&std::process::id().to_ne_bytes())?;
            let mut go = [0; 1];
            // A closed pipe is no permission: memtrace died, and so does the child.
            (&permitted).read_exact(&mut go)?;
            if let Some((name, gid, uid)) = &group {
                initgroups(name, *gid)?;
                setgid(*gid)?;
                setuid(*uid)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec it only writes, reads and sets ids; the runtime has one
        // thread and no lock is held there.
        unsafe { command.pre_exec(before_exec) };
        // `spawn` returns after the exec, for which we give permission later.
        let spawning = thread::spawn(move || command.spawn());
        let mut pid = [0; 4];
        announced.read_exact(&mut pid).context("cannot start the command")?;
        Ok(Self { pid: u32::from_ne_bytes(pid), permission, spawning, program })
    }

    /// Lets the child execute its command.
    fn release(self) -> Result<Child, Failure> {
        let Self { permission, spawning, program, .. } = self;
        (&permission).write_all(&[1]).context("cannot start the command")?;
        let spawned = spawning.join().map_err(|_| anyhow!("cannot start the command"))?;
        spawned.map_err(|error| not_started(&program, &error))
    }
}

fn not_started(program: &Path, error: &io::Error) -> Failure {
    let (code, hint) = match error.raw_os_error() {
        Some(libc::ENOENT) => (Failure::NOT_FOUND, "does its interpreter (#! line) exist?"),
        Some(libc::EACCES | libc::EPERM) => {
            (Failure::NOT_EXECUTABLE, "is it executable for this user?")
        }
        Some(libc::ENOEXEC) => {
            (Failure::NOT_EXECUTABLE, "it is no program; a script needs a #! line")
        }
        _ => (Failure::NOT_EXECUTABLE, "run it without memtrace to see whether it works"),
    };
    Failure::new(code, anyhow!("cannot execute {}: {error}", program.display()), hint)
}

/// Finds a command as a shell would, so that nothing is attached for one that does not exist.
fn find_program(name: &OsString) -> Result<PathBuf, Failure> {
    let shown = name.display();
    if name.is_empty() {
        return Err(Failure::usage("the command is empty".to_owned(), "memtrace run -- CMD ARGS…"));
    }
    let is_path = name.as_encoded_bytes().contains(&b'/');
    let candidates: Vec<PathBuf> = if is_path {
        vec![name.into()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        std::env::split_paths(&path).map(|folder| folder.join(name)).collect()
    };
    let mut found = None;
    for candidate in candidates {
        match fs::metadata(&candidate) {
            Ok(data) if data.is_file() && data.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            // A folder in PATH may have folders: none of them is a command.
            Ok(data) if data.is_dir() && !is_path => {}
            Ok(_) => found = found.or(Some(candidate)),
            Err(_) => {}
        }
    }
    Err(match found {
        Some(path) if path.is_dir() => Failure::new(
            Failure::NOT_EXECUTABLE,
            anyhow!("cannot execute {}: it is a directory", path.display()),
            "name a program in it",
        ),
        Some(path) => Failure::new(
            Failure::NOT_EXECUTABLE,
            anyhow!("cannot execute {}: it is not an executable file", path.display()),
            "chmod +x it, or name its interpreter",
        ),
        None => Failure::new(
            Failure::NOT_FOUND,
            anyhow!("cannot find the command {shown}"),
            "is it installed, and its folder in PATH?",
        ),
    })
}

fn find_user(name: &str) -> Result<User, Failure> {
    let found = match name.parse::<u32>() {
        Ok(uid) => User::from_uid(uid.into()),
        Err(_) => User::from_name(name),
    };
    match found {
        Ok(Some(user)) => Ok(user),
        _ => Err(Failure::usage(format!("there is no user {name}"), "see `getent passwd`")),
    }
}

/// Returns a descriptor that becomes readable when the process exits (`pidfd_open(2)`, 5.3).
pub(super) fn pidfd(pid: u32) -> Result<OwnedFd> {
    // SAFETY: the call takes two numbers and returns a descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context(format!("cannot watch process {pid}"));
    }
    // SAFETY: the kernel just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
