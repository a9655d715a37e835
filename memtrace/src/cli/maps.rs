//! `memtrace maps`: one look at a region map, without a probe.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{
    Common, Outcome,
    attach::check_process,
    look::{Look, Wanted, report},
    machine::now_ns,
    output::{Output, Stream},
};

/// Shows the region map of a process, without tracing it.
#[derive(Debug, Args)]
pub(super) struct Maps {
    /// The process.
    #[arg(value_name = "PID")]
    pid: u32,
}

impl Maps {
    /// Reads and shows.
    pub(super) fn main(self, common: &Common) -> Outcome {
        let pid = self.pid;
        let start_ns = now_ns()?;
        let found = check_process(pid)?;
        let mut output = Output::open(common, Stream::Stdout)?;
        let look = Look::at(pid, found, Wanted::default())
            .with_context(|| format!("cannot read /proc/{pid}/smaps"))?;
        let mut report = report(vec![look], start_ns)?;
        for process in &mut report.processes {
            // Hexadecimal of the same length sorts as the number does; a shorter one is smaller.
            process
                .regions
                .sort_by(|a, b| (a.start.len(), &a.start).cmp(&(b.start.len(), &b.start)));
        }
        output.write_maps(&report)?;
        Ok(ExitCode::SUCCESS)
    }
}
