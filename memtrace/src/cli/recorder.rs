//! What traced processes do over time, written down where the report shows it.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Common, Format, machine::now_ns, tracer::rss};
use crate::model::{
    Model,
    change::{Change, What},
    history::History,
};

/// The history, if the report shows one, and when to ask again what is resident.
pub(super) struct Recorder {
    history: Option<History>,
    started: Instant,
    next: Instant,
}

impl Recorder {
    /// How often is asked what is resident at first …
    const SHORTEST: Duration = Duration::from_millis(10);
    /// … and in the end. In between it is a part of the time that has passed.
    const LONGEST: Duration = Duration::from_secs(1);
    /// That part.
    const PART: u32 = 256;

    /// Writes down for the formats that show it.
    pub(super) fn new(common: &Common) -> Self {
        let history = (common.format == Format::Html).then(History::new);
        let now = Instant::now();
        Self { history, started: now, next: now }
    }

    /// Returns when to ask next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.history.as_ref().map(|_| self.next)
    }

    /// Takes in one change.
    pub(super) fn apply(&mut self, change: &Change) {
        if let Some(history) = &mut self.history {
            history.apply(change);
        }
    }

    /// Asks what is resident in the traced processes, if it is time to.
    pub(super) fn look(&mut self, model: &Model) -> Result<()> {
        let (Some(history), now) = (&mut self.history, Instant::now()) else { return Ok(()) };
        if now < self.next {
            return Ok(());
        }
        let pause = (now - self.started) / Self::PART;
        self.next = now + pause.clamp(Self::SHORTEST, Self::LONGEST);
        // Before its first exec a child is a copy of memtrace.
        let begun = model.living().filter(|process| process.space().is_some());
        for tgid in begun.map(|process| process.tgid).take(History::PROCESSES) {
            let resident = rss(tgid);
            let what = What::Memory {
                resident,
                live: None,
                free_resident: None,
                lazy_free: None,
                trimmable: None,
                regions: Vec::new(),
            };
            history.apply(&Change { time_ns: now_ns()?, tgid, tid: tgid, what });
        }
        Ok(())
    }

    /// Returns what was written down.
    pub(super) fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }
}
