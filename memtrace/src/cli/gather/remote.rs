//! What the live view shows, asked of a daemon.

use std::{sync::Arc, time::Duration};

use anyhow::{Error, Result};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    cli::{
        connect::{Daemon, Problem},
        nanoseconds,
    },
    model::top::{Course, Id, Snapshot, Wish},
};

/// Asks again and again.
pub(super) struct Remote {
    daemon: Daemon,
    every: Duration,
    /// These processes alone; all where none is named.
    pids: Vec<u32>,
    /// What the process that is looked at was made of.
    history: (Id, Course),
    publish: watch::Sender<Arc<Snapshot>>,
}

impl Remote {
    pub(super) fn new(
        daemon: Daemon,
        every: Duration,
        pids: Vec<u32>,
        publish: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        Self { daemon, every, pids, history: Default::default(), publish }
    }

    /// Asks until nobody looks any more.
    pub(super) async fn gather(mut self, mut wished: watch::Receiver<Wish>) -> Result<()> {
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let opened = tokio::select! {
                _ = tick.tick() => wished.borrow().opened,
                changed = wished.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    wished.borrow_and_update().opened
                }
            };
            if !wished.borrow().paused {
                let snapshot = self.ask(opened).await?;
                self.publish.send_replace(Arc::new(snapshot));
            }
        }
    }

    async fn ask(&mut self, opened: Option<Id>) -> Result<Snapshot> {
        let mut snapshot = self.daemon.listing().await?.snapshot(nanoseconds(self.every));
        if !self.pids.is_empty() {
            snapshot.processes.retain(|process| self.pids.contains(&process.id.tgid));
        }
        let found = snapshot.processes.iter_mut().find(|process| Some(process.id) == opened);
        if let Some(process) = found
            && let Some(looked) = &mut process.looked
            && looked.report.is_some()
        {
            match self.daemon.report(process.id.tgid).await {
                Ok(mut report) => looked.report = report.processes.pop().map(Arc::new),
                Err(error) if is_about_it(&error) => {}
                Err(error) => return Err(error),
            }
            if self.history.0 != process.id {
                self.history = (process.id, Course::default());
            }
            let course = &mut self.history.1;
            course.take(looked.history.last().copied());
            looked.history = course.points();
        }
        Ok(snapshot)
    }
}

/// Tells whether a process is gone, or not there for us: the daemon is.
fn is_about_it(error: &Error) -> bool {
    error.downcast_ref::<Problem>().is_some_and(|problem| [403, 404, 503].contains(&problem.status))
}
