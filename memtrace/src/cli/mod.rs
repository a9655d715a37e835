//! The commands: one file each. Only this folder and `sink` print.

mod attach;
mod classes;
mod connect;
mod core;
mod diff;
mod doctor;
mod exchange;
mod failure;
mod flame;
mod formats;
mod gather;
mod generate;
mod ledger;
mod line;
mod look;
mod machine;
mod maps;
mod output;
mod priority;
mod record;
mod recorder;
mod replay;
mod report;
mod run;
mod serve;
mod stacks;
mod status;
mod top;
mod tracer;
mod verify;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::Runtime;

use failure::Failure;
use line::note;
use output::Output;
use stacks::StackOptions;
use tracer::Tracer;

use crate::{
    model::report::{Evidence, Report},
    sink::size,
};

/// I freed the memory: where did it go?
///
/// memtrace watches a process give memory up and says, by path, what the kernel really got back.
#[derive(Debug, Parser)]
#[command(name = "memtrace", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a command and reports when it exits.
    Run(run::Run),
    /// Traces running processes until Ctrl-C, a duration or their exit, then reports.
    Attach(attach::Attach),
    /// Counts what leaves every process of the machine, at little cost.
    Ledger(ledger::Ledger),
    /// Says of running processes, or of a core file, how much of their memory is live, and how much is
    /// free but still held.
    Report(report::Report),
    /// Shows live which processes hold memory that they freed, and what they give back.
    Top(top::Top),
    /// Runs as a daemon: tells Prometheus, and whoever asks by HTTP, of every process.
    Serve(serve::Serve),
    /// Shows the region map of a process, without tracing it.
    Maps(maps::Maps),
    /// Writes a trace of a command, or of running processes, to a file.
    Record(record::Record),
    /// Reports from a trace that was recorded, without root and on any machine.
    Replay(replay::Replay),
    /// Says what grew, what fell and what stayed between two reports.
    Diff(diff::Diff),
    /// Holds what memtrace knows of a process against what the kernel says.
    Verify(verify::Verify),
    /// Says what this kernel offers and which hook each probe takes.
    Doctor,
    /// Writes the completions of a shell.
    Completions(generate::Completions),
    /// Writes the man pages.
    #[command(hide = true)]
    Man(generate::Man),
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
struct Common {
    /// How the report is written.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Writes the report to FILE instead of the standard stream.
    #[arg(short, long, global = true, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Shows no progress, no notes and no hints. Warnings and errors are still shown.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Says more; twice for the diagnostics of the probes.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Common {
    /// Checks that what is asked for can go together, and is quiet from then on where that is asked for.
    fn check(&self) -> Result<(), Failure> {
        // clap sees it only where both stand on the same side of the command's name.
        if self.quiet && self.verbose > 0 {
            let error = "--quiet and --verbose ask for opposite things".to_owned();
            return Err(Failure::usage(error, "leave one of them out"));
        }
        if self.quiet {
            line::be_quiet();
        }
        Ok(())
    }
}

/// How reports are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs: docs/OUTPUT.md.
    Json,
    /// Call stacks, a line each, for flame graphs: of `run` and `attach --stacks`.
    Folded,
    /// A flame graph, as SVG for a browser: of `run` and `attach --stacks`.
    Flamegraph,
    /// A page that needs nothing else, for a browser.
    Html,
    /// A trace for ui.perfetto.dev and `trace_processor`: of `run`, `attach` and `replay`.
    Perfetto,
}

impl Format {
    /// Tells whether it shows what happened over time.
    const fn has_time(self) -> bool {
        match self {
            Self::Html | Self::Perfetto => true,
            Self::Text | Self::Json | Self::Folded | Self::Flamegraph => false,
        }
    }
}

/// Options of the commands that trace.
#[derive(Debug, Args)]
struct Tracing {
    /// Traces children too.
    #[arg(short, long)]
    follow: bool,
    /// Streams one line for each operation as it happens; `faults` adds one for each page fault.
    #[arg(
        long, value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true,
        default_missing_value = "calls"
    )]
    events: Option<EventKind>,
    /// Walks the heaps of the traced processes again and again, each time after so long, and adds a line
    /// to the stream, or a moment to the page: what is live, and what is free but still held.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    walk: Option<Duration>,
    /// What the figures rest on; each level costs more than the one before it. The default is the
    /// most that this kernel gives.
    #[arg(long, value_enum, value_name = "LEVEL")]
    evidence: Option<Level>,
    /// Measures how long freed frames keep what was in them before they are given out again. Takes 8
    /// bytes of kernel memory for each frame of the machine, and --evidence frames.
    #[arg(long)]
    remanence: bool,
    /// Size of the buffer between kernel and memtrace, such as 64K or 16M.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = buffer_size)]
    buffer: u32,
    /// Keeps a trace in FILE as well, for `memtrace replay`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Says what was recorded, and makes no report.
    #[arg(skip)]
    no_report: bool,
    #[command(flatten)]
    stacks: StackOptions,
}

impl Tracing {
    /// Checks that what is asked for can go together.
    fn check(&self, common: &Common) -> Result<(), Failure> {
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
    fn tell(
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
enum Level {
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
enum EventKind {
    /// System calls, forks, execs and exits.
    Calls,
    /// Page faults as well.
    Faults,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let Cli { command, common } = Cli::parse();
    let level = match common.verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_level(level)
        // The loader's view of our object is not what anyone asks for.
        .filter_module("aya", log::LevelFilter::Warn)
        .filter_module("aya_obj", log::LevelFilter::Warn)
        .format_target(false)
        .target(env_logger::Target::Pipe(Box::new(line::Beside)))
        .init();
    run(command, &common).unwrap_or_else(|failure| failure.print())
}

fn run(command: Command, common: &Common) -> Outcome {
    common.check()?;
    formats::check(&command, common)?;
    match command {
        Command::Run(run) => run.main(common),
        Command::Attach(attach) => attach.main(common),
        Command::Ledger(ledger) => ledger.main(common),
        Command::Report(report) => report.main(common),
        Command::Top(top) => top.main(common),
        Command::Serve(serve) => serve.main(common),
        Command::Maps(maps) => maps.main(common),
        Command::Record(record) => record.main(common),
        Command::Replay(replay) => replay.main(common),
        Command::Diff(diff) => diff.main(common),
        Command::Verify(verify) => verify.main(common),
        Command::Doctor => doctor::main(common),
        Command::Completions(completions) => completions.main(common),
        Command::Man(man) => man.main(common),
    }
}

/// Returns what drives the ring buffer, signals and timers.
fn runtime() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().context("cannot start the runtime")
}

/// Result of a command.
type Outcome = Result<ExitCode, Failure>;

/// Splits a size into its digits and the binary logarithm of its unit.
fn without_unit(text: &str) -> (&str, u32) {
    match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    }
}

fn buffer_size(text: &str) -> Result<u32, String> {
    let (digits, shift) = without_unit(text);
    let bytes = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= 4096 && bytes.is_power_of_two() => Ok(bytes),
        Some(_) => Err("must be a power of two and at least 4K".to_owned()),
        None => Err("must be a size such as 64K or 16M, below 4G".to_owned()),
    }
}

/// Reads a size in bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = without_unit(text);
    // `parse` takes a sign, too.
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| is_number);
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "must be a size such as 512K, 10M or 0".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (digits, unit) = units
        .iter()
        .find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1.0));
    let seconds = digits.parse::<f64>().ok().map(|number| number * unit);
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "must be a time such as 500ms, 10s or 5m".to_owned())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_buffer_is_a_power_of_two_of_at_least_a_page() {
        assert_eq!(buffer_size("64K"), Ok(64 << 10));
        assert_eq!(buffer_size("4096"), Ok(4096));
        assert!(buffer_size("3K").is_err());
        assert!(buffer_size("8G").is_err());
        assert!(buffer_size("").is_err());
        assert!(buffer_size("é").is_err());
    }

    #[test]
    fn a_duration_has_a_unit_or_is_in_seconds() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "0", "-1s", "nan", "1d", "1e400"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
