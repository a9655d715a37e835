//! What a system call asked for, and what it did to the regions that no probe saw.

use std::ops::Range;

use memtrace_common::{Call, Path, Syscall};

use super::{AddressSpace, RegionKind, round_up};
use crate::model::region_map::{Backing, PAGE, Vma, flag};

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
        if call.zapped_pages > 0
            && let Some(kind) = self.kind_given_up(syscall, &range, call)
        {
            let left = self.left_by_kind.entry(kind).or_default();
            left.calls += 1;
            left.zapped_pages = left.zapped_pages.saturating_add(call.zapped_pages);
            left.freed_frames = left.freed_frames.saturating_add(call.freed_frames);
        }
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
                self.unadvise(mapped.clone());
                if call.zapped_pages > 0 {
                    self.given_up[Path::Overmap.index()].add(mapped.end - mapped.start);
                }
                mapped
            }
            Syscall::Munmap => {
                if !failed {
                    self.regions.erase(range.clone(), seq);
                    self.unadvise(range.clone());
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
                    match path {
                        Path::Free => self.advise(range.clone()),
                        _ => self.unadvise(range.clone()),
                    }
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
                let Some(vma) = self.regions.find(start) else {
                    self.asked_for.add_unsized();
                    return start..start;
                };
                self.asked_for.add(vma.range.end - start);
                start..vma.range.end
            }
            Syscall::Shmdt => {
                if failed {
                    return first..first;
                }
                let detached = self.shmdt(first, seq);
                let given_up = &mut self.given_up[Path::Munmap.index()];
                if detached.is_empty() {
                    given_up.add_unsized();
                } else {
                    given_up.add(detached.end - detached.start);
                }
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

    /// Returns what the region was that a call took pages from, before the call is applied; `None` when
    /// that is not known.
    fn kind_given_up(
        &self,
        syscall: Syscall,
        range: &Range<u64>,
        call: &Call,
    ) -> Option<RegionKind> {
        let overlaps = |vma: &&Vma| vma.range.start < range.end && range.start < vma.range.end;
        let mut erased = self.erased.iter().rev().filter(|(seq, _)| *seq == call.seq);
        let here = || self.regions.find_from(range.start).filter(overlaps);
        let vma = match syscall {
            Syscall::Brk => return Some(RegionKind::Heap),
            Syscall::Shmdt | Syscall::PunchHole => return Some(RegionKind::Shmem),
            Syscall::ProcessMadvise => return None,
            Syscall::Madvise => here()?,
            // It may lie where `mremap` moved to.
            Syscall::Mremap => erased.next().map(|(_, vma)| vma).or_else(here)?,
            // What `MAP_FIXED` replaced was erased before; what is there now is new.
            Syscall::Mmap => erased.map(|(_, vma)| vma).find(overlaps)?,
            _ => erased.map(|(_, vma)| vma).find(overlaps).or_else(here)?,
        };
        Some(self.kind(vma))
    }

    fn brk(&mut self, brk: u64, seq: u64) -> Range<u64> {
        let (old, new) = (round_up(self.layout.brk), round_up(brk));
        self.layout.brk = brk;
        if new < old {
            self.regions.erase(new..old, seq);
            self.unadvise(new..old);
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
        self.unadvise(old.clone());
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
        let erased = self.erased.iter().filter(|(section, _)| *section == seq);
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
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
