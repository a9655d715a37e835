//! The VMAs of one address space, in address order.
//!
//! Changes arrive in the order of the ring buffer, which is not always the order in which the
//! kernel made them: `munmap` gives its lock up before it returns. So each VMA carries the number
//! of the write section that stored it, and an erase takes only what is not newer than itself.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use serde::{Deserialize, Serialize};

/// What backs a VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// Anonymous memory.
    Anon {
        /// Linear page index of the first page (`vm_pgoff`): its address when it was first mapped.
        index: u64,
    },
    /// A file.
    File {
        /// `(major << 20) | minor`.
        dev: u32,
        /// Inode number.
        inode: u64,
        /// Offset of the first byte.
        offset: u64,
        /// It lives on tmpfs.
        shmem: bool,
        /// A number that goes with its name.
        name_tag: u16,
    },
}

impl Backing {
    /// Returns the backing `len` bytes further on.
    const fn advance(self, len: u64) -> Self {
        match self {
            Self::Anon { index } => Self::Anon { index: index.wrapping_add(len / PAGE) },
            Self::File { dev, inode, offset, shmem, name_tag } => {
                let offset = offset.wrapping_add(len);
                Self::File { dev, inode, offset, shmem, name_tag }
            }
        }
    }
}

/// Bytes of a page on the architectures that the probes run on.
pub const PAGE: u64 = 4096;

/// A virtual memory area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vma {
    /// Page-aligned byte addresses, never empty.
    pub range: Range<u64>,
    /// What backs it.
    pub backing: Backing,
    /// `vm_flags` of the kernel.
    pub flags: u64,
    /// Number of the write section that stored it.
    pub seq: u64,
}

/// `VM_READ`, `VM_WRITE`, `VM_EXEC`, `VM_MAYSHARE` and `VM_HUGETLB` (include/linux/mm.h, 5.10 to 7.3).
pub mod flag {
    /// May be read.
    pub const READ: u64 = 1;
    /// May be written.
    pub const WRITE: u64 = 2;
    /// May be executed.
    pub const EXEC: u64 = 4;
    /// Shared: what /proc/PID/maps shows as `s`.
    pub const MAYSHARE: u64 = 0x80;
    /// Huge pages of hugetlbfs.
    pub const HUGETLB: u64 = 0x40_0000;
    /// The bits that `mprotect` sets.
    pub const PROTECTION: u64 = READ | WRITE | EXEC;
}

impl Vma {
    /// Returns its size in bytes.
    pub const fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Tells whether it has no bytes, which no VMA in a map does.
    pub const fn is_empty(&self) -> bool {
        self.range.end <= self.range.start
    }

    /// Returns its protection as /proc/PID/maps shows it.
    pub fn protection(&self) -> String {
        protection(self.flags)
    }

    /// Splits in two at `at`, which lies strictly inside.
    fn split(self, at: u64) -> (Self, Self) {
        debug_assert!(self.range.start < at && at < self.range.end);
        let Self { range: Range { start, end }, backing, flags, seq } = self;
        (
            Self { range: start..at, backing, flags, seq },
            Self { range: at..end, backing: backing.advance(at - start), flags, seq },
        )
    }
}

/// Returns flags as /proc/PID/maps shows them.
pub fn protection(flags: u64) -> String {
    let letter = |flag, letter| if flags & flag != 0 { letter } else { '-' };
    let shared = if flags & flag::MAYSHARE != 0 { 's' } else { 'p' };
    [letter(flag::READ, 'r'), letter(flag::WRITE, 'w'), letter(flag::EXEC, 'x'), shared]
        .iter()
        .collect()
}

/// So many protections are remembered: more than threads return from one at the same moment.
const PROTECTIONS: usize = 256;

/// The VMAs of one address space.
///
/// Invariant: no two VMAs overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionMap {
    by_start: BTreeMap<u64, Vma>,
    /// Changes of this write section and of earlier ones were seen already.
    floor: Option<u64>,
    /// The ranges that were protected last and the write section, in the order of the sections: an
    /// earlier one may arrive later.
    protections: VecDeque<(Range<u64>, u64)>,
    /// Sum of all sizes.
    mapped: u64,
    /// The latest write section that changed something here.
    latest: u64,
}

impl RegionMap {
    /// Builds the map from a snapshot: VMAs in ascending order, read while the map may have changed.
    ///
    /// `sections` is the number of write sections that had begun before the first was read. The last
    /// of them may not have been done, and later ones may have been seen in part: all of these are
    /// to be applied again, in their order, and make it right.
    pub fn from_snapshot(vmas: impl IntoIterator<Item = Vma>, sections: u64) -> Self {
        let floor = sections.checked_sub(1);
        let mut map = Self { floor, ..Self::default() };
        for mut vma in vmas {
            vma.seq = floor.unwrap_or(0);
            // One that grew between two reads overlaps what was read before: the later counts.
            map.take(vma.range.clone(), u64::MAX);
            map.insert(vma);
        }
        map
    }

    /// Iterates over the VMAs in address order.
    pub fn iter(&self) -> impl Iterator<Item = &Vma> {
        self.by_start.values()
    }

    /// Returns the number of VMAs.
    pub fn count(&self) -> usize {
        self.by_start.len()
    }

    /// Returns the sum of all sizes, in bytes.
    pub const fn mapped(&self) -> u64 {
        self.mapped
    }

    /// Returns the VMA that holds `address`.
    pub fn find(&self, address: u64) -> Option<&Vma> {
        let (_, vma) = self.by_start.range(..=address).next_back()?;
        vma.range.contains(&address).then_some(vma)
    }

    /// Returns the VMA that holds `address`, or the next one above it.
    pub fn find_from(&self, address: u64) -> Option<&Vma> {
        self.find(address).or_else(|| Some(self.by_start.range(address..).next()?.1))
    }

    /// Stores `vma`: whatever older was there is replaced, and returned clipped to it.
    pub fn store(&mut self, vma: Vma) -> Vec<Vma> {
        if self.was_seen(vma.seq) {
            return Vec::new();
        }
        self.latest = self.latest.max(vma.seq);
        let replaced = self.take(vma.range.clone(), vma.seq);
        self.insert_around(vma);
        replaced
    }

    /// Inserts the parts of `vma` where nothing is: what is still there is newer and stays.
    fn insert_around(&mut self, mut vma: Vma) {
        let first = self.find(vma.range.start).map_or(vma.range.start, |newer| newer.range.start);
        let newer: Vec<Range<u64>> = self
            .by_start
            .range(first..vma.range.end)
            .map(|(_, newer)| newer.range.clone())
            .collect();
        for Range { start, end } in newer {
            if start > vma.range.start {
                let (below, rest) = vma.split(start);
                self.insert(below);
                vma = rest;
            }
            if end >= vma.range.end {
                return;
            }
            vma = vma.split(end).1;
        }
        self.insert(vma);
    }

    /// Erases what write section `seq` erased and returns the pieces that were there, clipped.
    pub fn erase(&mut self, range: Range<u64>, seq: u64) -> Vec<Vma> {
        if self.was_seen(seq) {
            return Vec::new();
        }
        self.latest = self.latest.max(seq);
        self.take(range, seq)
    }

    /// Sets the protection bits of a range that was mapped without a hole in write section `seq`.
    ///
    /// What has them already is left whole, as the kernel does: it may have been merged with a
    /// neighbour.
    pub fn protect(&mut self, range: Range<u64>, protection: u64, seq: u64) {
        if self.was_seen(seq) {
            return;
        }
        self.latest = self.latest.max(seq);
        for part in self.not_protected_later(range.clone(), seq) {
            let mut to_cut = Vec::new();
            let below_end = self.by_start.range_mut(..part.end).rev();
            for (_, vma) in below_end.take_while(|(_, vma)| vma.range.end > part.start) {
                if vma.seq > seq || vma.flags & flag::PROTECTION == protection {
                    continue;
                }
                if part.start <= vma.range.start && vma.range.end <= part.end {
                    vma.flags = vma.flags & !flag::PROTECTION | protection;
                } else {
                    to_cut.push(vma.range.start.max(part.start)..vma.range.end.min(part.end));
                }
            }
            for piece in to_cut {
                for mut vma in self.take(piece, seq) {
                    vma.flags = vma.flags & !flag::PROTECTION | protection;
                    self.insert(vma);
                }
            }
        }
        if self.protections.len() == PROTECTIONS {
            self.protections.pop_front();
        }
        let earlier = self.protections.partition_point(|(_, earlier)| *earlier <= seq);
        self.protections.insert(earlier, (range, seq));
    }

    /// Returns how far the kernel came when it failed to protect `range` in write section `seq`: to
    /// the first byte that is not mapped, or whose VMA may not be protected so. `None` when that
    /// cannot be told, since there is no such byte or the map is of a later time.
    pub fn protected_part(&self, range: Range<u64>, protection: u64, seq: u64) -> Option<u64> {
        if self.latest > seq || self.was_seen(seq) {
            return None;
        }
        let mut end = range.start;
        while let Some(vma) = self.find(end) {
            // `VM_MAYREAD` and its neighbours stand four bits above `VM_READ` (include/linux/mm.h).
            let allowed = vma.flags >> 4 & flag::PROTECTION;
            if protection & !allowed != 0 {
                return Some(end);
            }
            if vma.range.end >= range.end {
                return None;
            }
            end = vma.range.end;
        }
        Some(end)
    }

    /// Gives the VMA that was stored at `range` in write section `seq` the offset that it got later:
    /// `pgoff` pages.
    pub fn set_offset(&mut self, range: Range<u64>, pgoff: u64, seq: u64) {
        if let Some(vma) = self.by_start.get_mut(&range.start)
            && vma.range == range
            && vma.seq == seq
        {
            match &mut vma.backing {
                Backing::Anon { index } => *index = pgoff,
                Backing::File { offset, .. } => *offset = pgoff.wrapping_mul(PAGE),
            }
        }
    }

    /// Returns the parts of `range` that no write section after `seq` protected, as far as is known.
    fn not_protected_later(&self, range: Range<u64>, seq: u64) -> Vec<Range<u64>> {
        let mut parts = vec![range];
        for (later, _) in self.protections.iter().rev().take_while(|(_, later)| *later > seq) {
            parts = parts
                .into_iter()
                .flat_map(|part| {
                    let below = part.start..part.end.min(later.start);
                    let above = part.start.max(later.end)..part.end;
                    [below, above]
                })
                .filter(|part| !part.is_empty())
                .collect();
        }
        parts.retain(|part| !part.is_empty());
        parts
    }

    fn was_seen(&self, seq: u64) -> bool {
        self.floor.is_some_and(|floor| seq <= floor)
    }

    fn insert(&mut self, vma: Vma) {
        debug_assert!(!vma.is_empty());
        self.mapped += vma.len();
        if let Some(replaced) = self.by_start.insert(vma.range.start, vma) {
            self.mapped -= replaced.len();
        }
    }

    fn remove(&mut self, start: u64) -> Option<Vma> {
        let vma = self.by_start.remove(&start)?;
        self.mapped -= vma.len();
        Some(vma)
    }

    /// Takes the pieces in `range` that are not newer than `seq` out of the map.
    fn take(&mut self, range: Range<u64>, seq: u64) -> Vec<Vma> {
        if range.is_empty() {
            return Vec::new();
        }
        let (mut below, mut inside, mut above) = (None, Vec::new(), None);
        // Downwards from the end: no two overlap, so behind the first that ends below are no more.
        let candidates = self.by_start.range_mut(..range.end).rev();
        for (_, vma) in candidates.take_while(|(_, vma)| vma.range.end > range.start) {
            if vma.seq > seq {
                continue;
            }
            if vma.range.end > range.end {
                let (low, high) = vma.clone().split(range.end);
                self.mapped -= high.len();
                (*vma, above) = (low, Some(high));
            }
            if vma.range.start < range.start {
                let (low, high) = vma.clone().split(range.start);
                self.mapped -= high.len();
                (*vma, below) = (low, Some(high));
            } else {
                inside.push(vma.clone());
            }
        }
        for vma in &inside {
            self.remove(vma.range.start);
        }
        if let Some(above) = above {
            self.insert(above);
        }
        let mut taken = inside;
        taken.extend(below);
        taken.reverse();
        taken
    }
}

#[cfg(test)]
#[path = "region_map_tests.rs"]
mod tests;
