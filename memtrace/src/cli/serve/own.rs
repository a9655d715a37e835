//! What the daemon itself takes.

use std::{fs, sync::Arc};

use nix::sys::resource::{UsageWho, getrusage};

use super::{export::Tally, privileges::Use};
use crate::{
    cli::look::rss,
    model::{
        top::{Counting, ProbeTimes, Snapshot},
        watchdog::Shed,
    },
    sink::metrics::Own,
};

/// What is known of the daemon beside a snapshot.
#[derive(Default)]
pub(super) struct Usage {
    /// Of the last snapshot.
    time_ns: u64,
    probes: Arc<ProbeTimes>,
    /// What the probes took when they were measured last, as a part of a CPU.
    probes_part: f64,
    /// What they took so far, ns: when they are not measured, as when they were measured last.
    probes_ns: f64,
    exports: Arc<Tally>,
    lacking: Arc<[String]>,
}

/// What is configured, and what came of it.
pub(super) struct Limited {
    /// The parts of a CPU that the daemon and its walks may take, in millionths.
    pub(super) budget: u32,
    pub(super) walk_budget: u32,
    pub(super) shed: Shed,
}

impl Usage {
    /// Nothing is known yet but how metrics are sent, and what is switched off.
    pub(super) fn new(exports: Arc<Tally>, lacking: &[&Use]) -> Self {
        let lacking = lacking.iter().map(|need| need.capability.to_string()).collect();
        Self { exports, lacking, ..Self::default() }
    }

    /// Takes what the probes took, and returns the CPU time of the daemon with it, ns.
    pub(super) fn cpu_ns(&mut self, snapshot: &Snapshot) -> u64 {
        let Snapshot { time_ns, probes, .. } = snapshot;
        let measured_ns = probes.measured_ns.saturating_sub(self.probes.measured_ns);
        if measured_ns > 0 {
            let time_ns = probes.time_ns().saturating_sub(self.probes.time_ns());
            self.probes_part = time_ns as f64 / measured_ns as f64;
        }
        if self.time_ns > 0 {
            self.probes_ns += self.probes_part * time_ns.saturating_sub(self.time_ns) as f64;
        }
        (self.time_ns, self.probes) = (*time_ns, probes.clone());
        (cpu_seconds() * 1e9 + self.probes_ns) as u64
    }

    /// Returns what the daemon says of itself.
    pub(super) fn own(&self, snapshot: &Snapshot, limited: &Limited) -> Own {
        let (evidence, untracked) = match snapshot.counting {
            Counting::On { evidence, untracked } => (Some(evidence), untracked),
            Counting::Starting | Counting::Off(_) => (None, 0),
        };
        let (exports, exports_failed) = self.exports.read();
        Own {
            version: env!("CARGO_PKG_VERSION"),
            evidence,
            cpu_seconds: cpu_seconds(),
            resident: rss(std::process::id()).unwrap_or(0),
            open_fds: open_fds(),
            walk_seconds: snapshot.walks.cost_ns as f64 / 1e9,
            walks: snapshot.walks.times,
            walks_failed: snapshot.walks.failed,
            walk_budget: f64::from(limited.walk_budget) / 1e6,
            budget: f64::from(limited.budget) / 1e6,
            shed: limited.shed,
            untracked,
            probes: snapshot.probes.clone(),
            exports,
            exports_failed,
            lacking: self.lacking.clone(),
        }
    }
}

/// Returns how many files are open. The size of their folder tells it (fs/proc/fd.c, since 6.2).
fn open_fds() -> u64 {
    let folder = "/proc/self/fd";
    let told = fs::metadata(folder).map_or(0, |folder| folder.len());
    if told > 0 { told } else { fs::read_dir(folder).map_or(0, |fds| fds.count() as u64) }
}

fn cpu_seconds() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        [usage.user_time(), usage.system_time()]
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
            .iter()
            .sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::top::ProgramRuns;

    fn at(second: u64, measured: u64, took_ms: u64) -> Snapshot {
        let runs = ProgramRuns { program: "p", times: 1, time_ns: took_ms * 1_000_000 };
        let times = ProbeTimes { measured_ns: measured * 1_000_000_000, programs: vec![runs] };
        let time_ns = second * 1_000_000_000;
        Snapshot { time_ns, probes: times.into(), ..Snapshot::default() }
    }

    #[test]
    fn what_probes_take_between_measurements_is_as_when_they_were_measured() {
        let mut usage = Usage::default();
        let mut probes_ms = |snapshot: &Snapshot| {
            usage.cpu_ns(snapshot);
            (usage.probes_ns / 1e6).round()
        };
        assert_eq!(probes_ms(&at(10, 0, 0)), 0.0);
        assert_eq!(probes_ms(&at(20, 10, 100)), 100.0, "1 % of a CPU");
        assert_eq!(probes_ms(&at(60, 10, 100)), 500.0, "and so it goes on");
        assert_eq!(probes_ms(&at(70, 20, 500)), 900.0, "until it is another");
    }
}
