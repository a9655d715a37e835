//! A process that stands still, for as long as the value lives.
//!
//! Stopped by `PTRACE_SEIZE` and `PTRACE_INTERRUPT`, not by a signal: its parent is not told, and
//! when memtrace ends, however it ends, the kernel lets the process run on (ptrace(2)).

use std::{collections::BTreeSet, fs, io};

use anyhow::{Context as _, Result, bail};

/// A stopped process. Dropped, it runs on. Keep it on the thread that made it.
#[derive(Debug)]
pub struct Stopped {
    threads: BTreeSet<i32>,
}

/// Rounds in which new threads may still appear.
const MOST_ROUNDS: usize = 100;

impl Stopped {
    /// Stops every thread of a process.
    ///
    /// Errors: another tracer has it, no right to trace it, or it is gone.
    pub fn new(tgid: u32) -> Result<Self> {
        let mut stopped = Self { threads: BTreeSet::new() };
        for _ in 0..MOST_ROUNDS {
            let mut found_more = false;
            for entry in fs::read_dir(format!("/proc/{tgid}/task"))
                .with_context(|| format!("cannot list the threads of process {tgid}"))?
            {
                let name = entry?.file_name();
                let Some(tid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
                if !stopped.threads.contains(&tid) && stopped.stop(tid)? {
                    found_more = true;
                }
            }
            if !found_more {
                return Ok(stopped);
            }
        }
        bail!("process {tgid} starts threads faster than they can be stopped")
    }

    /// Stops one thread; false when it exited meanwhile.
    fn stop(&mut self, tid: i32) -> Result<bool> {
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: the requests take no memory of ours.
            if unsafe { libc::ptrace(request, tid, 0, 0) } != 0 {
                let error = io::Error::last_os_error();
                if error.raw_os_error() == Some(libc::ESRCH) {
                    return Ok(false);
                }
                return Err(error).with_context(|| format!("cannot stop thread {tid}"));
            }
            self.threads.insert(tid);
        }
        let mut status = 0;
        // SAFETY: waits for a thread that we trace, and writes to a variable of ours.
        let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        Ok(waited == tid && libc::WIFSTOPPED(status))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for &tid in &self.threads {
            // SAFETY: takes no memory of ours. A thread that is gone needs nothing.
            unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, 0, 0) };
        }
    }
}
