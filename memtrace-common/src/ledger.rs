//! What the kernel counts for each address space, by the way in which pages left it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The way in which pages left an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Path {
    /// `munmap(2)` and `shmdt(2)`.
    Munmap = 0,
    /// `brk(2)` downwards: a heap trim.
    Brk = 1,
    /// `madvise` `MADV_DONTNEED` and `MADV_DONTNEED_LOCKED`.
    DontNeed = 2,
    /// `madvise` `MADV_FREE`: nothing leaves in the call itself.
    Free = 3,
    /// `madvise` `MADV_REMOVE` and `fallocate` `PUNCH_HOLE`.
    Remove = 4,
    /// `mremap(2)`: shrinking, or onto something else.
    Mremap = 5,
    /// `mmap(2)` with `MAP_FIXED` over something else.
    Overmap = 6,
    /// `execve(2)` replaced the address space.
    Exec = 7,
    /// The last user of the address space exited.
    Exit = 8,
    /// The kernel took them: kswapd, direct or memcg reclaim, `MADV_PAGEOUT`.
    Pressure = 9,
    /// Anything else.
    Other = 10,
}

/// Number of [`Path`]s.
pub const PATHS: usize = 11;

impl Path {
    /// No path: the raw value in a record that detached and freed nothing.
    pub const NONE: u16 = u16::MAX;

    /// Every path, in the order of the report.
    pub const ALL: [Self; PATHS] = [
        Self::Munmap,
        Self::Brk,
        Self::DontNeed,
        Self::Free,
        Self::Remove,
        Self::Mremap,
        Self::Overmap,
        Self::Exec,
        Self::Exit,
        Self::Pressure,
        Self::Other,
    ];

    /// Returns the path that `raw` stands for.
    pub fn from_raw(raw: u16) -> Option<Self> {
        Self::ALL.get(usize::from(raw)).copied()
    }

    /// Returns the path that a piece of advice takes, `None` when it gives nothing up (`MADV_*`,
    /// include/uapi/asm-generic/mman-common.h, 6.18).
    pub const fn of_advice(advice: u64) -> Option<Self> {
        Some(match advice {
            4 | 24 => Self::DontNeed,
            8 => Self::Free,
            9 => Self::Remove,
            21 => Self::Pressure,
            _ => return None,
        })
    }

    /// Returns its place in [`Ledger::paths`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The kernel's counters of an mm, in the order of `enum` `MM_FILEPAGES`… (include/linux/mm_types_task.h, 6.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Resident pages of files.
    File = 0,
    /// Resident anonymous pages.
    Anon = 1,
    /// Anonymous pages in swap.
    Swap = 2,
    /// Resident pages of tmpfs.
    Shmem = 3,
}

/// Number of [`Counter`]s.
pub const COUNTERS: usize = 4;

/// What left by one path.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PathCounters {
    /// Pages detached, by [`Counter`]; those of [`Counter::Swap`] were swap entries.
    pub zapped_pages: [u64; COUNTERS],
    /// Frames that the page allocator got back inside the operation.
    pub freed_frames: u64,
    /// Frames that it got back later, out of a per-CPU batch.
    pub late_frames: u64,
}

impl PathCounters {
    /// Returns the resident pages detached: file, anonymous and tmpfs.
    pub const fn resident_pages(&self) -> u64 {
        let [file, anon, _swap, shmem] = self.zapped_pages;
        file.saturating_add(anon).saturating_add(shmem)
    }
}

/// The books of one address space, kept in the kernel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Ledger {
    /// Write sections of the mm's lock since it was first seen: orders all changes of its map.
    pub sections: u64,
    /// Pages that were resident when counting began, by [`Counter`].
    pub base_pages: [i64; COUNTERS],
    /// Pages faulted in since, net of copy-on-write exchanges, by [`Counter`].
    pub in_pages: [i64; COUNTERS],
    /// What left, by [`Path`].
    pub paths: [PathCounters; PATHS],
}

impl Ledger {
    /// Returns the pages that are there by these books, by [`Counter`].
    pub fn present_pages(&self) -> [i64; COUNTERS] {
        let mut present = [0; COUNTERS];
        for (member, pages) in present.iter_mut().enumerate() {
            let zapped: u64 = self.paths.iter().map(|path| path.zapped_pages[member]).sum();
            *pages = self.base_pages[member] + self.in_pages[member] - zapped as i64;
        }
        present
    }
}

/// What the probes say of themselves. One set per CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ProbeStats {
    /// Records written.
    pub emitted: u64,
    /// Records lost because the ring buffer was full.
    pub dropped: u64,
    /// Address spaces that could not be followed because the table was full.
    pub untracked: u64,
    /// Operations for which a record was wanted, counted before there was room for it or not:
    /// `emitted + dropped`, or one of the three is wrong.
    pub operations: u64,
}

impl core::ops::Add for ProbeStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            emitted: self.emitted + other.emitted,
            dropped: self.dropped + other.dropped,
            untracked: self.untracked + other.untracked,
            operations: self.operations + other.operations,
        }
    }
}
