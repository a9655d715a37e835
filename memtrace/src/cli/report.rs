//! `memtrace report`: one look at what processes hold, and how much of it is free.

use std::{io, process::ExitCode};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;

use super::{
    Common, Outcome,
    attach::check_process,
    failure::Failure,
    look::{self, Look},
    output::{Output, Stream},
};
use crate::source::procfs::{self, Found};

/// Says of running processes how much of their memory is live, and how much is free but still held.
#[derive(Debug, Args)]
pub(super) struct Report {
    /// Stops each process while its heaps are walked (for a third of a second per GiB), so that the
    /// figures are exact. Its system calls that wait may return early (EINTR).
    #[arg(long)]
    exact: bool,
    /// The processes.
    #[arg(required = true, value_name = "PID")]
    pids: Vec<u32>,
}

impl Report {
    /// Reads, walks and shows.
    pub(super) fn main(self, common: &Common) -> Outcome {
        let mut found = Vec::new();
        let mut gone = 0;
        for &pid in &self.pids {
            match check_process(pid) {
                // One of many may be gone by the time that it is looked at.
                Err(failure) if failure.is_gone() && self.pids.len() > 1 => {
                    log::warn!("there is no process {pid} (any more)");
                    gone += 1;
                }
                checked => found.push((pid, checked?)),
            }
        }
        let mut output = Output::open(common, Stream::Stdout)?;
        let mut looks = Vec::new();
        for (pid, found) in found {
            match self.look(pid, found) {
                Ok(look) => looks.push(look),
                Err(error) if error.chain().any(is_gone) && self.pids.len() > 1 => {
                    log::warn!("process {pid} exited while it was looked at");
                    gone += 1;
                }
                Err(error) if error.chain().any(is_gone) => {
                    let error = anyhow!("process {pid} exited while it was looked at");
                    return Err(Failure::new(Failure::FAILED, error, "nothing can be said of it"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        output.write(&look::report(looks)?)?;
        Ok(ExitCode::from(if gone == 0 { 0 } else { Failure::FAILED }))
    }

    fn look(&self, pid: u32, found: Found) -> Result<Look> {
        let mut look =
            Look::at(pid, found).with_context(|| format!("cannot read /proc/{pid}/smaps"))?;
        look.walk(self.exact)?;
        Ok(look)
    }
}

/// Tells whether an error means that the process exited.
fn is_gone(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(procfs::is_gone)
}
