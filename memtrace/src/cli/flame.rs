//! Call stacks as the report: which command can, and what is written.

use anyhow::{Context as _, anyhow};
use clap::ValueEnum as _;

use super::{Command, Common, Failure, Format};
use crate::{
    model::report::Report,
    sink::{
        flamegraph,
        folded::{self, Measure},
    },
};

/// Checks that there will be call stacks, where their formats are asked for.
pub(super) fn check(command: &Command, common: &Common) -> Result<(), Failure> {
    let (Format::Folded | Format::Flamegraph) = common.format else { return Ok(()) };
    let value = common.format.to_possible_value();
    let format = value.as_ref().map_or("", |value| value.get_name());
    let tracing = match command {
        // Whether there are any its trace tells.
        Command::Replay(_) => return Ok(()),
        Command::Run(run) => Some(run.tracing()),
        Command::Attach(attach) => Some(attach.tracing()),
        _ => None,
    };
    let is_run = matches!(command, Command::Run(_));
    let hint = format!("memtrace run --stacks --format {format} -o FILE -- CMD");
    match tracing {
        None => Err(Failure::usage(
            format!("--format {format} shows call stacks, which this command does not sample"),
            hint,
        )),
        Some(tracing) if tracing.stacks.period().is_none() => Err(Failure::usage(
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

/// Returns the call stacks of a report in the format that was asked for, if it is one of theirs.
pub(super) fn render(
    format: Format,
    measure: Measure,
    report: &Report,
) -> Result<Option<String>, Failure> {
    let (Format::Folded | Format::Flamegraph) = format else { return Ok(None) };
    let Some(stacks) = &report.stacks else {
        let error = anyhow!("the trace has no call stacks");
        return Err(Failure::new(Failure::FAILED, error, "record it with --stacks"));
    };
    if stacks.processes.iter().any(|process| !measure.is_known(process)) {
        return Err(Failure::new(
            Failure::FAILED,
            anyhow!("what is resident of what a process freed is not known: it exited"),
            "stop before it does, with --duration, or say --flame freed",
        ));
    }
    let lines = folded::by_measure(stacks, &report.processes, measure);
    if format == Format::Folded {
        return Ok(Some(lines));
    }
    let drawn = flamegraph::render(&lines, measure).context("cannot draw the flame graph")?;
    Ok(Some(drawn))
}
