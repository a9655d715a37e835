//! `memtrace replay`: a trace that was kept, through the same model and into the same report.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::anyhow;
use clap::Args;
use memtrace_common::ProbeStats;

use super::{
    Common, Outcome,
    failure::Failure,
    output::{Output, Stream},
};
use crate::{
    model::{
        Model,
        build::{Residency, Surroundings, report},
        fact::Fact,
        report::{Host, ProbeReport, Stacks},
    },
    source::{
        replay::RecordError,
        trace_file::{Entry, OpenError, TraceEnd, TraceHeader, TraceReader},
    },
};

/// Reports from a trace that was recorded, without root and on any machine.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The trace.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Replay {
    /// Reads and reports. What came before a cut or a damaged record is reported all the same.
    pub(super) fn main(self, common: &Common) -> Outcome {
        let name = self.file.display();
        let file = open(&self.file)?;
        check_output(&file, common)?;
        let mut trace = TraceReader::open(file).map_err(|error| {
            let hint = hint(&error);
            Failure::new(Failure::FAILED, anyhow!("cannot replay {name}: {error}"), hint)
        })?;
        let mut output = Output::open(common, Stream::Stdout)?;
        let mut model = Model::new(trace.header().evidence);
        let mut last_ns = trace.header().start_ns;
        let mut told = Told::default();
        let read = trace.try_for_each(|entry| {
            match entry? {
                Entry::Event(event) => {
                    last_ns = last_ns.max(event.header().time_ns);
                    model.apply(&event);
                }
                Entry::Fact(fact) => told.take(fact, &mut model),
            }
            Ok::<(), RecordError>(())
        });
        if read.is_ok() && trace.end().is_none() {
            log::warn!("{name} is cut: {}", cut(&trace));
        }
        let skipped = trace.skipped();
        if skipped > 0 {
            log::warn!("{skipped} records were not understood: a newer memtrace may know them");
        }
        if model.processes().is_empty() {
            log::warn!("{name} does not tell how any process began");
        }
        let read_whole = trace.end().is_some() && skipped == 0 && !model.processes().is_empty();
        let end = trace.end().unwrap_or(TraceEnd {
            time_ns: last_ns,
            stats: ProbeStats { emitted: trace.whole(), ..ProbeStats::default() },
            missed: 0,
        });
        let surroundings = told.surroundings(trace.header(), end);
        let mut report = report(&model, surroundings, &told.residency);
        report.stacks = told.stacks;
        report.window.complete &= read_whole;
        output.write(&report)?;
        match read {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(Failure::new(
                Failure::FAILED,
                anyhow!("cannot read all of {name}: {error}"),
                "the report holds what came before it",
            )),
        }
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let name = path.display();
    let file = File::open(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "read it as a user who may",
            _ => HOW_TO_KEEP,
        };
        Failure::new(Failure::FAILED, anyhow!("cannot read {name}: {error}"), hint)
    })?;
    if file.metadata().is_ok_and(|file| file.is_dir()) {
        let error = anyhow!("cannot replay {name}: it is a directory");
        return Err(Failure::new(Failure::FAILED, error, "name a file in it"));
    }
    Ok(file)
}

/// Checks that the report would not overwrite the trace.
fn check_output(trace: &File, common: &Common) -> Result<(), Failure> {
    let output = common.output.as_ref().and_then(|path| fs::metadata(path).ok());
    let (Some(output), Ok(trace)) = (output, trace.metadata()) else { return Ok(()) };
    if trace.is_file() && (trace.dev(), trace.ino()) == (output.dev(), output.ino()) {
        let error = "the report would overwrite the trace".to_owned();
        return Err(Failure::usage(error, "name another file behind -o"));
    }
    Ok(())
}

const HOW_TO_KEEP: &str = "`memtrace record -o FILE -- CMD` writes a trace";

/// Returns what a user can do about a file that cannot be replayed.
const fn hint(error: &OpenError) -> &'static str {
    match error {
        OpenError::Empty | OpenError::NotATrace => HOW_TO_KEEP,
        OpenError::CutHeader(_) | OpenError::Damaged => "copy it again, or record it again",
        OpenError::NewerVersion(_) => "replay it with the memtrace that wrote it, or a newer one",
        OpenError::OtherByteOrder | OpenError::OtherPageSize(_) => {
            "replay it on a machine like the one that recorded it"
        }
        OpenError::Io(_) => "is the disk in order?",
    }
}

/// Returns where a trace without an end was cut.
fn cut<R: io::Read>(trace: &TraceReader<R>) -> String {
    let (whole, left_over) = (trace.whole(), trace.left_over());
    let records = if whole == 1 { "record" } else { "records" };
    match left_over {
        0 => format!("it stops after {whole} {records} and was not ended"),
        _ if trace.is_in_blocks() => {
            format!("it stops after {whole} {records}, {left_over} bytes into the next block")
        }
        _ => format!("it stops after {whole} {records}, {left_over} bytes into the next"),
    }
}

/// What the trace tells for the report alone.
#[derive(Default)]
struct Told {
    residency: HashMap<u32, Residency>,
    stacks: Option<Stacks>,
    machine: Option<(Host, Vec<ProbeReport>)>,
}

impl Told {
    fn take(&mut self, fact: Fact, model: &mut Model) {
        match fact {
            Fact::Resident { tgid, residency } => {
                self.residency.insert(tgid, *residency);
            }
            Fact::Stacks(stacks) => self.stacks = Some(stacks),
            Fact::Machine { host, probes } => self.machine = Some((host, probes)),
            others => model.learn(&others),
        }
    }

    fn surroundings(&mut self, header: &TraceHeader, end: TraceEnd) -> Surroundings {
        let TraceHeader { arch, kernel, page_size, start_ns, .. } = header.clone();
        let TraceEnd { time_ns: end_ns, stats, missed } = end;
        // Older traces do not tell which hooks the probes took.
        let untold = || (Host { kernel, arch, page_size, ..Host::default() }, Vec::new());
        let (host, probes) = self.machine.take().unwrap_or_else(untold);
        Surroundings { host, start_ns, end_ns, stats, missed, probes }
    }
}
