//! The status line of a long trace, on a terminal only.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    time::{Duration, Instant},
};

use memtrace_common::ProbeStats;

use super::output::terminal_width;
use crate::sink::known;

/// Rewrites one line on stderr, at most once a second.
pub(super) struct Status {
    started: Instant,
    last: Option<Instant>,
    enabled: bool,
}

/// How often the line changes.
const INTERVAL: Duration = Duration::from_secs(1);

impl Status {
    /// Begins to count the time. Without a terminal, or when events are streamed to it, nothing is
    /// ever shown.
    pub(super) fn new(streams_events: bool) -> Self {
        let enabled = stderr().is_terminal() && !streams_events;
        Self { started: Instant::now(), last: None, enabled }
    }

    /// Tells whether it is time for another line.
    pub(super) fn is_due(&self) -> bool {
        let since = self.last.map_or_else(|| self.started.elapsed(), |last| last.elapsed());
        self.enabled && since >= INTERVAL
    }

    /// Shows the line.
    pub(super) fn show(
        &mut self,
        stats: ProbeStats,
        resident: Option<u64>,
        reclaimed: Option<u64>,
    ) {
        self.last = Some(Instant::now());
        let seconds = self.started.elapsed().as_secs();
        let rss = known(resident);
        let line = format!(
            "memtrace: {}:{:02}  {} events, {} dropped  RSS {rss}  given back {}",
            seconds / 60,
            seconds % 60,
            stats.emitted,
            stats.dropped,
            known(reclaimed),
        );
        let line: String = line.chars().take(terminal_width(2).saturating_sub(1)).collect();
        let _ = write!(stderr(), "\r\x1b[K{line}");
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.last.take().is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
