//! Builds the report out of the model and of what was read of the living processes.

mod allocators;
mod counted;
mod memory;
mod reclaimed;
pub mod stack_sums;
pub mod stacks;

use std::collections::{BTreeMap, HashMap};

use memtrace_common::{Counter, Ledger, PathCounters, ProbeStats};
use serde::{Deserialize, Serialize};

use self::{
    allocators::{allocator, free_in_region},
    counted::{faults, madv_free, remanence, swap},
    memory::memory,
    reclaimed::reclaimed,
};
use super::{
    Model,
    cells::Cells,
    findings::findings,
    process::Process,
    region_map::{Backing, PAGE, Vma},
    report::{
        Balance, Evidence, Host, Mapped, ProbeReport, ProcessReport, RegionReport, Report, SCHEMA,
        Window,
    },
    space::{AddressSpace, RegionKind, Requests},
};
use crate::allocator::{pages::InCells, walked::Walked};

/// What the report needs beside the model.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The machine.
    pub host: Host,
    /// When the probes were attached, `CLOCK_BOOTTIME`.
    pub start_ns: u64,
    /// Now.
    pub end_ns: u64,
    /// The probes' own counters.
    pub stats: ProbeStats,
    /// Runs of probes that the kernel skipped.
    pub missed: u64,
    /// The probes and what became of them.
    pub probes: Vec<ProbeReport>,
}

/// What was read of a living process, region by region, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Residency {
    /// By first byte of the region.
    pub regions: HashMap<u64, RegionResidency>,
    /// Sums over all regions.
    pub total: RegionResidency,
    /// Resident and anonymous, in ranges that were given up by `MADV_FREE`.
    pub advised: Option<u64>,
    /// What its allocators hold, of those that were walked.
    pub allocators: Vec<Walked>,
    /// Why others were not, that are in use.
    pub unwalked: Vec<String>,
    /// What of the memory that is not mapped any more is known to be held.
    pub held: Held,
    /// It was read in a core file: what is resident is not known, only what is mapped and held.
    pub of_core: bool,
}

impl Residency {
    /// Takes what was found in allocators, and where in its regions they hold free memory.
    pub fn take_walked(&mut self, mut walked: Vec<Walked>, unwalked: Vec<String>) {
        let mut free: BTreeMap<u64, (u32, Vec<(u64, u64)>)> = BTreeMap::new();
        for InCells { start, order, bytes } in
            walked.iter_mut().flat_map(|walked| walked.free_in_cells.drain(..))
        {
            // All walks divide a region alike.
            free.entry(start).or_insert_with(|| (order, Vec::new())).1.extend(bytes);
        }
        for (start, (order, bytes)) in free {
            let Some(region) = self.regions.get_mut(&start) else { continue };
            let pages = region.end.saturating_sub(start) / PAGE;
            if let Some(cells) = &mut region.cells {
                cells.add_free(order, pages, bytes);
            }
        }
        (self.allocators, self.unwalked) = (walked, unwalked);
    }
}

/// Frames of memory that a process gave up, and what holds them, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// Huge pages of which other parts are mapped.
    pub by_huge_pages: u64,
    /// Pins for devices (`VmPin`).
    pub by_pins: u64,
}

/// What was read of one region, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegionResidency {
    /// First byte after it.
    pub end: u64,
    /// Resident.
    pub resident: u64,
    /// Resident and anonymous.
    pub anon: u64,
    /// In swap.
    pub swapped: u64,
    /// `MADV_FREE`d and not yet taken.
    pub lazy_free: u64,
    /// Resident and not touched since that was reset; `None` where nobody reset it.
    pub cold: Option<u64>,
    /// Where its pages are; `None` where nobody asked, or may not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cells: Option<Cells>,
    /// Name that the kernel gives it.
    pub name: Option<String>,
}

/// Builds the report. `residency` holds what was read of the processes that still run, by `tgid`.
pub fn report(
    model: &Model,
    surroundings: Surroundings,
    residency: &HashMap<u32, Residency>,
) -> Report {
    let Surroundings { host, start_ns, end_ns, stats, missed, probes } = surroundings;
    let ProbeStats { emitted, dropped, untracked, .. } = stats;
    let processes = model.processes().iter();
    Report {
        schema: SCHEMA,
        host,
        window: Window {
            evidence: model.evidence,
            start_ns,
            end_ns,
            emitted,
            dropped,
            untracked,
            missed,
            resyncs: model.resyncs,
            complete: dropped == 0 && untracked == 0,
            probes,
        },
        processes: processes
            .map(|process| {
                let read = residency.get(&process.tgid).filter(|_| process.exit_status.is_none());
                process_report(model, process, read)
            })
            .collect(),
        stacks: None,
    }
}

/// Builds what the report says of one process; `read` is what was read of it, if it still runs.
pub fn process_report(model: &Model, process: &Process, read: Option<&Residency>) -> ProcessReport {
    // A child that borrows its parent's address space (vfork) has no books of its own yet.
    let spaces: Vec<&AddressSpace> = process
        .spaces
        .iter()
        .filter(|&&id| {
            let owner = model.processes().iter().find(|owner| owner.spaces.contains(&id));
            owner.is_some_and(|owner| std::ptr::eq(owner, process))
        })
        .map(|&id| model.space(id))
        .collect();
    let last = process.space().map(|id| model.space(id));
    let measured = read.filter(|read| !read.of_core);
    let mut report = ProcessReport {
        tgid: process.tgid,
        start_time: process.start_ns,
        comm: process.comm.clone(),
        exe: process.exe.clone(),
        state: match process.exit_status {
            Some(_) => "exited",
            None if measured.is_some() => "running",
            None => "unknown",
        },
        exit_code: process.exit_code(),
        of_core: read.is_some_and(|read| read.of_core),
        memory: last.map(|space| memory(model.evidence, space, measured)).unwrap_or_default(),
        mapped: mapped(&spaces),
        reclaimed: reclaimed(model.evidence, &spaces, measured.map(|read| read.held)),
        madv_free: madv_free(model.evidence, &spaces, measured),
        swap: swap(model.evidence, &spaces),
        remanence: remanence(&spaces),
        faults: faults(model.evidence, process, &spaces),
        balance: balance(model.evidence, &spaces, last, measured),
        allocators: read
            .map(|read| read.allocators.iter().map(allocator).collect())
            .unwrap_or_default(),
        unwalked: read.map(|read| read.unwalked.clone()).unwrap_or_default(),
        findings: Vec::new(),
        regions: last.map(|space| regions(model, space, read)).unwrap_or_default(),
    };
    report.findings = findings(&report);
    report
}

const fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE)
}

fn mapped(spaces: &[&AddressSpace]) -> Mapped {
    let mut requests = Requests::default();
    for space in spaces {
        requests.add_all(&space.asked_for);
    }
    let peak = spaces.iter().map(|space| space.peak_bytes).max();
    Mapped {
        calls: requests.calls,
        requested: requests.known_bytes(),
        // Nothing runs without a region: none was ever known.
        peak: peak.filter(|&peak| peak > 0),
    }
}

fn balance(
    evidence: Evidence,
    spaces: &[&AddressSpace],
    last: Option<&AddressSpace>,
    read: Option<&Residency>,
) -> Balance {
    if spaces.is_empty() || evidence < Evidence::Rss {
        return Balance::default();
    }
    let resident_counters = [Counter::File, Counter::Anon, Counter::Shmem];
    let came_in = |ledger: &Ledger| -> i64 {
        resident_counters
            .iter()
            .flat_map(|&c| [ledger.base_pages[c as usize], ledger.in_pages[c as usize]])
            .fold(0, i64::saturating_add)
    };
    let went_out = |ledger: &Ledger| -> i64 {
        let pages = |path: &PathCounters| i64::try_from(path.resident_pages()).unwrap_or(i64::MAX);
        ledger.paths.iter().map(pages).fold(0, i64::saturating_add)
    };
    let page = PAGE as i64;
    let sum = |pages: &dyn Fn(&Ledger) -> i64| {
        let pages = spaces.iter().map(|space| pages(&space.ledger)).fold(0, i64::saturating_add);
        pages.saturating_mul(page)
    };
    let r#in = sum(&came_in);
    let out = sum(&went_out);
    let resident = match (read, last) {
        (Some(read), _) => Some(read.total.resident as i64),
        (None, Some(space)) if space.ended => Some(0),
        (None, _) => None,
    };
    Balance {
        r#in: Some(r#in),
        out: Some(out),
        resident,
        unexplained: resident.map(|resident| r#in.saturating_sub(out).saturating_sub(resident)),
    }
}

fn regions(model: &Model, space: &AddressSpace, read: Option<&Residency>) -> Vec<RegionReport> {
    let torn_down = resident_at_teardown(space);
    let mut rows: Vec<RegionReport> = space
        .regions
        .iter()
        .map(|vma| {
            let kind = space.kind(vma);
            let known = read
                .and_then(|read| read.regions.get(&vma.range.start))
                .filter(|known| known.end == vma.range.end);
            let measured = known.filter(|_| read.is_some_and(|read| !read.of_core));
            let resident = match (measured, &vma.backing) {
                (Some(known), _) => Some(known.resident),
                // Where the frames were that came back at the end.
                (None, Backing::Anon { .. })
                    if space.ended && model.evidence == Evidence::Frames =>
                {
                    Some(torn_down.get(&vma.range.start).copied().unwrap_or(0))
                }
                (None, _) => None,
            };
            let lazy_free = measured.map(|known| known.lazy_free);
            let free_resident = read
                .filter(|_| known.is_some())
                .and_then(|read| free_in_region(&read.allocators, vma.range.start));
            let given_up = [lazy_free, free_resident].into_iter().flatten();
            RegionReport {
                start: format!("{:#x}", vma.range.start),
                end: format!("{:#x}", vma.range.end),
                kind: kind_name(kind),
                name: name(model, vma, kind, known),
                prot: vma.protection(),
                mapped: vma.len(),
                resident,
                live: resident.map(|resident| given_up.fold(resident, u64::saturating_sub)),
                free_resident,
                lazy_free,
                swapped: measured.map(|known| known.swapped),
                cold: known.and_then(|known| known.cold),
                cells: measured.and_then(|known| known.cells.clone()).map(|mut cells| {
                    // A file may claim anything.
                    cells.coarsen(0, vma.len() / PAGE);
                    cells
                }),
            }
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.resident, row.mapped)));
    rows
}

/// Returns the bytes that were resident in each anonymous region when its address space was torn
/// down, by the region's first byte: the frames that came back then, by their linear page index.
fn resident_at_teardown(space: &AddressSpace) -> HashMap<u64, u64> {
    let mut by_index: BTreeMap<u64, &Vma> = BTreeMap::new();
    for vma in space.regions.iter() {
        // The kernel's own pages are no memory of the process; their indices begin at 0, as do those
        // of files.
        let is_kernels = matches!(space.kind(vma), RegionKind::Vdso | RegionKind::Vvar);
        if let Backing::Anon { index } = vma.backing
            && !is_kernels
        {
            by_index.insert(index, vma);
        }
    }
    let mut resident = HashMap::new();
    for (run, frames) in &space.torn_down {
        let before = by_index.range(..run.start).next_back();
        let mut left = *frames;
        for (&index, vma) in before.into_iter().chain(by_index.range(run.clone())) {
            let end = index.saturating_add(vma.len() / PAGE);
            let room = end.min(run.end).saturating_sub(index.max(run.start));
            let here = left.min(room);
            let known: &mut u64 = resident.entry(vma.range.start).or_insert(0);
            *known = known.saturating_add(bytes(here));
            left -= here;
        }
    }
    resident
}

fn name(
    model: &Model,
    vma: &Vma,
    kind: RegionKind,
    known: Option<&RegionResidency>,
) -> Option<String> {
    if let Some(name) = known.and_then(|known| known.name.clone()) {
        return Some(name);
    }
    model.region_name(vma, kind).map(str::to_owned)
}

const fn kind_name(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::Heap => "heap",
        RegionKind::Stack => "stack",
        RegionKind::Anon => "anon",
        RegionKind::File => "file",
        RegionKind::Shmem => "shmem",
        RegionKind::Vdso => "vdso",
        RegionKind::Vvar => "vvar",
    }
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
