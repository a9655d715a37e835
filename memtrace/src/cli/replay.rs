//! `memtrace replay`: a trace that was kept, through the same model and into the same report.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;
use memtrace_common::ProbeStats;

use super::{
    Common, Outcome, duration,
    failure::Failure,
    flame,
    line::Line,
    nanoseconds,
    output::{Output, Stream, check_not_over},
    recorder::Recorder,
    status::{Work, count_file},
};
use crate::{
    model::{
        Model,
        build::{Residency, Surroundings, report},
        fact::Fact,
        report::{Host, ProbeReport, Report, Stacks},
    },
    sink::folded::Measure,
    source::{
        progress::{Counted, Counter},
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
    /// Reports only what happened after this time in the trace, such as 10s.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    from: Option<Duration>,
    /// Reports only what happened until this time in the trace.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    to: Option<Duration>,
    /// What `--format folded` and `--format flamegraph` show, by call stack: the default is the first
    /// that was taken.
    #[arg(long, value_enum)]
    flame: Option<Measure>,
}

impl Replay {
    /// Reads and reports. What came before a cut or a damaged record is reported all the same.
    pub(super) fn main(self, common: &Common) -> Outcome {
        let name = self.file.display();
        let file = open(&self.file)?;
        if let Ok(trace) = file.metadata() {
            check_not_over(common, &trace, "the report would overwrite the trace")?;
        }
        let counter = count_file(&self.file);
        if self.to.is_some() {
            counter.forget_total();
        }
        let (mut trace, line) = begin(&self.file, file, counter)?;
        let part = self.part(trace.header().start_ns)?;
        let mut output = Output::open(common, Stream::Stdout)?;
        let mut recorder = Recorder::new(&output, false)?;
        let (report, error) = replayed(&self.file, &mut trace, &part, &mut recorder);
        drop(line);
        match flame::render(output.format(), self.flame, &report)? {
            Some(flame) => output.write_text(&flame)?,
            None => recorder.write(&report, &mut output)?,
        }
        match error {
            None => Ok(ExitCode::SUCCESS),
            Some(error) => Err(Failure::new(
                Failure::FAILED,
                anyhow!("cannot read all of {name}: {error}"),
                "the report holds what came before it",
            )),
        }
    }

    /// Returns the times between which something is reported, given when the trace begins.
    fn part(&self, start_ns: u64) -> Result<Part, Failure> {
        let at = |time: Duration| start_ns.saturating_add(nanoseconds(time));
        let part = Part { from: self.from.map(at), to: self.to.map(at) };
        if let (Some(from), Some(to)) = (part.from, part.to)
            && from >= to
        {
            let error = "--from is not before --to".to_owned();
            return Err(Failure::usage(error, "memtrace replay --from 10s --to 20s FILE"));
        }
        Ok(part)
    }
}

/// Returns the report of a whole trace.
///
/// Errors: it is none, or cannot be read to its end.
pub(super) fn whole(path: &Path) -> Result<Report, Failure> {
    let (mut trace, _line) = begin(path, open(path)?, count_file(path))?;
    let part = Part { from: None, to: None };
    match replayed(path, &mut trace, &part, &mut Recorder::none()) {
        (report, None) => Ok(report),
        (_, Some(error)) => {
            let error = anyhow!("cannot read all of {}: {error}", path.display());
            Err(Failure::new(Failure::FAILED, error, "copy it again, or record it again"))
        }
    }
}

/// Reads the header. The line shows how far reading is while it lives.
fn begin(path: &Path, file: File, counter: Counter) -> Result<(Trace, Line), Failure> {
    let line = Work::Replaying.show(&counter);
    let trace = TraceReader::open(Counted { file, counter }).map_err(|error| {
        let (name, hint) = (path.display(), hint(&error));
        Failure::new(Failure::FAILED, anyhow!("cannot replay {name}: {error}"), hint)
    })?;
    Ok((trace, line))
}

/// A trace of which is counted what was read.
type Trace = TraceReader<Counted<File>>;

/// Returns the report of a part of a trace, and why it could not be read to its end.
fn replayed(
    path: &Path,
    trace: &mut Trace,
    part: &Part,
    recorder: &mut Recorder,
) -> (Report, Option<RecordError>) {
    let name = path.display();
    let mut read = read(trace, part, recorder);
    if read.error.is_none() && trace.end().is_none() {
        log::warn!("{name} is cut: {}", cut(trace));
    }
    let skipped = trace.skipped();
    if skipped > 0 {
        log::warn!("{skipped} records were not understood: a newer memtrace may know them");
    }
    let is_empty = read.model.processes().is_empty();
    if is_empty {
        log::warn!("{name} does not tell how any process began");
    }
    let end = trace.end().unwrap_or(TraceEnd {
        time_ns: read.last_ns,
        stats: ProbeStats { emitted: trace.whole(), ..ProbeStats::default() },
        missed: 0,
    });
    let surroundings = read.surroundings(trace.header(), part, end);
    let mut report = report(&read.model, surroundings, &read.residency);
    report.stacks = read.stacks;
    report.window.complete &= trace.end().is_some() && skipped == 0 && !is_empty;
    (report, read.error)
}

/// The part of a trace that is reported: after one time and until another.
struct Part {
    from: Option<u64>,
    to: Option<u64>,
}

/// What a trace, or a part of it, tells.
struct Read {
    model: Model,
    residency: HashMap<u32, Residency>,
    stacks: Option<Stacks>,
    machine: Option<(Host, Vec<ProbeReport>)>,
    /// Events in the part.
    events: u64,
    last_ns: u64,
    /// Why it could not be read to its end.
    error: Option<RecordError>,
}

/// Reads a trace, or what a part of it needs.
fn read(trace: &mut Trace, part: &Part, recorder: &mut Recorder) -> Read {
    let mut read = Read {
        model: Model::new(trace.header().evidence),
        residency: HashMap::new(),
        stacks: None,
        machine: None,
        events: 0,
        last_ns: trace.header().start_ns,
        error: None,
    };
    if let Some(from) = part.from {
        read.error = trace.seek(from).err().map(RecordError::from);
    }
    // What was known where the part begins.
    let mut before = None;
    for entry in trace.by_ref() {
        match entry {
            Ok(Entry::Event(event)) => {
                let time_ns = event.header().time_ns;
                if part.to.is_some_and(|to| time_ns > to) {
                    read.error = trace.seek_end().err();
                    // Nobody asked then.
                    (read.residency, read.stacks) = (HashMap::new(), None);
                    break;
                }
                let is_in = part.from.is_none_or(|from| time_ns > from);
                if is_in && before.is_none() && part.from.is_some() {
                    before = Some(read.model.begin_window());
                }
                read.events += u64::from(is_in);
                read.last_ns = read.last_ns.max(time_ns);
                if let Some(change) = read.model.apply(&event).filter(|_| is_in) {
                    recorder.apply(&read.model, &change);
                }
            }
            Ok(Entry::Fact(fact)) => match fact.change() {
                Some(change) if part.from.is_none_or(|from| change.time_ns > from) => {
                    recorder.apply(&read.model, &change);
                }
                Some(_) => {}
                None => {
                    if fact == Fact::Lost && part.from.is_none_or(|from| read.last_ns > from) {
                        recorder.lost(&read.model);
                    }
                    read.take(fact);
                }
            },
            Ok(Entry::State(model)) => read.model = *model,
            Err(error) => read.error = Some(error),
        }
    }
    if part.from.is_some() {
        let before = before.unwrap_or_else(|| read.model.begin_window());
        read.model.since(&before);
    }
    read
}

impl Read {
    fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Resident { tgid, residency } => {
                self.residency.insert(tgid, *residency);
            }
            Fact::Stacks(stacks) => self.stacks = Some(stacks),
            Fact::Machine { host, probes } => self.machine = Some((host, probes)),
            others => self.model.learn(&others),
        }
    }

    fn surroundings(&mut self, header: &TraceHeader, part: &Part, end: TraceEnd) -> Surroundings {
        let TraceHeader { arch, kernel, page_size, start_ns, .. } = header.clone();
        let TraceEnd { time_ns: end_ns, mut stats, missed } = end;
        if part.from.is_some() || part.to.is_some() {
            stats.emitted = self.events;
        }
        // Older traces do not tell which hooks the probes took.
        let untold = || (Host { kernel, arch, page_size, ..Host::default() }, Vec::new());
        let (host, probes) = self.machine.take().unwrap_or_else(untold);
        let (start_ns, end_ns) =
            (part.from.unwrap_or(start_ns), part.to.map_or(end_ns, |to| to.min(end_ns)));
        Surroundings { host, start_ns, end_ns, stats, missed, probes }
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    let name = path.display();
    let file = File::open(path).map_err(|error| Failure::unread(path, &error, HOW_TO_KEEP))?;
    if file.metadata().is_ok_and(|file| file.is_dir()) {
        let error = anyhow!("cannot replay {name}: it is a directory");
        return Err(Failure::new(Failure::FAILED, error, "name a file in it"));
    }
    Ok(file)
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
