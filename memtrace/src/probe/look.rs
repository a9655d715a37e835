//! Looks at what the probes keep in the kernel, and at processes as they are now.

use std::{io, ops::Range, os::fd::AsFd as _, process};

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::{Array, HashMap, MapError},
    programs::Iter,
};
use memtrace_common::{
    COUNTERS, Delays, Event, FileName, Ledger, Owner, PATHS, Region, Remanence, TaskSeed,
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    attach::{Probes, Wire},
    iter::{self, Scope},
    load::program,
};
use crate::{
    model::report::Evidence,
    source::{procfs, replay::records},
};

/// The value of the map `BOOKS`: the books and what the probes keep beside them.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub(super) struct Mm {
    pub(super) ledger: Ledger,
    shared: [i64; COUNTERS],
    pub(super) state: u32,
    seeded: u32,
    number: u64,
    slot: u32,
    reserved: u32,
    family: u64,
    pub(super) mm: u64,
    left: [u64; 3],
    stored: [u64; 7],
    pub(super) owner: Owner,
    pub(super) operations: [u64; PATHS],
}

impl Mm {
    /// `Mm::SEEDING` of the probes.
    pub(super) const SEEDING: u32 = 0;
    /// `Mm::DEAD` of the probes.
    pub(super) const DEAD: u32 = 3;
}

impl Probes {
    /// Traces a running process from now on. Returns what was found.
    ///
    /// Errors: [`Gone`] when it has no address space (any more).
    pub fn seed(&mut self, tgid: u32) -> Result<TaskSeed> {
        self.expect(tgid)?;
        let seed = if self.evidence == Evidence::Args {
            self.seed_args(tgid)?
        } else {
            self.seed_counters(tgid)?
        };
        if seed.tracked == 0 {
            bail!("the table of address spaces is full");
        }
        Ok(seed)
    }

    /// Books what is in flight between a followed process and the probes, so that its books are
    /// exact.
    ///
    /// Errors: [`Gone`] when it has no address space any more.
    pub fn settle(&mut self, tgid: u32) -> Result<()> {
        if self.evidence == Evidence::Args {
            return Ok(());
        }
        self.seed_counters(tgid).map(drop)
    }

    fn seed_args(&mut self, tgid: u32) -> Result<TaskSeed> {
        let fd = self.program_fd("seed_args_iter")?;
        let scope = if self.iterates_one {
            Scope::Thread(procfs::living_thread(tgid).ok_or(Gone)?)
        } else {
            Scope::Machine
        };
        let bytes = read_iter(fd.as_fd(), scope)?;
        let mut seeds = records(&bytes).filter_map(|event| {
            if let Ok(Event::TaskSeed(seed)) = event { Some(seed) } else { None }
        });
        Ok(seeds.find(|seed| seed.header.tgid == tgid).ok_or(Gone)?)
    }

    fn seed_counters(&mut self, tgid: u32) -> Result<TaskSeed> {
        let fd = self.program_fd("seed_iter")?;
        let thread = procfs::living_thread(tgid).ok_or(Gone)?;
        let mut seed = None;
        on_each_cpu(&self.cpus, || {
            let bytes = read_iter(fd.as_fd(), Scope::Thread(thread))?;
            if let Some(Ok(Event::TaskSeed(found))) = records(&bytes).next() {
                seed = Some(found);
            }
            Ok(())
        })?;
        Ok(seed.ok_or(Gone)?)
    }

    /// Reads the regions of a followed process.
    pub fn regions(&mut self, tgid: u32, mm: u64) -> Result<Snapshot> {
        if self.evidence == Evidence::Args {
            return Snapshot::of_maps(tgid, 0);
        }
        let sections = self.books(mm)?.ok_or(Gone)?.ledger.sections;
        let fd = self.program_fd("regions_iter")?;
        let bytes = read_iter(fd.as_fd(), Scope::Process(tgid))?;
        let mut regions: Vec<Region> = Vec::new();
        for event in records(&bytes) {
            let Ok(Event::MapRegion(region)) = event else { continue };
            // Another thread of the process is listed as well: the same again. (One that merged with
            // what lay below it may go back a little.)
            if regions.first().is_some_and(|first| region.start <= first.start) {
                break;
            }
            if region.header.mm == mm {
                regions.push(region);
            }
        }
        if regions.is_empty() {
            // Some kernels give up at a leader that exited, though others live (6.1).
            return Snapshot::of_maps(tgid, sections);
        }
        Ok(Snapshot { regions, names: Vec::new(), sections })
    }

    /// Returns how many write sections of an address space have begun, `None` when it is not
    /// followed.
    pub fn sections(&self, mm: u64) -> Result<Option<u64>> {
        Ok(self.books(mm)?.map(|books| books.ledger.sections))
    }

    /// Reads the books of a living address space that process `tgid` has, `None` when it is not
    /// followed.
    pub fn ledger(&mut self, tgid: u32, mm: u64) -> Result<Option<Ledger>> {
        let Some(Mm { mut ledger, .. }) = self.books(mm)?.filter(|books| books.state != Mm::DEAD)
        else {
            return Ok(None);
        };
        if self.threads_count {
            for (counted, unsynced) in ledger.in_pages.iter_mut().zip(self.unsynced(tgid)?) {
                *counted += unsynced;
            }
        }
        Ok(Some(ledger))
    }

    /// Reads how long the late frames of an address space took, `None` when there were none.
    pub fn delays(&self, mm: u64) -> Result<Option<Delays>> {
        let map = self.bpf.map("DELAYS").context("the object has no map DELAYS")?;
        let delays: HashMap<_, u64, Wire<Delays>> = HashMap::try_from(map)?;
        found(delays.get(&mm, 0)).context("cannot read the delays")
    }

    /// Reads how long freed frames of an address space kept what was in them, `None` when nobody
    /// measured, or none were freed.
    pub fn remanence(&self, mm: u64) -> Result<Option<Remanence>> {
        if !self.remanence {
            return Ok(None);
        }
        let Some(books) = self.books(mm)? else { return Ok(None) };
        let map = self.bpf.map("REMANENCE").context("the object has no map REMANENCE")?;
        let remanence: HashMap<_, u64, Wire<Remanence>> = HashMap::try_from(map)?;
        found(remanence.get(&(books.number & Remanence::TAG), 0))
            .context("cannot read the remanence")
    }

    /// Sums what the threads of a process counted and have not added to its mm's counters yet.
    fn unsynced(&mut self, tgid: u32) -> Result<[i64; COUNTERS]> {
        let fd = self.program_fd("unsynced_iter")?;
        let bytes = match read_iter(fd.as_fd(), Scope::Process(tgid)) {
            Err(error) if error.is::<Gone>() => Vec::new(),
            read => read?,
        };
        let mut sum = [0; COUNTERS];
        for thread in bytes.chunks_exact(size_of::<[i32; COUNTERS]>()) {
            let pages = <[i32; COUNTERS]>::read_from_bytes(thread).unwrap_or_default();
            for (sum, pages) in sum.iter_mut().zip(pages) {
                *sum += i64::from(pages);
            }
        }
        Ok(sum)
    }

    /// Reads the books of an address space that was torn down, `None` when another took its place.
    pub fn final_ledger(&self, mm: u64) -> Result<Option<Ledger>> {
        Ok(self.books(mm)?.filter(|books| books.state == Mm::DEAD).map(|books| books.ledger))
    }

    fn books(&self, mm: u64) -> Result<Option<Mm>> {
        let map = self.bpf.map("MMS").context("the object has no map MMS")?;
        let mms: HashMap<_, u64, Wire<u32>> = HashMap::try_from(map)?;
        let slot = found(mms.get(&mm, 0)).context("cannot find the books")?;
        // By now the slot may be another's.
        Ok(slot.map(|slot| self.books_at(slot)).transpose()?.filter(|books| books.mm == mm))
    }

    /// Reads the books in a slot, which may be free: then their `mm` is 0.
    pub(super) fn books_at(&self, slot: u32) -> Result<Mm> {
        let map = self.bpf.map("BOOKS").context("the object has no map BOOKS")?;
        let books: Array<_, Wire<Mm>> = Array::try_from(map)?;
        let Wire(books) = books.get(&slot, 0).context("cannot read the books")?;
        Ok(books)
    }

    /// Returns the slots that books were ever in.
    pub(super) fn slots(&self) -> Result<Range<u32>> {
        let map = self.bpf.map("USED_SLOTS").context("the object has no map USED_SLOTS")?;
        let used: Array<_, u64> = Array::try_from(map)?;
        let most = self.bpf.map("BOOKS").context("the object has no map BOOKS")?;
        let most: Array<_, Wire<Mm>> = Array::try_from(most)?;
        let used = used.get(&0, 0).context("cannot count the books")?;
        Ok(0..most.len().min(u32::try_from(used).unwrap_or(u32::MAX)))
    }

    pub(super) fn anchor(&mut self) -> Result<()> {
        let fd = self.program_fd("anchor_iter")?;
        on_each_cpu(&self.cpus, || read_iter(fd.as_fd(), Scope::Thread(process::id())).map(drop))
    }

    pub(super) fn program_fd(&mut self, name: &str) -> Result<std::os::fd::OwnedFd> {
        let program: &mut Iter = program(&mut self.bpf, name)?.try_into()?;
        Ok(program.fd()?.as_fd().try_clone_to_owned()?)
    }
}

/// The regions of an address space, read one after the other while they may have changed.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// In ascending order.
    pub regions: Vec<Region>,
    /// Names of files, where no probe sent them.
    pub names: Vec<FileName>,
    /// Write sections that had begun before the first was read.
    pub sections: u64,
}

impl Snapshot {
    /// Reads the regions as `/proc` shows them.
    fn of_maps(tgid: u32, sections: u64) -> Result<Self> {
        let mappings = match procfs::maps(tgid) {
            Err(error) if procfs::is_gone(&error) => return Err(Gone.into()),
            read => read.with_context(|| format!("cannot read /proc/{tgid}/maps"))?,
        };
        Ok(Self {
            regions: mappings.iter().map(|mapping| procfs::region(tgid, mapping)).collect(),
            names: mappings.iter().filter_map(procfs::file_name).collect(),
            sections,
        })
    }
}

/// A process that has no address space: it exited, or belongs to the kernel.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the process is gone")]
pub struct Gone;

/// Returns the value that a look-up gave, if there is one.
fn found<T>(value: Result<Wire<T>, MapError>) -> Result<Option<T>, MapError> {
    match value {
        Ok(Wire(value)) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn read_iter(program: std::os::fd::BorrowedFd<'_>, scope: Scope) -> Result<Vec<u8>> {
    match iter::run(program, scope) {
        Ok(bytes) => Ok(bytes),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => {
            Err(Gone.into())
        }
        Err(error) => Err(error).with_context(|| format!("cannot look at {scope:?}")),
    }
}

/// Runs `work` on each CPU in turn, then lets this thread run where it ran before.
pub(super) fn on_each_cpu(cpus: &[usize], mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).context("cannot read the CPU affinity")?;
    let mut result = Ok(());
    for &cpu in cpus {
        let mut set = CpuSet::new();
        set.set(cpu)?;
        result = match sched_setaffinity(this, &set) {
            Ok(()) => work(),
            Err(error) => Err(io::Error::from(error)).context(format!("cannot run on CPU {cpu}")),
        };
        if result.is_err() {
            break;
        }
    }
    sched_setaffinity(this, &before).context("cannot restore the CPU affinity")?;
    result
}
