//! `memtrace ledger`: every process of the machine, counted in the kernel.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Common, Failure, Level, Outcome,
    attach::stop,
    duration,
    failure::check_privileges,
    machine::{Machine, now_ns},
    output::{Output, Stream},
    runtime,
    tracer::trim,
};
use crate::{
    model::{
        machine::{MachineReport, Reading, Top},
        report::Evidence,
    },
    probe::attach::{Options, Probes},
    source::procfs,
};

/// Counts what leaves every process of the machine, until Ctrl-C or for a duration.
///
/// Nothing is sent from the kernel: the books are read once in an interval.
#[derive(Debug, Args)]
pub(super) struct Ledger {
    /// Reports each time that this has passed.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    interval: Duration,
    /// Stops after this time, such as 500ms, 10s or 5m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Shows so many processes, programs and cgroups.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// What the figures rest on: rss or frames, which costs more. The default is the most that this
    /// kernel gives.
    #[arg(long, value_enum, value_name = "LEVEL")]
    evidence: Option<Level>,
}

impl Ledger {
    /// Counts and reports.
    pub(super) fn main(self, common: &Common) -> Outcome {
        if self.evidence == Some(Level::Args) {
            return Err(Failure::usage(
                "nothing is counted at --evidence args".to_owned(),
                "take --evidence rss or frames, or `memtrace attach --evidence args PID`",
            ));
        }
        check_privileges()?;
        let mut output = Output::open(common, Stream::Stdout)?;
        runtime()?.block_on(async {
            let mut stop = std::pin::pin!(stop(self.duration)?);
            let mut counter = Counter::begin(&self)?;
            let mut tick = interval(self.interval);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first is at once.
            tick.tick().await;
            loop {
                tokio::select! {
                    ended = &mut stop => {
                        ended?;
                        output.write_machine(&counter.last_report()?)?;
                        return Ok(ExitCode::SUCCESS);
                    }
                    _ = tick.tick() => output.write_machine(&counter.report()?)?,
                }
            }
        })
    }
}

/// The probes, and what was read of them.
struct Counter {
    probes: Probes,
    machine: Machine,
    first: Reading,
    before: Reading,
    interval_ns: u64,
    top: Top,
}

impl Counter {
    fn begin(ledger: &Ledger) -> Result<Self, Failure> {
        let mut probes = count_machine(ledger.evidence)?;
        let mut machine = Machine::new()?;
        let first = machine.read(&mut probes)?;
        log::info!("counting");
        let (before, interval_ns) = (first.clone(), machine.start_ns());
        Ok(Self { probes, machine, first, before, interval_ns, top: Top::of_each(ledger.top) })
    }

    /// Reports on the whole time as one interval.
    fn last_report(&mut self) -> Result<MachineReport, Failure> {
        (self.before, self.interval_ns) =
            (std::mem::take(&mut self.first), self.machine.start_ns());
        self.report()
    }

    fn report(&mut self) -> Result<MachineReport, Failure> {
        let reading = self.machine.read(&mut self.probes)?;
        let end_ns = now_ns()?;
        let evidence = self.probes.evidence();
        let interval = (self.interval_ns, end_ns);
        let mut report = self.machine.report(&reading, &self.before, evidence, interval, self.top);
        for row in &mut report.processes {
            // It may have changed its name.
            let found = row.tgid.and_then(|tgid| procfs::find(tgid).ok().flatten());
            if let Some(found) = found {
                Arc::make_mut(row).comm = Some(found.stat.comm);
            }
        }
        (self.before, self.interval_ns) = (reading, end_ns);
        Ok(report)
    }
}

/// Has the kernel count every process of the machine.
pub(super) fn count_machine(evidence: Option<Level>) -> Result<Probes, Failure> {
    let options = Options {
        evidence: evidence.map(Evidence::from),
        machine: true,
        buffer_bytes: 4096,
        ..Options::default()
    };
    let probes = Probes::attach(options)?;
    if probes.evidence() == Evidence::Args {
        return Err(Failure::new(
            Failure::FAILED,
            anyhow::anyhow!("this kernel counts no pages by process"),
            "it needs Linux 6.1; `memtrace doctor` says what is missing",
        ));
    }
    trim();
    Ok(probes)
}
