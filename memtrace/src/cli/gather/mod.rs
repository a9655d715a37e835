//! Gathers what the live view and the daemon show, on a thread that owns the model. Snapshots go out,
//! wishes come in; only the newest of each counts, and nobody waits for anybody.

mod remote;
mod stopwatch;
mod workers;

use std::{future, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Error, Result};
use tokio::{
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval},
};

use self::{remote::Remote, stopwatch::Stopwatch, workers::Walker};
use super::{
    Level,
    connect::Daemon,
    machine::{Machine, now_ns},
    nanoseconds, runtime,
};
use crate::{
    model::{
        machine::{Reading, Top, process_rows},
        top::{Budget, Counting, Id, Look, Processes, Snapshot, Walkable, Wish},
        watchdog::Counts,
    },
    probe::attach::Probes,
    source::procfs::Table,
};

/// What is gathered, and how.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// These processes; all where none is named.
    pub(super) pids: Vec<u32>,
    /// How often.
    pub(super) every: Duration,
    /// Whether the kernel counts what leaves processes.
    pub(super) counts: bool,
    /// What the counts rest on; the most that the kernel gives where none is named.
    pub(super) evidence: Option<Level>,
    /// Whether what left every process is told too, and in which cgroup each is.
    pub(super) machine: bool,
    /// What may be walked without being asked for.
    pub(super) walks: WalkPlan,
    /// Whether it is measured how long the probes run.
    pub(super) measures_probes: bool,
}

/// What may be walked without being asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WalkPlan {
    /// Part of a CPU for it, in millionths.
    pub(super) share: u32,
    /// Which processes.
    pub(super) walkable: Walkable,
}

impl WalkPlan {
    fn budget(&self) -> Budget {
        let mut budget = Budget::new(self.share);
        budget.set_walkable(self.walkable.clone());
        budget
    }
}

/// The other end of the thread.
pub(super) struct Gatherer {
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) wishes: watch::Sender<Wish>,
    /// What may be walked from now on.
    pub(super) walks: watch::Sender<WalkPlan>,
    /// What is counted from now on.
    pub(super) counts: watch::Sender<Counts>,
    /// Why nothing is gathered any more.
    pub(super) ended: oneshot::Receiver<Error>,
}

impl Gatherer {
    /// Starts to gather. `confine` is called when the probes are being attached, on a thread that ends
    /// when they are, and before any other thread begins: all others inherit what it leaves.
    pub(super) fn start(plan: Plan, confine: impl FnOnce() -> Result<()>) -> Result<Self> {
        let Plan { pids, every, counts, evidence, machine, walks, measures_probes } = plan;
        let table = Table::new(pids);
        let (publish, snapshots) = watch::channel(Arc::default());
        let (wishes, wished) = watch::channel(Wish::default());
        let (replan, replanned) = watch::channel(walks.clone());
        let (recount, recounted) = watch::channel(Counts::default());
        let (end, ended) = oneshot::channel();
        let attached = if counts { Some(workers::attach(evidence)?) } else { None };
        confine()?;
        let mut state = State {
            table: if machine { table.with_cgroups() } else { table },
            machine: if machine { Some(Machine::new()?) } else { None },
            processes: Processes::default(),
            walker: Walker::start()?,
            walking: None,
            budget: walks.budget(),
            books: None,
            stopwatch: Stopwatch::new(measures_probes),
            counts: recounted.clone(),
            wish: Wish::default(),
            interval_ns: nanoseconds(every),
            read_ns: now_ns()?,
            publish,
        };
        if !counts {
            state.processes.count_nothing("--no-probes was asked for".to_owned());
        }
        spawn(end, move || state.gather(every, wished, replanned, recounted, attached))?;
        Ok(Self { snapshots, wishes, walks: replan, counts: recount, ended })
    }

    /// Asks a daemon, which decides itself what it walks and counts.
    pub(super) fn connect(daemon: Daemon, every: Duration, pids: Vec<u32>) -> Result<Self> {
        let (publish, snapshots) = watch::channel(Arc::default());
        let (wishes, wished) = watch::channel(Wish::default());
        let (end, ended) = oneshot::channel();
        let remote = Remote::new(daemon, every, pids, publish);
        spawn(end, move || remote.gather(wished))?;
        let (walks, counts) = (watch::Sender::default(), watch::Sender::default());
        Ok(Self { snapshots, wishes, walks, counts, ended })
    }
}

/// Does it on a thread of its own, and says why it ended.
fn spawn<F: Future<Output = Result<()>>>(
    end: oneshot::Sender<Error>,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<()> {
    let work = move || {
        if let Err(error) = runtime().and_then(|runtime| runtime.block_on(work())) {
            // Whoever shows has ended already otherwise.
            let _ = end.send(error);
        }
    };
    let thread = thread::Builder::new().name("gather".to_owned());
    thread.spawn(work).context("cannot start a thread")?;
    Ok(())
}

struct State {
    table: Table,
    machine: Option<Machine>,
    processes: Processes,
    walker: Walker,
    /// What is being walked.
    walking: Option<Id>,
    budget: Budget,
    books: Option<Books>,
    stopwatch: Stopwatch,
    /// What is counted.
    counts: watch::Receiver<Counts>,
    wish: Wish,
    interval_ns: u64,
    read_ns: u64,
    publish: watch::Sender<Arc<Snapshot>>,
}

/// What the kernel counts.
struct Books {
    probes: Probes,
    before: Reading,
    before_ns: u64,
}

impl State {
    /// Gathers until nobody looks any more.
    async fn gather(
        mut self,
        every: Duration,
        mut wished: watch::Receiver<Wish>,
        mut replanned: watch::Receiver<WalkPlan>,
        mut recounted: watch::Receiver<Counts>,
        mut attached: Option<oneshot::Receiver<Result<Probes, String>>>,
    ) -> Result<()> {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => if !self.wish.paused {
                    self.read()?;
                    self.walk_next(false)?;
                    self.show()?;
                },
                changed = wished.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let before = std::mem::replace(&mut self.wish, *wished.borrow_and_update());
                    self.walk_next(before.asked != self.wish.asked)?;
                }
                changed = replanned.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let WalkPlan { share, walkable } = replanned.borrow_and_update().clone();
                    self.budget.set_share(share);
                    self.budget.set_walkable(walkable);
                }
                changed = recounted.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.count_less()?;
                }
                found = self.walker.found.recv() => {
                    let look = found.context("the thread that walks ended")?;
                    self.walked(look)?;
                }
                probes = ready(&mut attached) => {
                    attached = None;
                    self.count(probes)?;
                }
            }
        }
    }

    /// Reads every process, and what the kernel counted of it.
    fn read(&mut self) -> Result<()> {
        let now = now_ns()?;
        let readings = self.table.read().context("cannot list /proc")?;
        self.processes.read(now, readings);
        self.budget.earn(now.saturating_sub(self.read_ns));
        self.read_ns = now;
        if let Some(Books { probes, before, before_ns }) = &mut self.books {
            let reading = match &mut self.machine {
                None => probes.machine()?,
                Some(machine) => machine.read(probes)?,
            };
            let now = now_ns()?;
            let evidence = probes.evidence();
            let rows = match &mut self.machine {
                None => process_rows(&reading, before, evidence),
                Some(machine) => {
                    self.processes.time_probes(self.stopwatch.read(now, probes)?);
                    // Nobody asks for programs.
                    let top = Top { programs: 0, ..Top::of_each(usize::MAX) };
                    let report = machine.report(&reading, before, evidence, (*before_ns, now), top);
                    let rows = report.processes.clone();
                    self.processes.count_machine(report);
                    rows
                }
            };
            let counting = Counting::On { evidence, untracked: reading.untracked };
            self.processes.count(now.saturating_sub(*before_ns), counting, &rows);
            (*before, *before_ns) = (reading, now);
        }
        Ok(())
    }

    fn count(&mut self, probes: Result<Probes, String>) -> Result<()> {
        match probes {
            Ok(probes) => {
                let before = probes.machine()?;
                self.books = Some(Books { probes, before, before_ns: now_ns()? });
                self.count_less()?;
            }
            Err(why) => {
                log::warn!("what leaves processes is not counted: {why}");
                self.processes.count_nothing(why);
            }
        }
        Ok(())
    }

    /// Stops to count what is not to be counted any more.
    fn count_less(&mut self) -> Result<()> {
        let counts = *self.counts.borrow();
        match (counts, &mut self.books) {
            (Counts::NoFrames, Some(books)) => books.probes.leave_frames_out()?,
            (Counts::Nothing, Some(_)) => {
                self.books = None;
                let why = "memtrace took more of a CPU than its budget".to_owned();
                self.processes.count_nothing(why);
            }
            (Counts::All, _) | (_, None) => {}
        }
        Ok(())
    }

    /// Has the next process walked, if it is time to and none is; `at_once` the one that is meant.
    fn walk_next(&mut self, at_once: bool) -> Result<()> {
        if self.walking.is_some() {
            return Ok(());
        }
        let meant = self.wish.opened.or(self.wish.selected).filter(|_| at_once);
        let next = match meant {
            Some(_) => meant,
            None => self.budget.next(self.processes.all(), self.wish, now_ns()?),
        };
        self.walking = next.filter(|&id| self.walker.ask(id));
        Ok(())
    }

    fn walked(&mut self, look: Option<Look>) -> Result<()> {
        let walked = self.walking.take();
        if let Some(look) = look {
            self.budget.spend(look.cost_ns);
            self.processes.look(look);
        }
        // Others are shown with the next reading.
        let is_meant = walked.is_some_and(|id| Some(id) == self.wish.opened.or(self.wish.selected));
        if is_meant && !self.wish.paused {
            self.show()?;
        }
        if self.wish.opened.is_none() {
            self.walk_next(false)?;
        }
        Ok(())
    }

    fn show(&self) -> Result<()> {
        let snapshot = self.processes.snapshot(now_ns()?, self.interval_ns);
        self.publish.send_replace(Arc::new(snapshot));
        Ok(())
    }
}

/// Waits for the probes; for ever where none are attached, or they were before.
async fn ready(
    attached: &mut Option<oneshot::Receiver<Result<Probes, String>>>,
) -> Result<Probes, String> {
    match attached {
        Some(attached) => attached
            .await
            .unwrap_or_else(|_| Err("the thread that attaches the probes ended".to_owned())),
        None => future::pending().await,
    }
}
