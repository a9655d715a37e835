//! One address space (the kernel's mm): its regions, what was asked of it, and its books.

use std::{collections::VecDeque, ops::Range};

use memtrace_common::{Call, Exec, Ledger, PATHS, Path, Region, Syscall, TaskSeed};

use super::region_map::{Backing, PAGE, RegionMap, Vma, flag};

/// One address space.
#[derive(Clone, Debug, Default)]
pub struct AddressSpace {
    /// Its regions.
    pub regions: RegionMap,
    /// Where heap, stack and vdso are.
    pub layout: Layout,
    /// What system calls asked to give up, by [`Path`].
    pub given_up: [Requests; PATHS],
    /// What system calls asked to map.
    pub asked_for: Requests,
    /// The largest size of all regions together, bytes.
    pub peak_bytes: u64,
    /// The kernel's books, as last read.
    pub ledger: Ledger,
    /// Anonymous frames that came back at the teardown: where, as linear page indices, and how many.
    pub torn_down: Vec<(Range<u64>, u64)>,
    /// Pieces of tmpfs that were erased last, with the write section: `shmdt` has no length.
    erased_shmem: VecDeque<(u64, Vma)>,
    /// It was torn down.
    pub ended: bool,
    /// Size of all regions before the teardown, bytes.
    mapped_at_end: u64,
    /// A change was seen that the map cannot follow: it must be read again.
    pub stale: bool,
    /// Its regions are known: it was seen being built, or read.
    pub regions_known: bool,
}

/// Where the kernel put what has no file name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Calls that succeeded.
    pub calls: u64,
    /// Bytes of their ranges.
    pub bytes: u64,
}

impl Requests {
    fn add(&mut self, bytes: u64) {
        self.calls += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What a region is to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
/// `MAP_FIXED` (include/uapi/asm-generic/mman-common.h).
const MAP_FIXED: u64 = 0x10;
/// `PROT_GROWSDOWN` (include/uapi/asm-generic/mman-common.h).
const PROT_GROWSDOWN: u64 = 0x0100_0000;
/// `MREMAP_FIXED` (include/uapi/linux/mman.h).
const MREMAP_FIXED: u64 = 2;
/// `MREMAP_DONTUNMAP` (include/uapi/linux/mman.h).
const MREMAP_DONTUNMAP: u64 = 4;
/// `MAX_ERRNO` (include/linux/err.h).
const MAX_ERRNO: i64 = 4095;

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
        self.regions.store(Vma::from(region));
        self.peak_bytes = self.peak_bytes.max(self.regions.mapped());
    }

    /// Erases a range as the kernel did.
    pub fn erase(&mut self, region: &Region) {
        for vma in self.regions.erase(region.start..region.end, region.seq) {
            if matches!(vma.backing, Backing::File { shmem: true, .. }) {
                if self.erased_shmem.len() == WATCHED_ERASES {
                    self.erased_shmem.pop_front();
                }
                self.erased_shmem.push_back((region.seq, vma));
            }
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
        let path = if ledger.paths[Path::Exec.index()].resident_pages() > 0 {
            Path::Exec
        } else {
            Path::Exit
        };
        self.given_up[path.index()].add(self.mapped_at_end);
    }

    /// Returns the size of all regions: now, or before the teardown.
    pub const fn mapped(&self) -> u64 {
        if self.ended { self.mapped_at_end } else { self.regions.mapped() }
    }

    /// Books a system call and applies what only its arguments tell. Returns the range that it
    /// gave up or mapped.
    pub fn call(&mut self, syscall: Syscall, call: &Call) -> Range<u64> {
        let &Call { args, ret, seq, .. } = call;
        let failed = (-MAX_ERRNO..0).contains(&ret);
        let [first, second, third, fourth, ..] = args;
        // It took the lock before the address space was followed: what it changed may have been
        // seen or not.
        let changes =
            !matches!(syscall, Syscall::Madvise | Syscall::ProcessMadvise | Syscall::PunchHole);
        self.stale |= seq == 0 && changes && !failed;
        let range = first..first.saturating_add(round_up(second));
        match syscall {
            Syscall::Mmap => {
                let mapped = ret as u64..(ret as u64).saturating_add(round_up(second));
                if failed {
                    // A failing MAP_FIXED may have unmapped part of its range.
                    let fails_early = !range.start.is_multiple_of(PAGE) || second == 0;
                    self.stale |= fourth & MAP_FIXED != 0 && !fails_early;
                    return range;
                }
                self.asked_for.add(mapped.end - mapped.start);
                if call.zapped_pages > 0 {
                    self.given_up[Path::Overmap.index()].add(mapped.end - mapped.start);
                }
                mapped
            }
            Syscall::Munmap => {
                if !failed {
                    self.regions.erase(range.clone(), seq);
                    self.given_up[Path::Munmap.index()].add(range.end - range.start);
                }
                range
            }
            Syscall::Brk => self.brk(ret as u64, seq),
            Syscall::Mremap => {
                let old = first..first.saturating_add(round_up(second));
                let new = ret as u64..(ret as u64).saturating_add(round_up(third));
                if failed {
                    // A failing MREMAP_FIXED may have unmapped its target.
                    self.stale |= fourth & MREMAP_FIXED != 0;
                    return old;
                }
                let shrinks = new.end - new.start < old.end - old.start;
                if call.zapped_pages > 0 && !shrinks {
                    // It went onto something else.
                    self.given_up[Path::Mremap.index()].add(new.end - new.start);
                }
                self.mremap(&old, &new, fourth, seq);
                new
            }
            Syscall::Mprotect => self.mprotect(range, third, failed.then_some(ret), seq),
            Syscall::Madvise => {
                if !failed && let Some(path) = Path::of_advice(third) {
                    self.given_up[path.index()].add(range.end - range.start);
                }
                range
            }
            Syscall::ProcessMadvise => {
                if ret > 0
                    && let Some(path) = Path::of_advice(fourth)
                {
                    self.given_up[path.index()].add(ret as u64);
                }
                0..u64::try_from(ret).unwrap_or(0)
            }
            Syscall::Shmat => {
                let start = ret as u64;
                if failed {
                    return 0..0;
                }
                let end = self.regions.find(start).map_or(start, |vma| vma.range.end);
                self.asked_for.add(end - start);
                start..end
            }
            Syscall::Shmdt => {
                if failed {
                    return first..first;
                }
                let detached = self.shmdt(first, seq);
                self.given_up[Path::Munmap.index()].add(detached.end - detached.start);
                detached
            }
            Syscall::PunchHole => {
                let hole = third..third.saturating_add(fourth);
                if !failed {
                    self.given_up[Path::Remove.index()].add(fourth);
                }
                hole
            }
        }
    }

    fn brk(&mut self, brk: u64, seq: u64) -> Range<u64> {
        let (old, new) = (round_up(self.layout.brk), round_up(brk));
        self.layout.brk = brk;
        if new < old {
            self.regions.erase(new..old, seq);
            self.given_up[Path::Brk.index()].add(old - new);
            new..old
        } else {
            if new > old {
                self.asked_for.add(new - old);
            }
            old..new
        }
    }

    fn mremap(&mut self, old: &Range<u64>, new: &Range<u64>, flags: u64, seq: u64) {
        let (old_len, new_len) = (old.end - old.start, new.end - new.start);
        if self.regions.find(new.start).is_some_and(|vma| vma.flags & flag::HUGETLB != 0) {
            // Both sizes were rounded up to a huge page, whose size is not known.
            self.stale = true;
            return;
        }
        if new.start != old.start && old_len > 0 && flags & MREMAP_DONTUNMAP == 0 {
            self.regions.erase(old.clone(), seq);
        }
        if new_len < old_len {
            if new.start == old.start {
                self.regions.erase(new.end..old.end, seq);
            }
            self.given_up[Path::Mremap.index()].add(old_len - new_len);
        } else if flags & MREMAP_DONTUNMAP != 0 {
            self.asked_for.add(new_len);
        } else if new_len > old_len {
            self.asked_for.add(new_len - old_len);
        }
    }

    /// Erases the pieces of the segment that is attached at `start` (ipc/shm.c, `ksys_shmdt`), those
    /// included that the kernel was seen to erase in the same write section.
    fn shmdt(&mut self, start: u64, seq: u64) -> Range<u64> {
        let erased = self.erased_shmem.iter().filter(|(section, _)| *section == seq);
        let pieces: Vec<&Vma> = erased.map(|(_, vma)| vma).chain(self.regions.iter()).collect();
        let file = |vma: &Vma| match vma.backing {
            Backing::File { dev, inode, offset, shmem: true, .. } => {
                let begins_here = vma.range.start.checked_sub(offset) == Some(start);
                begins_here.then_some((dev, inode))
            }
            Backing::File { .. } | Backing::Anon { .. } => None,
        };
        let attached = pieces.iter().filter_map(|vma| Some((vma.range.start, file(vma)?)));
        let Some((_, attached)) = attached.min() else { return start..start };
        let pieces = pieces.into_iter().filter(|vma| file(vma) == Some(attached));
        let pieces: Vec<Range<u64>> = pieces.map(|vma| vma.range.clone()).collect();
        // The first goes. Of the others, those that belong to the same attachment and lie within
        // the segment: neither is known.
        self.stale |= pieces.len() > 1;
        let end = pieces.iter().map(|piece| piece.end).max().unwrap_or(start);
        for piece in pieces {
            self.regions.erase(piece, seq);
        }
        start..end
    }

    /// Protects a range, or the part of it that was protected before the call failed with `error`.
    /// Returns the range that was asked for.
    fn mprotect(
        &mut self,
        mut range: Range<u64>,
        protection: u64,
        error: Option<i64>,
        seq: u64,
    ) -> Range<u64> {
        // PROT_READ, PROT_WRITE and PROT_EXEC are the flags' bits.
        let bits = protection & flag::PROTECTION;
        if protection & PROT_GROWSDOWN != 0
            && let Some(vma) = self.regions.find_from(range.start)
            && vma.range.start < range.end
        {
            // As `do_mprotect_pkey` does (mm/mprotect.c, 6.18).
            range.start = vma.range.start;
        }
        match error {
            None => self.regions.protect(range.clone(), bits, seq),
            // It is not that far that anything was changed.
            Some(error) if error == i64::from(-libc::EINVAL) => {}
            Some(_) => match self.regions.protected_part(range.clone(), bits, seq) {
                Some(end) => self.regions.protect(range.start..end, bits, seq),
                None => self.stale = true,
            },
        }
        range
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
