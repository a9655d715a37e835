//! What memtrace knows of the traced processes. Pure: events in, changes and reports out.
//!
//! Reading order: [`Model::apply`] is the one dispatch; `space` turns a call into figures, `build`
//! turns the model into a report.

pub mod build;
pub mod cells;
pub mod change;
pub mod diff;
pub mod fact;
pub mod findings;
pub mod fleet;
pub mod history;
mod life;
pub mod machine;
pub mod names;
pub mod place;
pub mod process;
pub mod region_map;
pub mod report;
pub mod rules;
pub mod space;
pub mod top;
pub mod watchdog;
mod window;
mod wire;

use std::collections::{HashMap, VecDeque};

use memtrace_common::{Call, Event, Path, PathCounters, Region, Syscall};

use serde::{Deserialize, Serialize};

use change::{Change, What};
use process::Process;
use region_map::{Backing, Vma};
use report::Evidence;
use space::{AddressSpace, RegionKind};

/// An address space's place in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SpaceId(pub(crate) usize);

/// All that is known. One task owns it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Model {
    /// What its figures rest on.
    evidence: Evidence,
    processes: Vec<Process>,
    /// Living processes by `tgid`.
    by_tgid: HashMap<u32, usize>,
    spaces: Vec<AddressSpace>,
    /// Living address spaces by the address of their `mm_struct`.
    by_mm: HashMap<u64, SpaceId>,
    /// Names of mapped files by device, inode, and a number that goes with the name.
    #[serde(with = "wire::names")]
    names: HashMap<(u32, u64, u16), String>,
    /// Region maps that were read again.
    resyncs: u64,
    /// Address spaces that ended, by the address of their `mm_struct`: frames may still come late.
    ended: VecDeque<(u64, SpaceId)>,
}

impl Model {
    /// Nothing is known yet; what will be rests on `evidence`.
    pub fn new(evidence: Evidence) -> Self {
        Self { evidence, ..Self::default() }
    }

    /// Returns what its figures rest on.
    pub const fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// Applies one event. Returns the line that it adds to the live stream.
    pub fn apply(&mut self, event: &Event) -> Option<Change> {
        let header = *event.header();
        let what = match event {
            Event::MapRegion(region) => {
                self.space_mut(region.header.mm).store(region);
                None
            }
            Event::UnmapRegion(region) => {
                self.space_mut(region.header.mm).erase(region);
                None
            }
            Event::RegionOffset(region) => {
                self.space_mut(region.header.mm).regions.set_offset(
                    region.start..region.end,
                    region.pgoff,
                    region.seq,
                );
                None
            }
            Event::Call(call) => self.call(call),
            Event::Fork(fork) => Some(self.fork(fork)),
            Event::Exec(exec) => Some(self.exec(exec)),
            Event::Exit(exit) => {
                let at = self.by_tgid.remove(&header.tgid)?;
                let process = &mut self.processes[at];
                process.exit_status = Some(exit.exit_code);
                process.faults.now = Some((exit.minor_faults, exit.major_faults));
                Some(What::Exit { code: process::exit_code(exit.exit_code) })
            }
            Event::MmEnd(end) => self.mm_end(end),
            Event::Fault(fault) => Some(What::Fault {
                address: fault.address,
                // `X86_PF_WRITE` and `X86_PF_INSTR` (arch/x86/include/asm/trap_pf.h).
                access: match fault.error_code {
                    code if code & 2 != 0 => "write",
                    code if code & 16 != 0 => "exec",
                    _ => "read",
                },
                from_kernel: fault.from_kernel != 0,
            }),
            Event::FileName(file) => {
                let name = text(&file.name);
                self.names.insert((file.dev, file.inode, file.name_tag), name);
                None
            }
            Event::TaskSeed(seed) => {
                self.seed(seed);
                None
            }
            Event::TeardownRun(run) => {
                let pages = run.first..run.first.saturating_add(run.pages);
                self.space_mut(header.mm).torn_down.push((pages, run.frames));
                None
            }
        };
        what.map(|what| Change {
            time_ns: header.time_ns,
            tgid: header.tgid,
            tid: header.tid,
            what,
        })
    }

    /// Replaces the region map of an address space by a snapshot, before which so many write
    /// sections had begun.
    pub fn replace_regions(&mut self, mm: u64, regions: &[Region], sections: u64) {
        let is_followed = self.evidence > Evidence::Args;
        let space = self.space_mut(mm);
        let again = space.stale && is_followed;
        space.replace(regions, sections);
        self.resyncs += u64::from(again);
    }

    /// Returns the address spaces that ended last, whose late frames are still being booked.
    pub fn ended(&self) -> Vec<(u64, SpaceId)> {
        self.ended.iter().copied().collect()
    }

    /// Marks every living address space as unknown: records were lost.
    pub fn lost_records(&mut self) {
        for &SpaceId(at) in self.by_mm.values() {
            self.spaces[at].stale = true;
        }
    }

    /// Returns the living address spaces whose region map must be read again, each with a `tgid`
    /// that has it.
    pub fn stale(&self) -> Vec<(u32, u64)> {
        let is_in_doubt = |space: &AddressSpace| space.stale || !space.regions_known;
        let is_stale = |mm: &u64| self.by_mm.get(mm).is_some_and(|&id| is_in_doubt(self.space(id)));
        self.living_mms().into_iter().filter(|(_, mm)| is_stale(mm)).collect()
    }

    /// Returns how many region maps were read again.
    pub const fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// Returns the processes that have not exited.
    pub fn living(&self) -> impl Iterator<Item = &Process> {
        self.by_tgid.values().map(|&at| &self.processes[at])
    }

    /// Returns the living address spaces that a living process has: its `tgid` and the address of
    /// the `mm_struct`.
    pub fn living_mms(&self) -> Vec<(u32, u64)> {
        let of_space: HashMap<SpaceId, u32> =
            self.living().filter_map(|process| Some((process.space()?, process.tgid))).collect();
        let mms = self.by_mm.iter();
        mms.filter_map(|(&mm, id)| Some((*of_space.get(id)?, mm))).collect()
    }

    /// Returns every process that was traced, in the order in which they were seen.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Returns a process that has not exited.
    pub fn process(&self, tgid: u32) -> Option<&Process> {
        self.by_tgid.get(&tgid).map(|&at| &self.processes[at])
    }

    /// Returns a process that has not exited.
    pub fn process_mut(&mut self, tgid: u32) -> Option<&mut Process> {
        self.by_tgid.get(&tgid).map(|&at| &mut self.processes[at])
    }

    /// Returns the living address space at an `mm_struct`.
    pub fn space_at(&self, mm: u64) -> Option<SpaceId> {
        self.by_mm.get(&mm).copied()
    }

    /// Returns the address of a living address space's `mm_struct`.
    pub fn mm(&self, space: SpaceId) -> Option<u64> {
        self.by_mm.iter().find(|&(_, &id)| id == space).map(|(&mm, _)| mm)
    }

    /// Returns an address space.
    pub fn space(&self, SpaceId(at): SpaceId) -> &AddressSpace {
        &self.spaces[at]
    }

    /// Returns what `/proc/PID/maps` calls a region, files by the last component of their path.
    pub fn region_name(&self, vma: &Vma, kind: RegionKind) -> Option<&str> {
        match vma.backing {
            Backing::File { dev, inode, name_tag, .. } => {
                self.names.get(&(dev, inode, name_tag)).map(String::as_str)
            }
            Backing::Anon { .. } => match kind {
                RegionKind::Heap => Some("[heap]"),
                RegionKind::Stack => Some("[stack]"),
                RegionKind::Vdso => Some("[vdso]"),
                RegionKind::Vvar => Some("[vvar]"),
                RegionKind::Anon | RegionKind::File | RegionKind::Shmem => None,
            },
        }
    }

    /// Returns what the kernel's page allocator got back so far, bytes; `None` when it is not counted.
    pub fn reclaimed_bytes(&self) -> Option<u64> {
        let frames = |space: &AddressSpace| {
            let paths = space.ledger.paths.iter().map(PathCounters::all_freed_frames);
            paths.fold(0, u64::saturating_add)
        };
        let frames = self.spaces.iter().map(frames).fold(0, u64::saturating_add);
        self.freed(frames)
    }

    fn space_id(&mut self, mm: u64) -> SpaceId {
        *self.by_mm.entry(mm).or_insert_with(|| {
            self.spaces.push(AddressSpace::default());
            SpaceId(self.spaces.len() - 1)
        })
    }

    fn space_mut(&mut self, mm: u64) -> &mut AddressSpace {
        let SpaceId(at) = self.space_id(mm);
        &mut self.spaces[at]
    }

    fn call(&mut self, call: &Call) -> Option<What> {
        let syscall = Syscall::from_raw(call.syscall)?;
        let range = self.space_mut(call.header.mm).call(syscall, call);
        let returns_address =
            matches!(syscall, Syscall::Mmap | Syscall::Mremap | Syscall::Shmat | Syscall::Brk);
        Some(What::Call {
            call: change::syscall_name(syscall),
            start: range.start,
            requested: range.end - range.start,
            detail: change::detail(syscall, &call.args),
            ret: if returns_address || call.ret < 0 { call.ret } else { 0 },
            path: Path::from_raw(call.path).map(change::path_name),
            zapped: self.zapped(call.zapped_pages),
            freed: self.freed(call.freed_frames),
            duration_ns: (call.duration_ns != 0).then_some(call.duration_ns),
        })
    }

    /// Returns the bytes of detached pages, if they are counted.
    fn zapped(&self, pages: u64) -> Option<u64> {
        self.evidence.knows(Evidence::Rss, pages.saturating_mul(region_map::PAGE))
    }

    /// Returns the bytes of freed frames, if they are counted.
    fn freed(&self, frames: u64) -> Option<u64> {
        self.evidence.knows(Evidence::Frames, frames.saturating_mul(region_map::PAGE))
    }
}

/// Returns a name that zeros may fill up as text.
pub fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
