//! What `run`, `attach` and `record` have in common: their options, and how they end.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    Common, buffer_size, duration, failure::Failure, flame, line::note, output::Output,
    stacks::StackOptions, tracer::Tracer,
};
use crate::{
    model::report::{Evidence, Report},
    sink::size,
};

/// Options of the commands that trace.
#[derive(Debug, Args)]
pub(super) struct Tracing {
    /// Traces children too.
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Streams one line for each operation as it happens; `faults` adds one for each page fault.
    #[arg(
        long, value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true,
        default_missing_value = "calls"
    )]
    pub(super) events: Option<EventKind>,
    /// Walks the heaps of the traced processes again and again, each time after so long, and adds a line
    /// to the stream, or a moment to the page: what is live, and what is free but still held.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) walk: Option<Duration>,
    /// What the figures rest on; each level costs more than the one before it. The default is the
    /// most that this kernel gives.
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(super) evidence: Option<Level>,
    /// Measures how long freed frames keep what was in them before they are given out again. Takes 8
    /// bytes of kernel memory for each frame of the machine, and --evidence frames.
    #[arg(long)]
    pub(super) remanence: bool,
    /// Size of the buffer between kernel and memtrace, such as 64K or 16M.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = buffer_size)]
    pub(super) buffer: u32,
    /// Keeps a trace in FILE as well, for `memtrace replay`.
    #[arg(long, value_name = "FILE")]
    pub(super) record: Option<PathBuf>,
    /// Says what was recorded, and makes no report.
    #[arg(skip)]
    pub(super) no_report: bool,
    #[command(flatten)]
    pub(super) stacks: StackOptions,
}

impl Tracing {
    /// Checks that what is asked for can go together.
    pub(super) fn check(&self, common: &Common) -> Result<(), Failure> {
        self.stacks.check()?;
        let has_time = common.format.has_time();
        if self.remanence && self.evidence.is_some_and(|level| level != Level::Frames) {
            return Err(Failure::usage(
                "--remanence is about frames, which a lower level of evidence does not count"
                    .to_owned(),
                "leave --evidence out, or say --evidence frames",
            ));
        }
        if has_time && self.events.is_some() {
            return Err(Failure::usage(
                "--events writes lines, and this format has none for them".to_owned(),
                "leave --events out, or take --format text or json",
            ));
        }
        if self.walk.is_some() && self.events.is_none() && self.record.is_none() && !has_time {
            return Err(Failure::usage(
                "--walk has nothing to add to".to_owned(),
                "add --events, --format html, --format perfetto or --record FILE",
            ));
        }
        Ok(())
    }

    /// Writes the report, or says what was recorded.
    pub(super) fn tell(
        &self,
        tracer: &mut Tracer,
        report: &Report,
        output: &mut Output,
    ) -> Result<(), Failure> {
        if !self.no_report {
            match flame::render(output.format(), self.stacks.flame, report)? {
                Some(flame) => output.write_text(&flame)?,
                None => tracer.recorder_mut().write(report, output)?,
            }
        }
        let Some(path) = self.record.as_ref().map(|path| path.display()) else { return Ok(()) };
        match tracer.recorded() {
            Ok(Some(bytes)) if self.no_report => {
                let records = report.window.emitted;
                note(&format!("memtrace: {records} records, {} in {path}", size(bytes)));
            }
            Ok(_) => {}
            Err(error) => {
                let error = anyhow::anyhow!("cannot write all of the trace to {path}: {error}");
                let hint = "memtrace replay reports on what it has";
                return Err(Failure::new(Failure::FAILED, error, hint));
            }
        }
        Ok(())
    }
}

/// The levels of [`Evidence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// What calls ask for, from their arguments.
    Args,
    /// And what left the process, as the kernel counts it.
    Rss,
    /// And the frames that the kernel really got back.
    Frames,
}

impl From<Level> for Evidence {
    fn from(level: Level) -> Self {
        match level {
            Level::Args => Self::Args,
            Level::Rss => Self::Rss,
            Level::Frames => Self::Frames,
        }
    }
}

/// What is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EventKind {
    /// System calls, forks, execs and exits.
    Calls,
    /// Page faults as well.
    Faults,
}
