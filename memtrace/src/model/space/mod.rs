//! One address space (the kernel's mm): its regions, what was asked of it, and its books. What a
//! system call does to it is in `call`.

mod call;

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    ops::Range,
};

use memtrace_common::{Delays, Exec, Ledger, PATHS, Path, Region, Remanence, TaskSeed};

use serde::{Deserialize, Serialize};

use super::{
    region_map::{Backing, PAGE, RegionMap, Vma, flag},
    wire::{afterlife_from, afterlife_to, ledger_from, ledger_to},
};

/// One address space.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AddressSpace {
    /// Its regions.
    pub regions: RegionMap,
    /// Where heap, stack and vdso are.
    pub layout: Layout,
    /// What system calls asked to give up, by [`Path`].
    pub given_up: [Requests; PATHS],
    /// What left in system calls, by the region that it left; of several, the last.
    pub left_by_kind: BTreeMap<RegionKind, LeftByKind>,
    /// What system calls asked to map.
    pub asked_for: Requests,
    /// Ranges that were given up by `MADV_FREE`, and not unmapped or mapped anew since.
    advised: RegionMap,
    /// The largest size of all regions together, bytes.
    pub peak_bytes: u64,
    /// The kernel's books, as last read.
    #[serde(serialize_with = "ledger_to", deserialize_with = "ledger_from")]
    pub ledger: Ledger,
    /// What became of its frames, as last read.
    #[serde(serialize_with = "afterlife_to", deserialize_with = "afterlife_from")]
    pub afterlife: Afterlife,
    /// Anonymous frames that came back at the teardown: where, as linear page indices, and how many.
    pub torn_down: Vec<(Range<u64>, u64)>,
    /// Pieces that were erased or replaced last, with the write section: what a call gave up is not
    /// there any more when it returns, and `shmdt` has no length.
    erased: VecDeque<(u64, Vma)>,
    /// It was torn down.
    pub ended: bool,
    /// Size of all regions before the teardown, bytes.
    mapped_at_end: u64,
    /// A change was seen that the map cannot follow: it must be read again.
    pub stale: bool,
    /// Its regions are known: it was seen being built, or read.
    pub regions_known: bool,
}

/// What became of frames after they were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Afterlife {
    /// How long late frames took; `None` when there were none.
    pub delays: Option<Delays>,
    /// How long freed frames kept what was in them; `None` when nobody measured.
    pub remanence: Option<Remanence>,
}

/// Where the kernel put what has no file name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// First byte of the heap.
    pub start_brk: u64,
    /// End of the heap.
    pub brk: u64,
    /// Where the stack began.
    pub start_stack: u64,
    /// First byte of the vdso, 0 without one.
    pub vdso: u64,
}

impl From<&Exec> for Layout {
    fn from(exec: &Exec) -> Self {
        let Exec { start_brk, brk, start_stack, vdso, .. } = *exec;
        Self { start_brk, brk, start_stack, vdso }
    }
}

impl From<&TaskSeed> for Layout {
    fn from(seed: &TaskSeed) -> Self {
        let TaskSeed { start_brk, brk, start_stack, vdso, .. } = *seed;
        Self { start_brk, brk, start_stack, vdso }
    }
}

/// Calls of one kind and the bytes of their ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Calls that succeeded.
    pub calls: u64,
    /// Bytes of their ranges.
    pub bytes: u64,
    /// Calls among them of whose range the size is not known.
    pub unsized_calls: u64,
}

impl Requests {
    /// Returns the bytes of the ranges, if all are known.
    pub fn known_bytes(&self) -> Option<u64> {
        (self.unsized_calls == 0).then_some(self.bytes)
    }

    /// Adds those of another kind, or of another address space.
    pub const fn add_all(&mut self, other: &Self) {
        self.calls += other.calls;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.unsized_calls += other.unsized_calls;
    }

    const fn add_unsized(&mut self) {
        self.calls += 1;
        self.unsized_calls += 1;
    }

    fn add(&mut self, bytes: u64) {
        self.calls += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What left regions of one kind in system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftByKind {
    /// Calls that detached pages.
    pub calls: u64,
    /// Pages that they detached.
    pub zapped_pages: u64,
    /// Frames that the page allocator got back inside them.
    pub freed_frames: u64,
}

/// What a region is to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RegionKind {
    /// The brk heap.
    Heap,
    /// The main thread's stack.
    Stack,
    /// Other anonymous memory.
    Anon,
    /// A file.
    File,
    /// tmpfs.
    Shmem,
    /// Code that the kernel provides.
    Vdso,
    /// Data of the vdso.
    Vvar,
}

impl From<&Region> for Vma {
    fn from(region: &Region) -> Self {
        let Region { start, end, seq, flags, pgoff, dev, inode, backing, name_tag, .. } = *region;
        let offset = pgoff.wrapping_mul(PAGE);
        let file = |shmem| Backing::File { dev, inode, offset, shmem, name_tag };
        let backing = match memtrace_common::Backing::from_raw(backing) {
            Some(memtrace_common::Backing::File) => file(false),
            Some(memtrace_common::Backing::Shmem) => file(true),
            Some(memtrace_common::Backing::Anon) | None => Backing::Anon { index: pgoff },
        };
        Self { range: start..end, backing, flags, seq }
    }
}

/// So many erased pieces are remembered.
const WATCHED_ERASES: usize = 64;
impl AddressSpace {
    /// Begins to run a program: exec built the regions, and on the way more of the stack than it
    /// left.
    pub fn begin(&mut self, layout: Layout) {
        self.layout = layout;
        self.peak_bytes = self.regions.mapped();
    }

    /// Stores a VMA as the kernel did.
    pub fn store(&mut self, region: &Region) {
        if region.start >= region.end {
            return;
        }
        self.regions_known = true;
        let replaced = self.regions.store(Vma::from(region));
        self.note_erased(replaced, region.seq);
        self.peak_bytes = self.peak_bytes.max(self.regions.mapped());
    }

    /// Returns the ranges that were given up by `MADV_FREE`, as far as they are still mapped and
    /// were not given up otherwise since.
    pub fn advised(&self) -> impl Iterator<Item = Range<u64>> {
        self.advised.iter().map(|vma| vma.range.clone())
    }

    /// Notes that the kernel may take a range when it wants to.
    fn advise(&mut self, range: Range<u64>) {
        if range.start < range.end {
            let backing = Backing::Anon { index: range.start / PAGE };
            self.advised.store(Vma { range, backing, flags: 0, seq: u64::MAX });
        }
    }

    /// Notes that what was in a range is gone.
    fn unadvise(&mut self, range: Range<u64>) {
        self.advised.erase(range, u64::MAX);
    }

    /// Erases a range as the kernel did.
    pub fn erase(&mut self, region: &Region) {
        self.unadvise(region.start..region.end);
        let erased = self.regions.erase(region.start..region.end, region.seq);
        self.note_erased(erased, region.seq);
    }

    fn note_erased(&mut self, pieces: Vec<Vma>, seq: u64) {
        for piece in pieces {
            if self.erased.len() == WATCHED_ERASES {
                self.erased.pop_front();
            }
            self.erased.push_back((seq, piece));
        }
    }

    /// Replaces the regions by those of a snapshot, before which so many write sections had begun.
    pub fn replace(&mut self, regions: &[Region], sections: u64) {
        let whole = regions.iter().filter(|region| region.start < region.end);
        self.regions = RegionMap::from_snapshot(whole.map(Vma::from), sections);
        self.peak_bytes = self.peak_bytes.max(self.regions.mapped());
        self.regions_known = true;
        self.stale = false;
    }

    /// Takes in the final books. Without `keep` the regions are given up, their sum is not.
    pub fn end(&mut self, ledger: Ledger, keep: bool) {
        self.ledger = ledger;
        self.ended = true;
        self.mapped_at_end = self.regions.mapped();
        // What was in doubt and was not read again in time is not known.
        self.regions_known &= !self.stale;
        if !keep || self.stale {
            self.regions = RegionMap::default();
            self.torn_down = Vec::new();
        }
        self.stale = false;
        self.advised = RegionMap::default();
        let path = if ledger.paths[Path::Exec.index()].resident_pages() > 0 {
            Path::Exec
        } else {
            Path::Exit
        };
        if self.regions_known {
            self.given_up[path.index()].add(self.mapped_at_end);
        } else {
            self.given_up[path.index()].add_unsized();
        }
    }

    /// Another address space took its place at exec. Where pages are counted, its end told so itself.
    pub fn replaced(&mut self) {
        if self.ended {
            let exit = mem::take(&mut self.given_up[Path::Exit.index()]);
            self.given_up[Path::Exec.index()].add_all(&exit);
        }
    }

    /// Returns the size of all regions: now, or before the teardown.
    pub const fn mapped(&self) -> u64 {
        if self.ended { self.mapped_at_end } else { self.regions.mapped() }
    }

    /// Returns what a region is.
    pub fn kind(&self, vma: &Vma) -> RegionKind {
        let Layout { start_brk, brk, start_stack, vdso } = self.layout;
        match vma.backing {
            Backing::File { shmem: true, .. } => RegionKind::Shmem,
            Backing::File { .. } => RegionKind::File,
            // The rules of fs/proc/task_mmu.c (6.18).
            Backing::Anon { .. } => {
                if vdso != 0 && vma.range.start == vdso {
                    RegionKind::Vdso
                } else if vma.range.start < brk && vma.range.end > start_brk {
                    RegionKind::Heap
                } else if vma.range.start <= start_stack && start_stack <= vma.range.end {
                    RegionKind::Stack
                } else if vdso != 0 && self.leads_to(vma, vdso) {
                    RegionKind::Vvar
                } else {
                    RegionKind::Anon
                }
            }
        }
    }

    /// Tells whether read-only regions follow `vma` without a gap up to `address`, at most two.
    fn leads_to(&self, vma: &Vma, address: u64) -> bool {
        let mut end = vma.range.end;
        let read_only = |vma: &Vma| vma.flags & flag::PROTECTION == flag::READ;
        for _ in 0..2 {
            if end == address {
                return read_only(vma);
            }
            let Some(next) = self.regions.find(end).filter(|next| read_only(next)) else {
                return false;
            };
            end = next.range.end;
        }
        end == address && read_only(vma)
    }
}

/// Rounds up to whole pages.
pub const fn round_up(bytes: u64) -> u64 {
    bytes.saturating_add(PAGE - 1) & !(PAGE - 1)
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
