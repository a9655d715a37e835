//! Which command can write which format.

use clap::ValueEnum as _;

use super::{Command, Common, Failure, Format};

/// Checks that a command can write what it is asked for.
pub(super) fn check(command: &Command, common: &Common) -> Result<(), Failure> {
    match common.format {
        Format::Text | Format::Json => Ok(()),
        Format::Html => check_page(command),
        Format::Perfetto => check_timeline(command),
        Format::Folded | Format::Flamegraph => check_stacks(command, common),
    }
}

/// Checks that what it has to say can be a page.
fn check_page(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Run(_) | Command::Attach(_) | Command::Report(_) | Command::Replay(_) => Ok(()),
        _ => Err(Failure::usage(
            "this command makes no page".to_owned(),
            "take --format text or json; run, attach, report and replay make pages",
        )),
    }
}

/// Checks that it tells of a time.
fn check_timeline(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Run(_) | Command::Attach(_) | Command::Replay(_) => Ok(()),
        _ => Err(Failure::usage(
            "this command makes no trace for Perfetto".to_owned(),
            "run, attach and replay make them: memtrace run --format perfetto -o FILE -- CMD",
        )),
    }
}

/// Checks that there will be call stacks, where their formats are asked for.
fn check_stacks(command: &Command, common: &Common) -> Result<(), Failure> {
    let value = common.format.to_possible_value();
    let format = value.as_ref().map_or("", |value| value.get_name());
    let tracing = match command {
        // Whether there are any its trace tells.
        Command::Replay(_) => return Ok(()),
        Command::Run(run) => Some(&run.tracing),
        Command::Attach(attach) => Some(&attach.tracing),
        _ => None,
    };
    let is_run = matches!(command, Command::Run(_));
    let hint = format!("memtrace run --stacks --format {format} -o FILE -- CMD");
    match tracing {
        None => Err(Failure::usage(
            format!("--format {format} shows call stacks, which this command does not sample"),
            hint,
        )),
        Some(tracing) if tracing.stacks.asked().is_empty() => Err(Failure::usage(
            format!("--format {format} shows call stacks, which are sampled with --stacks only"),
            hint,
        )),
        Some(tracing) if tracing.events.is_some() => Err(Failure::usage(
            format!("--events writes lines, and --format {format} has none for them"),
            "leave --events out, or write the call stacks with --stacks-file",
        )),
        Some(tracing) if is_run && tracing.stacks.needs_running() => Err(Failure::usage(
            "what is resident is not known of a command that exited".to_owned(),
            "attach to it while it runs, or say --flame freed",
        )),
        Some(_) => Ok(()),
    }
}
