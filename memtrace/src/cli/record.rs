//! `memtrace record`: a trace for `memtrace replay`, and no report.

use std::{ffi::OsString, time::Duration};

use clap::Args;

use super::{Common, Outcome, Tracing, attach::Attach, duration, failure::Failure, run::Run};

/// Writes a trace of a command, or of running processes, to a file: `memtrace replay` reports from it,
/// on any machine.
#[derive(Debug, Args)]
pub(super) struct Record {
    #[command(flatten)]
    tracing: Tracing,
    /// Runs the command as this user (name or number) with that user's groups.
    #[arg(long, value_name = "USER", requires = "command")]
    user: Option<String>,
    /// Stops after this time, such as 500ms, 10s or 5m.
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "pids")]
    duration: Option<Duration>,
    /// Processes that run already.
    #[arg(value_name = "PID", required_unless_present = "command", conflicts_with = "command")]
    pids: Vec<u32>,
    /// The command and its arguments.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Record {
    /// Traces as `run` and `attach` do.
    pub(super) fn main(self, common: &Common) -> Outcome {
        let record = common.output.clone().xor(self.tracing.record);
        if record.is_none() {
            let error = "where to write the trace is not told".to_owned();
            return Err(Failure::usage(error, "memtrace record -o FILE -- CMD ARGS…"));
        }
        let tracing = Tracing { record, no_report: true, ..self.tracing };
        let common = Common { output: None, ..common.clone() };
        if self.pids.is_empty() {
            Run { tracing, user: self.user, command: self.command }.main(&common)
        } else {
            Attach { tracing, duration: self.duration, pids: self.pids }.main(&common)
        }
    }
}
