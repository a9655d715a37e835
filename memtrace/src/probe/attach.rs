//! Loads the object and attaches what the plan says. Nothing outlives [`Probes`]: dropped or killed,
//! the kernel detaches every program.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    process,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Btf, Ebpf,
    maps::{HashMap, MapData, MapError, PerCpuArray, RingBuf},
    programs::Iter,
};
use memtrace_common::{COUNTERS, Event, Ledger, ProbeStats, Region, TaskSeed};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use zerocopy::{FromBytes, IntoBytes};

use super::load::{attach, load, program, try_trampoline};
use super::{
    btf::KernelBtf,
    facts,
    iter::{self, Scope},
    plan::{Asked, KernelFacts, Plan, Step, plan},
    table::PROBES,
};
use crate::{
    model::report::ProbeReport,
    source::{procfs, replay::records},
};

/// What was asked of the probes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Trace children too.
    pub follow: bool,
    /// What decides which probes are attached.
    pub asked: Asked,
    /// Size of the ring buffer, bytes: a power of two and at least a page.
    pub buffer_bytes: u32,
    /// Level of the probes' own diagnostics, 0 for none (`aya_log_common::Level`).
    pub log_level: u8,
}

impl Options {
    /// Asks for running processes and nothing that costs more.
    pub const fn running(follow: bool, buffer_bytes: u32) -> Self {
        let asked = Asked { fault_events: false, running: true };
        Self { follow, asked, buffer_bytes, log_level: 0 }
    }
}

/// What the probes say of themselves, passed on to the `log` crate.
pub type Diagnostics = aya_log::EbpfLogger<&'static dyn log::Log>;

/// The attached probes.
pub struct Probes {
    bpf: Ebpf,
    plan: Plan,
    /// CPUs that were online.
    cpus: Vec<usize>,
    /// Each thread counts pages for itself before it adds them to its mm's counters (before 6.2).
    threads_count: bool,
}

/// A shared type, as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Wire<T>(T);

// SAFETY: any bytes are a `T` (`FromBytes`) and none of them is padding (`IntoBytes`).
unsafe impl<T: FromBytes + IntoBytes + Copy + 'static> aya::Pod for Wire<T> {}

/// The value of the map `MMS`: the books and what the probes keep beside them.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Mm {
    ledger: Ledger,
    shared: [i64; COUNTERS],
    state: u32,
    seeded: u32,
    number: u64,
    slot: u32,
    reserved: u32,
    stored: [u64; 7],
}

impl Mm {
    /// `Mm::DEAD` of the probes.
    const DEAD: u32 = 3;
}

/// Asks the kernel what it offers and what memtrace would take of it.
pub fn examine() -> Result<KernelFacts> {
    let btf = Btf::from_sys_fs().context("cannot read the kernel's types")?;
    let kernel = KernelBtf::read()?;
    let (mut facts, globals) = facts::read(&kernel);
    if facts.missing_fields.is_empty() {
        let asked = Asked::default();
        let options = Options { follow: false, asked, buffer_bytes: 1 << 16, log_level: 0 };
        let mut bpf = load(&btf, &globals, options, 1)?;
        facts.trampolines = try_trampoline(&mut bpf, &btf)?;
    }
    Ok(facts)
}

impl Probes {
    /// Loads the object, attaches every probe that is wanted.
    pub fn attach(options: Options) -> Result<Self> {
        let btf = Btf::from_sys_fs().context("cannot read the kernel's types")?;
        let (mut facts, globals) = facts::read(&KernelBtf::read()?);
        let cpus = online_cpus()?;
        plan(PROBES, &facts, options.asked)?;
        let mut bpf = load(&btf, &globals, options, cpus.len() as u32)?;
        facts.trampolines = try_trampoline(&mut bpf, &btf)?;
        let plan = plan(PROBES, &facts, options.asked)?;
        let threads_count = facts.tracepoints.get("rss_stat").is_some_and(|&count| count > 2);
        let mut probes = Self { bpf, plan, cpus, threads_count };
        for at in (0..probes.plan.len()).rev() {
            let (probe, step) = probes.plan[at];
            if let Step::Attach(programs) = step {
                for &program in programs {
                    attach(&mut probes.bpf, program, &btf)
                        .with_context(|| format!("cannot attach the probe \"{}\"", probe.name))?;
                }
            }
            if at + 1 == probes.plan.len() {
                // Snapshots come last in the table: the others need what it learns of each CPU.
                probes.anchor()?;
            }
        }
        Ok(probes)
    }

    /// Runs the probes' diagnostics into the `log` crate.
    pub fn diagnostics(&mut self) -> Result<Diagnostics> {
        aya_log::EbpfLogger::init(&mut self.bpf).context("cannot read the probes' diagnostics")
    }

    /// Returns the ring buffer; it can be taken once.
    pub fn events(&mut self) -> Result<RingBuf<MapData>> {
        let map = self.bpf.take_map("EVENTS").context("the ring buffer was taken before")?;
        Ok(RingBuf::try_from(map)?)
    }

    /// Traces process `tgid` from its next exec on.
    pub fn expect(&mut self, tgid: u32) -> Result<()> {
        let map = self.bpf.map_mut("TRACED").context("the object has no map TRACED")?;
        let mut traced: HashMap<_, u32, u32> = HashMap::try_from(map)?;
        traced.insert(tgid, 0, 0).context("cannot tell the probes whom to trace")
    }

    /// Traces a running process from now on. Returns what was found.
    ///
    /// Errors: [`Gone`] when it has no address space (any more).
    pub fn seed(&mut self, tgid: u32) -> Result<TaskSeed> {
        self.expect(tgid)?;
        self.settle(tgid)
    }

    /// Books what is in flight between a followed process and the probes, so that its books are
    /// exact. Returns what was found when it was first seen.
    ///
    /// Errors: [`Gone`] when it has no address space any more.
    pub fn settle(&mut self, tgid: u32) -> Result<TaskSeed> {
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
        let seed: TaskSeed = seed.ok_or(Gone)?;
        if seed.tracked == 0 {
            bail!("the table of address spaces is full");
        }
        Ok(seed)
    }

    /// Reads the regions of a followed process.
    pub fn regions(&mut self, tgid: u32, mm: u64) -> Result<Snapshot> {
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
            let mappings = match procfs::maps(tgid) {
                Err(error) if procfs::is_gone(&error) => return Err(Gone.into()),
                read => read.with_context(|| format!("cannot read /proc/{tgid}/maps"))?,
            };
            regions.extend(mappings.iter().map(|mapping| procfs::region(tgid, mapping)));
        }
        Ok(Snapshot { regions, sections })
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
        let mms: HashMap<_, u64, Wire<Mm>> = HashMap::try_from(map)?;
        match mms.get(&mm, 0) {
            Ok(Wire(books)) => Ok(Some(books)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("cannot read the books"),
        }
    }

    /// Sums the probes' counters over all CPUs.
    pub fn stats(&self) -> Result<ProbeStats> {
        let map = self.bpf.map("STATS").context("the object has no map STATS")?;
        let stats: PerCpuArray<_, Wire<ProbeStats>> = PerCpuArray::try_from(map)?;
        let per_cpu = stats.get(&0, 0)?;
        Ok(per_cpu.iter().fold(ProbeStats::default(), |sum, Wire(cpu)| sum + *cpu))
    }

    /// Counts the runs that the kernel skipped, since the same program was under way on the same
    /// CPU: it may be preempted by another thread (fexit; tracepoints from 7.0).
    pub fn missed(&self) -> Result<Missed> {
        let mut missed = Missed::default();
        for (_, step) in &self.plan {
            let Step::Attach(programs) = step else { continue };
            for &(name, hook) in programs.iter().filter(|(_, hook)| !hook.is_iterator()) {
                let Some(fd) = self.bpf.program(name).and_then(|program| program.fd().ok()) else {
                    continue;
                };
                let runs = recursion_misses(fd.as_fd())
                    .with_context(|| format!("cannot read the statistics of {hook}"))?;
                missed.runs += runs;
                // The others' losses make figures smaller, not the map wrong.
                if name.starts_with("section") || name.starts_with("region") || hook.sees_calls() {
                    missed.region_runs += runs;
                }
            }
        }
        Ok(missed)
    }

    /// Says what became of each probe.
    pub fn report(&self) -> Vec<ProbeReport> {
        describe(&self.plan)
    }

    fn anchor(&mut self) -> Result<()> {
        let fd = self.program_fd("anchor_iter")?;
        on_each_cpu(&self.cpus, || read_iter(fd.as_fd(), Scope::Thread(process::id())).map(drop))
    }

    fn program_fd(&mut self, name: &str) -> Result<std::os::fd::OwnedFd> {
        let program: &mut Iter = program(&mut self.bpf, name)?.try_into()?;
        Ok(program.fd()?.as_fd().try_clone_to_owned()?)
    }
}

/// Runs of probes that the kernel skipped, of any process of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// All of them.
    pub runs: u64,
    /// Those that change region maps.
    pub region_runs: u64,
}

/// Reads `recursion_misses` of a program (kernel/bpf/syscall.c, `bpf_prog_show_fdinfo`, 5.12).
fn recursion_misses(program: std::os::fd::BorrowedFd<'_>) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
    Ok(line.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
}

/// The regions of an address space, read one after the other while they may have changed.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// In ascending order.
    pub regions: Vec<Region>,
    /// Write sections that had begun before the first was read.
    pub sections: u64,
}

/// Says what becomes of each probe of a plan.
pub fn describe(plan: &Plan) -> Vec<ProbeReport> {
    let row = |&(probe, step): &(&'static super::plan::Probe, Step)| {
        let (hook, state) = match step {
            Step::Attach(programs) => {
                let mut hooks: Vec<String> =
                    programs.iter().map(|(_, hook)| hook.to_string()).collect();
                hooks.dedup();
                (Some(hooks.join(", ")), "attached")
            }
            Step::Skip => (None, "skipped"),
            Step::Unsupported => (None, "unsupported"),
        };
        ProbeReport { name: probe.name.to_owned(), hook, state }
    };
    plan.iter().map(row).collect()
}

/// A process that has no address space: it exited, or belongs to the kernel.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the process is gone")]
pub struct Gone;

fn read_iter(program: std::os::fd::BorrowedFd<'_>, scope: Scope) -> Result<Vec<u8>> {
    match iter::run(program, scope) {
        Ok(bytes) => Ok(bytes),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => {
            Err(Gone.into())
        }
        Err(error) => Err(error).with_context(|| format!("cannot look at {scope:?}")),
    }
}

fn online_cpus() -> Result<Vec<usize>> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online")
        .context("cannot read /sys/devices/system/cpu/online")?;
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let parse = |number: &str| number.parse::<usize>().context("cannot read the CPU list");
        cpus.extend(parse(first)?..=parse(last)?);
    }
    Ok(cpus)
}

/// Runs `work` on each CPU in turn, then lets this thread run where it ran before.
fn on_each_cpu(cpus: &[usize], mut work: impl FnMut() -> Result<()>) -> Result<()> {
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
