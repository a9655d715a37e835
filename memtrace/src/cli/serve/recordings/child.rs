//! The program that makes one recording.

use std::{
    fs, io,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use tokio::{process::Command, sync::oneshot, time::interval};

use super::{Recording, folder::Folder};

/// How often it is looked how large a trace is.
const LOOK: Duration = Duration::from_secs(1);

/// A `memtrace record` that runs.
pub(super) struct Child {
    program: tokio::process::Child,
    partial: PathBuf,
    done: PathBuf,
    /// It is ended when its trace has so many bytes.
    size: u64,
}

impl Child {
    /// Starts it. It is told to end when the daemon is gone.
    pub(super) fn start(
        folder: &Folder,
        recording: &Recording,
        duration: Duration,
    ) -> Result<Self, String> {
        let (partial, done) = (folder.partial(&recording.id), folder.done(&recording.id));
        // Whatever lies where the daemon came from by now: the same program.
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["-q", "record", "-o"])
            .arg(&partial)
            .args(["--duration", &format!("{}ms", duration.as_millis())])
            .arg(recording.tgid.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // SAFETY: one system call, which takes no lock and allocates nothing.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGINT)?)) };
        let program = command.spawn().map_err(|error| format!("cannot start: {error}"))?;
        Ok(Self { program, partial, done, size: folder.settings().size })
    }

    /// Waits until it ends by itself, or is stopped, or its trace is large; returns the bytes of its trace.
    pub(super) async fn wait(self, mut stopped: oneshot::Receiver<()>) -> Result<u64, String> {
        let Self { program, partial, done, size } = self;
        let pid = program.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let mut output = std::pin::pin!(program.wait_with_output());
        let mut look = interval(LOOK);
        let mut is_ending = false;
        let result = loop {
            let ends = tokio::select! {
                result = &mut output => break result,
                stop = &mut stopped, if !is_ending => stop.is_ok(),
                _ = look.tick(), if !is_ending => {
                    fs::metadata(&partial).is_ok_and(|found| found.len() >= size)
                }
            };
            if ends && let Some(pid) = pid {
                // Nobody has waited for it: it is still this one.
                let _ = kill(pid, Signal::SIGINT);
                is_ending = true;
            }
        };
        let finished = judge(result).and_then(|()| {
            let bytes = fs::metadata(&partial).and_then(|found| {
                fs::rename(&partial, &done)?;
                Ok(found.len())
            });
            bytes.map_err(|error| format!("cannot keep its trace: {error}"))
        });
        if finished.is_err() {
            let _ = fs::remove_file(&partial);
        }
        finished
    }
}

/// Tells why it failed, if it did.
fn judge(result: io::Result<Output>) -> Result<(), String> {
    let output = result.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let error = said.lines().find_map(|line| line.strip_prefix("memtrace: "));
    Err(error.map_or_else(|| output.status.to_string(), str::to_owned))
}
