//! One look at processes: what `maps` and `report` show without a probe, and what probes do not tell.

use std::{collections::HashMap, io, ops::Range, time::Instant};

use anyhow::{Context as _, Result};
use memtrace_common::Event;

use super::{failure::is_32_bit, line::Line, machine::surroundings, priority, status::Work};
use crate::{
    allocator::walked::Walked,
    model::{
        Model,
        build::{self, Held, Residency},
        cells::share,
        process::Process,
        region_map::PAGE,
        report::{Evidence, ProcessReport, Report},
    },
    source::{
        allocators::{self, Allocators},
        procfs::{self, Regions, pagemap},
        progress::Counter,
        stopped::Stopped,
    },
};

/// A process as it was read.
pub(super) struct Look {
    pid: u32,
    found: procfs::Found,
    /// Its regions, what is resident in them, and what its allocators hold.
    pub(super) regions: Regions,
    cells: Option<u64>,
}

/// What of a process is read beside what every look has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// What was not touched lately, where that was reset before.
    pub(super) cold: bool,
    /// Where its pages are, in so many cells at most.
    pub(super) cells: Option<u64>,
}

impl Look {
    /// Reads the regions of a process.
    pub(super) fn at(pid: u32, found: procfs::Found, wanted: Wanted) -> io::Result<Self> {
        let Wanted { cold, cells } = wanted;
        let read = if cold { procfs::regions_and_cold } else { procfs::regions };
        let mut regions = read(pid)?;
        if let Some(most) = cells {
            regions.locate(pid, most)?;
        }
        Ok(Self { pid, found, regions, cells })
    }

    /// Takes a process as it was read elsewhere.
    pub(super) const fn of(pid: u32, found: procfs::Found, regions: Regions) -> Self {
        Self { pid, found, regions, cells: None }
    }

    /// Walks its allocators; when `exact`, while it stands still. What is read is counted.
    ///
    /// Errors: it is gone. What else goes wrong is part of the report.
    pub(super) fn walk(&mut self, exact: bool, counter: &Counter) -> io::Result<()> {
        let Found { walked, unwalked } = walk_allocators(self.pid, exact, self.cells, counter)?;
        self.regions.residency.take_walked(walked, unwalked);
        Ok(())
    }
}

/// Walks of processes, one after the other.
pub(super) struct Walks {
    counter: Counter,
    begun: usize,
    count: usize,
}

impl Walks {
    /// Those of some processes: about all of their private memory will be read.
    pub(super) fn of(pids: impl Iterator<Item = u32>) -> Self {
        let (mut total, mut count) = (0_u64, 0);
        for pid in pids {
            total = total.saturating_add(private(pid));
            count += 1;
        }
        Self { counter: Counter::new(Some(total)), begun: 0, count }
    }

    /// Shows how far they are while the returned line lives.
    pub(super) fn show(&self) -> Line {
        Work::Looking.show(&self.counter)
    }

    /// Begins the next. Returns who counts what is read.
    pub(super) fn next(&mut self, pid: u32, comm: &str) -> &Counter {
        self.begun += 1;
        let place = match self.count {
            0 | 1 => String::new(),
            count => format!("{} of {count}: ", self.begun),
        };
        self.counter.begin(format!("{place}{comm} (pid {pid})"), private(pid));
        &self.counter
    }
}

/// Returns a process's RSS in bytes, about (`/proc/PID/statm`).
pub(super) fn rss(tgid: u32) -> Option<u64> {
    Some(statm(tgid)?[1])
}

/// Returns how many bytes of it are no file's and no shared memory's.
fn private(tgid: u32) -> u64 {
    statm(tgid).map_or(0, |[_, resident, shared]| resident.saturating_sub(shared))
}

/// Returns what is mapped, resident, and resident of files and shared memory, in bytes.
fn statm(tgid: u32) -> Option<[u64; 3]> {
    let statm = std::fs::read_to_string(format!("/proc/{tgid}/statm")).ok()?;
    let mut words = statm.split(' ').map_while(|pages| pages.parse::<u64>().ok());
    let mut bytes = || Some(words.next()?.saturating_mul(PAGE));
    Some([bytes()?, bytes()?, bytes()?])
}

/// What it takes to look at a process of another user (ptrace(2), access modes; proc(5)).
pub(super) const NEEDED: &str =
    "it takes root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, to look at other users' processes";

/// What the allocators of a process hold, and why that is not known of others, in sentences.
#[derive(Debug, Default)]
struct Found {
    walked: Vec<Walked>,
    unwalked: Vec<String>,
}

/// Walks the allocators of a process; when `exact`, while it stands still.
///
/// Errors: it is gone. What else goes wrong is part of what was found.
fn walk_allocators(
    pid: u32,
    exact: bool,
    cells: Option<u64>,
    counter: &Counter,
) -> io::Result<Found> {
    let not_walked = |why: &str| Found {
        unwalked: vec![format!("its heap was not walked: {why}")],
        ..Found::default()
    };
    if is_32_bit((procfs::memory_dir(pid) + "/exe").as_ref()) {
        return Ok(not_walked("it is a 32-bit program"));
    }
    let walked = if exact {
        walk_stopped(pid, cells, counter)
    } else {
        allocators::walk(pid, false, cells, counter).map_err(anyhow::Error::from)
    };
    match walked {
        Ok(Allocators { walked, unwalked }) => {
            let unwalked = unwalked.iter().map(ToString::to_string).collect();
            Ok(Found { walked, unwalked })
        }
        Err(error) => match error.downcast::<io::Error>() {
            Ok(error) if procfs::is_gone(&error) => Err(error),
            Ok(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Ok(not_walked(&format!("{error}; {NEEDED}")))
            }
            Ok(error) => Ok(not_walked(&error.to_string())),
            Err(error) => Ok(not_walked(&format!("{error:#}"))),
        },
    }
}

/// Walks while the process stands still, and no arena is locked.
fn walk_stopped(pid: u32, cells: Option<u64>, counter: &Counter) -> Result<Allocators> {
    /// Times that it is stopped again since an arena was locked when it stood still.
    const MOST_STOPS: usize = 20;
    let mut found = Allocators::default();
    for _ in 0..MOST_STOPS {
        let (stopped, since) = (Stopped::new(pid)?, Instant::now());
        found = allocators::walk(pid, true, cells, counter)?;
        drop(stopped);
        log::info!("process {pid} stood still for {:.1} ms", since.elapsed().as_secs_f64() * 1e3);
        if found.walked.iter().all(|walked| walked.locked == 0) {
            break;
        }
    }
    Ok(found)
}

/// Looks at the traced processes that live; where their pages are is read only if it is `located`. One
/// that is gone meanwhile is left out. The line that tells how far that is comes from `show`.
pub(super) fn look_at_living(
    model: &Model,
    located: bool,
    show: impl FnOnce(&Walks) -> Line,
) -> HashMap<u32, Residency> {
    let mut walks = Walks::of(model.living().map(|process| process.tgid));
    let _line = show(&walks);
    let mut looked = HashMap::new();
    let cells = located.then(|| share(model.living().count()));
    for &Process { tgid, ref comm, .. } in model.living() {
        match look_at(model, tgid, cells, walks.next(tgid, comm)) {
            Ok(found) => _ = looked.insert(tgid, found),
            Err(error) if procfs::is_gone(&error) => {}
            Err(error) => log::warn!("cannot read what is resident in process {tgid}: {error}"),
        }
    }
    looked
}

/// Reads what a process has resident, and what holds frames that it gave up.
fn look_at(
    model: &Model,
    tgid: u32,
    cells: Option<u64>,
    counter: &Counter,
) -> io::Result<Residency> {
    // What is resident comes last: the books are read right after it.
    let Found { walked, unwalked } =
        priority::without_hurry(|| walk_allocators(tgid, false, cells, counter))?;
    let mut found = procfs::regions(tgid)?;
    if let Some(most) = cells {
        found.locate(tgid, most)?;
    }
    let procfs::Regions { regions, mut residency } = found;
    residency.take_walked(walked, unwalked);
    let space = model.process(tgid).and_then(Process::space).map(|id| model.space(id));
    if let Some(space) = space {
        let advised: Vec<Range<u64>> = space.advised().collect();
        let resident = pagemap::resident(tgid, advised)?.anon;
        residency.advised = Some(resident.saturating_mul(PAGE));
    }
    if model.evidence() == Evidence::Frames {
        let known = regions.iter().map(|region| region.start..region.end);
        let anon = known.filter(|range| residency.regions[&range.start].anon > 0);
        let frames = pagemap::held_by_huge_pages(tgid, anon)?;
        residency.held =
            Held { by_huge_pages: frames.saturating_mul(PAGE), by_pins: procfs::pinned(tgid)? };
    }
    Ok(residency)
}

/// Returns the report about a process as it was reported on before.
pub(super) fn report_of(process: ProcessReport, at_ns: u64) -> Result<Report> {
    let surroundings = surroundings(at_ns).context("cannot read what this machine is")?;
    let none = build::report(&Model::new(Evidence::Args), surroundings, &HashMap::new());
    Ok(Report { processes: vec![process], ..none })
}

/// Returns the report about processes that were looked at since a moment.
pub(super) fn report(looks: Vec<Look>, start_ns: u64) -> Result<Report> {
    // Nothing is followed: what needs that is not known.
    let mut model = Model::new(Evidence::Args);
    let mut residency = HashMap::new();
    for Look { pid, found, regions, cells: _ } in looks {
        let mut seed = procfs::seed(pid, &found.stat, &regions.residency);
        // Nobody said which address space it is: it is the process's own.
        seed.header.mm = pid.into();
        model.apply(&Event::TaskSeed(seed));
        model.replace_regions(seed.header.mm, &regions.regions, 0);
        if let Some(process) = model.process_mut(pid) {
            process.comm = found.stat.comm;
            process.exe = found.exe;
        }
        residency.insert(pid, regions.residency);
    }
    let surroundings = surroundings(start_ns).context("cannot read what this machine is")?;
    Ok(build::report(&model, surroundings, &residency))
}
