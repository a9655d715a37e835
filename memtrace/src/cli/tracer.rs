//! What `run` and `attach` share: the one task that owns the model, fed by the ring buffer.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, setrlimit};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Common, EventKind, Format, Tracing,
    classes::Classes,
    failure::Failure,
    look::{Walks, look_at_living, rss},
    machine::{host, now_ns, surroundings},
    output::{Output, create},
    recorder::Recorder,
    stacks::Sampling,
    status::Status,
};
use crate::{
    follow::Follower,
    model::{
        build::{Surroundings, report},
        change::Change,
        fact::Fact,
        report::{Evidence, Report},
    },
    probe::attach::{Diagnostics, Options},
    sink::{events, json},
    source::{
        batches, procfs,
        trace_file::{TraceEnd, TraceHeader, TraceWriter},
    },
};

/// The probes, the model and the live stream.
pub(super) struct Tracer {
    follower: Follower,
    stream: Option<Format>,
    start_ns: u64,
    status: Status,
    shows_status: bool,
    classes: Classes,
    recorder: Recorder,
    /// Whose call stacks are taken, if they were asked for.
    sampling: Option<Sampling>,
    /// The page or a trace tells where pages are.
    located: bool,
    /// There is only a trace: without it there is nothing.
    is_only_recorded: bool,
    /// Bytes of the trace that was kept.
    recorded: io::Result<Option<u64>>,
}

impl Tracer {
    /// Attaches the probes, for processes that are `running` already or for one that will be
    /// started. Needs tokio's runtime.
    pub(super) fn attach(
        tracing: &Tracing,
        common: &Common,
        output: &Output,
        running: bool,
    ) -> Result<Self, Failure> {
        // Kernels before 5.11 charge maps to this limit; elsewhere failing is harmless.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
        let record = tracing.record.as_deref().map(create).transpose()?;
        let recorder = Recorder::new(output, record.is_some())?;
        let located = record.is_some() || output.format() == Format::Html;
        let diagnostics = common.verbose >= 2;
        let options = Options {
            evidence: tracing.evidence.map(Evidence::from),
            machine: false,
            follow: tracing.follow,
            fault_events: tracing.events == Some(EventKind::Faults),
            running,
            remanence: tracing.remanence,
            stacks: tracing.stacks.kinds(),
            buffer_bytes: tracing.buffer,
            log_level: if diagnostics { aya_log::Level::Debug as u8 } else { 0 },
        };
        let mut follower = Follower::attach(options)?;
        if diagnostics {
            log_diagnostics(follower.diagnostics()?)?;
        }
        for probe in follower.probes().report() {
            log::info!("{}: {}", probe.name, probe.hook.as_deref().unwrap_or(probe.state));
        }
        let sampling = Sampling::new(follower.probes_mut(), &tracing.stacks)?;
        if sampling.as_ref().is_some_and(Sampling::leaves_out_children) && tracing.follow {
            log::warn!("children are traced, but who allocates in them is not sampled");
        }
        trim();
        let start_ns = now_ns()?;
        let evidence = follower.probes().evidence();
        if tracing.remanence && evidence != Evidence::Frames {
            log::warn!(
                "this kernel does not tell which frames came back: no remanence is measured"
            );
        }
        if let Some(record) = record {
            let host = host()?;
            let header = TraceHeader {
                arch: host.arch.clone(),
                kernel: host.kernel.clone(),
                page_size: host.page_size,
                start_ns,
                evidence,
            };
            follower
                .record(TraceWriter::create(record, &header).context("cannot write the trace")?);
            follower.learn(Fact::Machine { host, probes: follower.probes().report() });
        }
        // What a command writes, or shows on the whole screen, would be mixed up with it.
        let owns_terminal = running || !std::io::stdout().is_terminal();
        let shows_status = owns_terminal && tracing.events.is_none();
        Ok(Self {
            follower,
            stream: tracing.events.map(|_| common.format),
            start_ns,
            status: Status::none(),
            shows_status,
            classes: Classes::new(tracing.walk),
            recorder,
            sampling,
            located,
            is_only_recorded: tracing.no_report,
            recorded: Ok(None),
        })
    }

    /// Traces a child that has not executed its command yet.
    pub(super) fn expect(&mut self, tgid: u32, program: &Path) -> Result<()> {
        self.follower.expect(tgid)?;
        match &mut self.sampling {
            Some(sampling) => sampling.expect(self.follower.probes_mut(), tgid, program),
            None => Ok(()),
        }
    }

    /// Traces a running process from now on.
    pub(super) fn seed(&mut self, tgid: u32) -> Result<()> {
        self.follower.seed(tgid)?;
        match &mut self.sampling {
            Some(sampling) => sampling.seed(&mut self.follower, tgid),
            None => Ok(()),
        }
    }

    /// Follows events until `done` returns.
    pub(super) async fn follow(&mut self, done: impl Future<Output = Result<()>>) -> Result<()> {
        self.follow_until(done, |_| false).await
    }

    /// Follows events until every traced process has exited, or `done` returns, or there is nothing to
    /// follow them for.
    pub(super) async fn follow_to_exit(
        &mut self,
        done: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let is_in_vain = |tracer: &Self| tracer.is_only_recorded && tracer.follower.is_cut();
        self.follow_until(done, |tracer| tracer.all_exited() || is_in_vain(tracer)).await
    }

    async fn follow_until(
        &mut self,
        done: impl Future<Output = Result<()>>,
        is_over: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        if self.shows_status {
            self.status = Status::start();
        }
        tokio::pin!(done);
        while !is_over(self) {
            let is_due = tokio::select! {
                ended = &mut done => {
                    ended?;
                    break;
                }
                is_due = self.follower.turn() => is_due?,
                () = until(self.classes.next().into_iter().chain(self.recorder.next()).min()) => false,
            };
            if is_due {
                self.heal()?;
            }
            self.drain();
            self.tell_classes()?;
            if let Some(sampling) = &mut self.sampling {
                sampling.turn(&mut self.follower)?;
            }
        }
        self.drain();
        self.heal()?;
        self.drain();
        self.status = Status::none();
        Ok(())
    }

    /// Tells whether every traced process has exited.
    pub(super) fn all_exited(&self) -> bool {
        self.follower.model().living().next().is_none()
    }

    fn drain(&mut self) {
        let Self { follower, stream, start_ns, sampling, recorder, .. } = self;
        let mut lines = String::new();
        follower.drain(|model, event| {
            let change = model.apply(event);
            if let Some(change) = &change {
                recorder.apply(model, change);
            }
            if let (Some(sampling), Some(change)) = (sampling.as_mut(), &change) {
                sampling.note(model, change);
            }
            if let (Some(format), Some(change)) = (*stream, change) {
                push_line(&mut lines, &change, format, *start_ns);
                if lines.len() >= LINES_BYTES {
                    write_lines(&mut lines);
                }
            }
        });
        write_lines(&mut lines);
    }

    /// Adds what is live and what is free to the stream, the history and the trace, if it is time to.
    fn tell_classes(&mut self) -> Result<()> {
        let mut lines = String::new();
        for change in self.recorder.look(self.follower.model())? {
            self.note(&change);
        }
        for change in self.classes.lines(self.follower.model())? {
            self.note(&change);
            if let Some(format) = self.stream {
                push_line(&mut lines, &change, format, self.start_ns);
            }
        }
        write_lines(&mut lines);
        Ok(())
    }

    fn note(&mut self, change: &Change) {
        self.recorder.apply(self.follower.model(), change);
        if let Some(fact) = Fact::of(change) {
            self.follower.learn(fact);
        }
    }

    /// Looks for lost records, and shows the status line.
    fn heal(&mut self) -> Result<()> {
        let losses = self.follower.losses();
        let stats = self.follower.heal()?;
        if self.follower.losses() > losses {
            self.recorder.lost(self.follower.model());
        }
        let shows = self.status.is_due();
        if shows || self.follower.wants_books() {
            self.follower.read_books()?;
        }
        if shows {
            let model = self.follower.model();
            let resident = model.living().next().and_then(|process| rss(process.tgid));
            self.status.take(stats, resident, model.reclaimed_bytes());
        }
        Ok(())
    }

    /// Returns how many bytes the trace has that was kept, once there is a report.
    ///
    /// Errors: it could not be written to its end.
    pub(super) const fn recorded(&self) -> Result<Option<u64>, &io::Error> {
        match &self.recorded {
            Ok(bytes) => Ok(*bytes),
            Err(error) => Err(error),
        }
    }

    /// Returns what writes down what the traced processes do over time.
    pub(super) const fn recorder_mut(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// Makes the report.
    pub(super) fn report(&mut self) -> Result<Report> {
        if self.follower.probes().evidence() == Evidence::Frames {
            // What waits in per-CPU batches is only late: let it come.
            if let Err(error) = batches::drain() {
                log::info!("cannot drain the per-CPU batches of pages: {error}");
            }
        }
        self.drain();
        self.follower.settle()?;
        let model = self.follower.model();
        let living: Vec<u32> = model.living().map(|process| process.tgid).collect();
        let residency = look_at_living(model, self.located, Walks::show);
        for tgid in living {
            if let Ok(Some(found)) = procfs::find(tgid) {
                self.follower.learn(Fact::Faults { tgid, faults: found.stat.faults });
            }
        }
        // Calls and books have moved on while the page tables were read. Few calls end between the last two:
        // they have none of their pages; the other way round pages would have no call.
        self.drain();
        self.follower.read_books()?;
        self.drain();
        if self.follower.unknown() > 0 {
            log::warn!("{} records were not understood", self.follower.unknown());
        }
        let (stats, missed) = self.follower.counters()?;
        let surroundings = Surroundings {
            stats,
            missed: missed.runs,
            probes: self.follower.probes().report(),
            ..surroundings(self.start_ns)?
        };
        let end = TraceEnd { time_ns: surroundings.end_ns, stats, missed: missed.runs };
        let mut report = report(self.follower.model(), surroundings, &residency);
        if let Some(mut sampling) = self.sampling.take() {
            sampling.report(&mut self.follower, &mut report)?;
        }
        for (tgid, residency) in residency {
            self.follower.learn(Fact::Resident { tgid, residency: Box::new(residency) });
        }
        if let Some(stacks) = &report.stacks {
            self.follower.learn(Fact::Stacks(stacks.clone()));
        }
        self.recorded = self.follower.finish_record(&end);
        Ok(report)
    }
}

/// Gives memory back: reading the kernel's types took more than tracing will.
pub(super) fn trim() {
    // SAFETY: gives free memory of the allocator back to the kernel.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Waits until a moment; for ever without one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Lines of the stream are written when so many bytes are there, or nothing more is.
const LINES_BYTES: usize = 1 << 16;

fn push_line(lines: &mut String, change: &Change, format: Format, start_ns: u64) {
    match format {
        Format::Json => lines.push_str(&json::event_line(change)),
        _ => lines.push_str(&events::line(change, start_ns)),
    }
    if !lines.ends_with('\n') {
        lines.push('\n');
    }
}

/// Writes to stderr: stdout belongs to the traced command. A reader that went away is no error.
fn write_lines(lines: &mut String) {
    if !lines.is_empty() {
        let _ = std::io::stderr().lock().write_all(lines.as_bytes());
        lines.clear();
    }
}

/// Passes the probes' diagnostics on to the `log` crate for as long as they are attached.
fn log_diagnostics(logger: Diagnostics) -> Result<()> {
    // SAFETY: the logger keeps its map's descriptor open for as long as it lives.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
        .context("cannot wait for the probes' diagnostics")?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}
