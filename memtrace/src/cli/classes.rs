//! What is live and what is free of the traced processes, again and again, for the live stream.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{line::Line, look::look_at_living, machine::now_ns};
use crate::model::{
    Model,
    build::process_report,
    change::{Change, What},
    report::ProcessReport,
};

/// When heaps are walked.
pub(super) struct Classes {
    every: Option<Duration>,
    next: Instant,
}

impl Classes {
    /// The first walk is after the first `every`; without one there is none.
    pub(super) fn new(every: Option<Duration>) -> Self {
        Self { every, next: Instant::now() + every.unwrap_or_default() }
    }

    /// Returns when the next walk is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.every.map(|_| self.next)
    }

    /// Walks the heaps of all living processes, if it is time to. A process that is gone meanwhile has
    /// no line.
    pub(super) fn lines(&mut self, model: &Model) -> Result<Vec<Change>> {
        let Some(every) = self.every.filter(|_| Instant::now() >= self.next) else {
            return Ok(Vec::new());
        };
        let looked = look_at_living(model, false, |_| Line::none());
        // Counted from the end: walks that take longer than they are apart do not pile up.
        self.next = Instant::now() + every;
        let time_ns = now_ns()?;
        let line = |process: ProcessReport| Change {
            time_ns,
            tgid: process.tgid,
            tid: process.tgid,
            what: What::Memory {
                resident: process.memory.resident,
                live: process.memory.live,
                free_resident: process.memory.freed_not_reclaimed.allocator,
                lazy_free: process.memory.freed_not_reclaimed.lazy_free,
                trimmable: process
                    .allocators
                    .iter()
                    .filter_map(|allocator| allocator.trimmable)
                    .reduce(u64::saturating_add),
                regions: process.regions.into_iter().filter(|r| r.resident != Some(0)).collect(),
            },
        };
        let reports = model.living().filter_map(|process| {
            Some(process_report(model, process, Some(looked.get(&process.tgid)?)))
        });
        Ok(reports.map(line).collect())
    }
}
