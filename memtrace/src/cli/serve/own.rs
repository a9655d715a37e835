//! What the daemon itself takes.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};

use crate::{
    cli::look::rss,
    model::top::{Counting, Snapshot},
    sink::metrics::Own,
};

/// What is known of the daemon beside a snapshot.
pub(super) struct Usage {
    walk_budget: u32,
}

impl Usage {
    /// Walks may take such a part of a CPU, in millionths.
    pub(super) const fn new(walk_budget: u32) -> Self {
        Self { walk_budget }
    }

    /// Walks may take another part from now on.
    pub(super) const fn set_budget(&mut self, walk_budget: u32) {
        self.walk_budget = walk_budget;
    }

    /// Returns what the daemon says of itself.
    pub(super) fn own(&self, snapshot: &Snapshot) -> Own {
        let (evidence, untracked) = match snapshot.counting {
            Counting::On { evidence, untracked } => (Some(evidence), untracked),
            Counting::Starting | Counting::Off(_) => (None, 0),
        };
        let cpu_seconds = getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
            [usage.user_time(), usage.system_time()]
                .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
                .iter()
                .sum()
        });
        Own {
            version: env!("CARGO_PKG_VERSION"),
            evidence,
            cpu_seconds,
            resident: rss(std::process::id()).unwrap_or(0),
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
            walk_seconds: snapshot.walks.cost_ns as f64 / 1e9,
            walks: snapshot.walks.times,
            walks_failed: snapshot.walks.failed,
            walk_budget: f64::from(self.walk_budget) / 1e6,
            untracked,
        }
    }
}
