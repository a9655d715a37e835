//! What traced processes do over time, written down where the report shows it.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Failure, Format, Output, look::rss, machine::now_ns};
use crate::{
    model::{
        Model,
        change::{Change, What},
        history::History,
        report::{Evidence, Report},
    },
    sink::perfetto::Timeline,
};

/// The history or the timeline, if the report shows one, and when to ask again what is resident.
pub(super) struct Recorder {
    history: Option<History>,
    timeline: Option<Timeline<Box<dyn Write>>>,
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

    /// Writes nothing down.
    pub(super) fn none() -> Self {
        let now = Instant::now();
        Self { history: None, timeline: None, asks: false, started: now, next: now }
    }

    /// Writes down for the formats that show it, and asks for a trace that is `recorded`.
    pub(super) fn new(output: &Output, recorded: bool) -> Result<Self, Failure> {
        let history = (output.format() == Format::Html).then(History::new);
        let timeline = match output.format() {
            Format::Perfetto => Some(Timeline::new(output.writer()?)),
            _ => None,
        };
        let asks = history.is_some() || timeline.is_some() || recorded;
        Ok(Self { history, timeline, asks, ..Self::none() })
    }

    /// Returns when to ask next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.asks.then_some(self.next)
    }

    /// Takes in one change of a model.
    pub(super) fn apply(&mut self, model: &Model, change: &Change) {
        if let Some(history) = &mut self.history {
            history.apply(change);
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.apply(model, change);
        }
    }

    /// Takes in that records were lost. At the lowest level of evidence that is also said when region
    /// maps are to be read.
    pub(super) fn lost(&mut self, model: &Model) {
        if let Some(timeline) = &mut self.timeline
            && model.evidence() > Evidence::Args
        {
            timeline.lost();
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

    /// Writes the report with what was written down.
    pub(super) fn write(&mut self, report: &Report, output: &mut Output) -> Result<(), Failure> {
        match self.timeline.take() {
            Some(timeline) => output.check(timeline.finish(report)),
            None => output.write_with(report, self.history.as_ref()),
        }
    }
}
