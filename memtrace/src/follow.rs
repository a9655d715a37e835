//! Keeps the model of traced processes in step with the kernel: seeds it, feeds it, heals it.

use std::{fs::File, io, time::Duration};

use anyhow::{Context as _, Result};
use memtrace_common::{Event, Ledger, ProbeStats};
use tokio::time::{Instant, sleep_until};

use crate::{
    model::{Model, SpaceId, fact::Fact, report::Evidence, space::Afterlife},
    probe::{
        attach::{Diagnostics, Missed, Options, Probes},
        look::{Gone, Snapshot},
    },
    source::{
        live::Live,
        procfs,
        trace_file::{TraceEnd, TraceWriter},
    },
};

/// A trace that is being written.
type Kept = TraceWriter<File>;

/// The probes, what they say, and what is known from it. Its owner decides when to look.
pub struct Follower {
    probes: Probes,
    live: Live,
    model: Model,
    /// The trace that is kept, for `memtrace replay`.
    kept: Option<Kept>,
    /// Why it ends before the rest.
    cut: Option<io::Error>,
    lost: u64,
    missed: u64,
    /// How often records were found lost.
    losses: u64,
    /// When the ring buffer is drained next.
    next_drain: Instant,
    pause: Duration,
    /// When the kernel's books were read last.
    books_read: Instant,
    /// When lost records were looked for, and how many had been received.
    last_heal: (Instant, u64),
}

impl Follower {
    /// How often the ring buffer is drained while records come, too few for the probes to say so.
    pub const TICK: Duration = Duration::from_millis(10);
    /// The same when none came for a while.
    const QUIET_TICK: Duration = Duration::from_millis(100);
    /// How often lost records are looked for while records come.
    const HEALTH: Duration = Duration::from_millis(50);
    /// The same when none came.
    const QUIET_HEALTH: Duration = Duration::from_millis(500);

    /// Attaches the probes. Needs tokio's runtime.
    pub fn attach(options: Options) -> Result<Self> {
        let mut probes = Probes::attach(options)?;
        let live = Live::new(probes.events()?)?;
        let model = Model::new(probes.evidence());
        let now = Instant::now();
        let (next_drain, pause, last_heal) = (now, Self::TICK, (now, 0));
        Ok(Self {
            probes,
            live,
            model,
            kept: None,
            cut: None,
            lost: 0,
            missed: 0,
            losses: 0,
            next_drain,
            pause,
            books_read: now,
            last_heal,
        })
    }

    /// Tells whether the books are to be read: a trace has them once a second, should it be cut.
    pub fn wants_books(&self) -> bool {
        self.kept.is_some() && self.books_read.elapsed() >= Duration::from_secs(1)
    }

    /// Keeps from now on what the model is made of.
    pub fn record(&mut self, kept: Kept) {
        self.kept = Some(kept);
    }

    /// Tells whether a trace was to be kept that could not be written any further.
    pub const fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Ends the trace, if one is kept; returns how many bytes it has.
    ///
    /// Errors: it could not be written, now or before.
    pub fn finish_record(&mut self, end: &TraceEnd) -> io::Result<Option<u64>> {
        if let Some(error) = self.cut.take() {
            return Err(error);
        }
        self.kept.take().map(|kept| kept.finish(end)).transpose()
    }

    /// Returns the probes' own diagnostics.
    pub fn diagnostics(&mut self) -> Result<Diagnostics> {
        self.probes.diagnostics()
    }

    /// Returns what is known.
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// Returns the probes.
    pub const fn probes(&self) -> &Probes {
        &self.probes
    }

    /// Returns the probes, to attach more.
    pub const fn probes_mut(&mut self) -> &mut Probes {
        &mut self.probes
    }

    /// Returns how many records were taken out of the ring buffer.
    pub const fn received(&self) -> u64 {
        self.live.received()
    }

    /// Returns how many records are missing, by the numbers that each CPU gave them.
    pub fn missing(&self) -> u64 {
        self.live.missing()
    }

    /// Returns how many records were not understood.
    pub const fn unknown(&self) -> u64 {
        self.live.unknown()
    }

    /// Returns how often records were found lost.
    pub const fn losses(&self) -> u64 {
        self.losses
    }

    /// Follows a child that has not executed its command yet.
    pub fn expect(&mut self, tgid: u32) -> Result<()> {
        self.learn(Fact::Expected { tgid });
        self.probes.expect(tgid)
    }

    /// Follows a running process from now on.
    ///
    /// Errors: [`Gone`] when it has no address space (any more).
    pub fn seed(&mut self, tgid: u32) -> Result<()> {
        let found = procfs::find(tgid)
            .with_context(|| format!("cannot read /proc/{tgid}/stat"))?
            .ok_or(Gone)?;
        let seed = self.probes.seed(tgid)?;
        self.apply(&Event::TaskSeed(seed));
        self.read_regions(tgid, seed.header.mm)?;
        let (comm, faults) = (found.stat.comm, found.stat.faults);
        self.learn(Fact::Found { tgid, comm, exe: found.exe, faults });
        Ok(())
    }

    /// Waits until it is time to drain, and returns whether it is time to heal as well.
    pub async fn turn(&mut self) -> Result<bool> {
        tokio::select! {
            ready = self.live.readable() => ready?,
            () = sleep_until(self.next_drain) => {}
        }
        let (last, received) = self.last_heal;
        let is_quiet = self.live.received() == received;
        let wanted = if is_quiet { Self::QUIET_HEALTH } else { Self::HEALTH };
        Ok(last.elapsed() >= wanted)
    }

    /// Applies what the probes said.
    pub fn catch_up(&mut self) {
        self.drain(|model, event| drop(model.apply(event)));
    }

    /// Applies what the probes said, and keeps it. `each` gets the model as the event is applied to it.
    pub fn drain(&mut self, mut each: impl FnMut(&mut Model, &Event)) {
        let Self { live, model, kept, .. } = self;
        let before = live.received();
        let mut failed = None;
        let keep = |record: &[u8]| {
            if let Some(kept) = kept.as_mut().filter(|_| failed.is_none()) {
                failed = kept.write(record).err();
            }
        };
        live.drain(keep, |event| each(model, event));
        let is_quiet = live.received() == before;
        self.keep(|kept, model| {
            failed.map_or(Ok(()), Err)?;
            if kept.wants_state() {
                kept.state(model)?;
            }
            kept.turn(Instant::now().into())
        });
        self.pause = if is_quiet { (self.pause * 2).min(Self::QUIET_TICK) } else { Self::TICK };
        self.next_drain = Instant::now() + self.pause;
    }

    /// Looks for lost records and reads again the region maps that they made stale.
    pub fn heal(&mut self) -> Result<ProbeStats> {
        self.last_heal = (Instant::now(), self.live.received());
        let stats = self.probes.stats()?;
        let missed = self.probes.missed()?.region_runs;
        // The numbers of the records tell it when the next one of the CPU comes, the kernel's count
        // at once.
        let lost = stats.dropped.max(self.live.missing());
        if lost > self.lost || missed > self.missed {
            (self.lost, self.missed) = (lost, missed);
            self.losses += 1;
            self.learn(Fact::Lost);
        }
        for (tgid, mm) in self.model.stale() {
            match self.read_regions(tgid, mm) {
                // Its end is in the ring buffer.
                Err(error) if error.is::<Gone>() => {}
                read => read?,
            }
        }
        Ok(stats)
    }

    fn read_regions(&mut self, tgid: u32, mm: u64) -> Result<()> {
        let Snapshot { regions, names, sections } = self.probes.regions(tgid, mm)?;
        for name in names {
            self.apply(&Event::FileName(name));
        }
        self.learn(Fact::Regions { mm, regions, sections });
        Ok(())
    }

    /// Books what is in flight between living processes and the probes. Where region maps are not
    /// followed, they are read.
    pub fn settle(&mut self) -> Result<()> {
        if self.probes.evidence() == Evidence::Args {
            self.learn(Fact::Lost);
            return self.heal().map(drop);
        }
        let living: Vec<u32> = self.model.living().map(|process| process.tgid).collect();
        for tgid in living {
            match self.probes.settle(tgid) {
                Err(error) if error.is::<Gone>() => {}
                settled => settled?,
            }
        }
        Ok(())
    }

    /// Reads the kernel's books of the address spaces that are still there.
    pub fn read_books(&mut self) -> Result<()> {
        self.books_read = Instant::now();
        for (tgid, mm) in self.model.living_mms() {
            if let (Some(ledger), Some(space)) =
                (self.probes.ledger(tgid, mm)?, self.model.space_at(mm))
            {
                self.learn_books(space, ledger, mm)?;
            }
        }
        for (mm, space) in self.model.ended() {
            if let Some(ledger) = self.probes.final_ledger(mm)? {
                self.learn_books(space, ledger, mm)?;
            }
        }
        Ok(())
    }

    fn learn_books(&mut self, space: SpaceId, ledger: Ledger, mm: u64) -> Result<()> {
        let (delays, remanence) = (self.probes.delays(mm)?, self.probes.remanence(mm)?);
        let afterlife = Afterlife { delays, remanence };
        let known = self.model.space(space);
        if (known.ledger, known.afterlife) == (ledger, afterlife) {
            return Ok(());
        }
        let (ledger, afterlife) = (Box::new(ledger), Box::new(afterlife));
        self.learn(Fact::Books { space, ledger, afterlife });
        Ok(())
    }

    /// Takes in, and keeps, what was read beside the records.
    pub fn learn(&mut self, fact: Fact) {
        self.keep(|kept, _| kept.fact(&fact));
        self.model.learn(&fact);
    }

    fn apply(&mut self, event: &Event) {
        self.keep(|kept, _| kept.event(event));
        self.model.apply(event);
    }

    fn keep(&mut self, write: impl FnOnce(&mut Kept, &Model) -> io::Result<()>) {
        if let Some(kept) = &mut self.kept
            && let Err(error) = write(kept, &self.model)
        {
            log::warn!("the trace ends here: cannot write to it: {error}");
            (self.kept, self.cut) = (None, Some(error));
        }
    }

    /// Returns the probes' counters and the runs that the kernel skipped.
    pub fn counters(&self) -> Result<(ProbeStats, Missed)> {
        Ok((self.probes.stats()?, self.probes.missed()?))
    }
}
