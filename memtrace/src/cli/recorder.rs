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
    /// It is asked what is resident: for the history, or for a trace.
    asks: bool,
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

    /// Writes down for the formats that show it, and asks for a trace that is `recorded`.
    pub(super) fn new(common: &Common, recorded: bool) -> Self {
        let history = (common.format == Format::Html).then(History::new);
        let now = Instant::now();
        let asks = history.is_some() || recorded;
        Self { history, asks, started: now, next: now }
    }

    /// Returns when to ask next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.asks.then_some(self.next)
    }

    /// Takes in one change.
    pub(super) fn apply(&mut self, change: &Change) {
        if let Some(history) = &mut self.history {
            history.apply(change);
        }
    }

    /// Asks what is resident in the traced processes, if it is time to.
    pub(super) fn look(&mut self, model: &Model) -> Result<Vec<Change>> {
        let now = Instant::now();
        if !self.asks || now < self.next {
            return Ok(Vec::new());
        }
        let pause = (now - self.started) / Self::PART;
        self.next = now + pause.clamp(Self::SHORTEST, Self::LONGEST);
        // Before its first exec a child is a copy of memtrace.
        let begun = model.living().filter(|process| process.space().is_some());
        let time_ns = now_ns()?;
        let sample = |tgid: u32| {
            let what = What::Memory {
                resident: rss(tgid),
                live: None,
                free_resident: None,
                lazy_free: None,
                trimmable: None,
                regions: Vec::new(),
            };
            Change { time_ns, tgid, tid: tgid, what }
        };
        Ok(begun.map(|process| process.tgid).take(History::PROCESSES).map(sample).collect())
    }

    /// Returns what was written down.
    pub(super) fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }
}
