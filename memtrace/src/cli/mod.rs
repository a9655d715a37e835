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
mod quantity;
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
mod tracing;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::Runtime;

use failure::Failure;
use output::Output;
use quantity::{buffer_size, duration, nanoseconds, parse_size};
use tracing::{EventKind, Level, Tracing};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
