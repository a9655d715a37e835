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

    /// Returns the frames that the page allocator got back, inside the operation or late.
    pub const fn all_freed_frames(&self) -> u64 {
        self.freed_frames.saturating_add(self.late_frames)
    }

    /// Adds what left by the same path elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.zapped_pages.iter_mut().zip(other.zapped_pages) {
            *sum = sum.saturating_add(more);
        }
        self.freed_frames = self.freed_frames.saturating_add(other.freed_frames);
        self.late_frames = self.late_frames.saturating_add(other.late_frames);
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
    /// Anonymous frames among those freed, late ones included, by [`Path`]; [`Ledger::NOT_TOLD`] in
    /// older traces, as are the next.
    pub freed_anon_frames: [u64; PATHS],
    /// Anonymous pages that were detached and not freed while a relative lived: another address
    /// space that a fork made of this one, or this one of it. By [`Path`].
    pub shared_pages: [u64; PATHS],
    /// Pages that reclaim wrote to swap; [`Ledger::NOT_TOLD`] in older traces, as are the next.
    pub swapped_out_pages: u64,
    /// Pages that came back from swap.
    pub swapped_in_pages: u64,
    /// Frames that were allocated for it at faults, by [`Fill`].
    pub filled_frames: [u64; FILLS],
}

/// How a frame got its contents when a fault allocated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fill {
    /// Zeroed: a page of anonymous memory (`__GFP_ZERO`).
    Zeroed = 0,
    /// Zeroed: a huge page of anonymous memory, or a smaller one of several pages.
    ZeroedHuge = 1,
    /// Zeroed: a page of tmpfs.
    ZeroedShmem = 2,
    /// Copied from another frame: copy-on-write.
    Copied = 3,
}

/// Number of [`Fill`]s.
pub const FILLS: usize = 4;

/// Bytes of [`Ledger`] in traces that tell nothing of why frames stayed.
pub(crate) const OLDEST_LEDGER: usize = core::mem::offset_of!(Ledger, freed_anon_frames);

impl Ledger {
    /// A figure that an older trace does not have.
    pub const NOT_TOLD: u64 = u64::MAX;

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

/// How long the late frames of an address space took to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Delays {
    /// Frames by the binary logarithm of their delay in nanoseconds.
    pub frames: [u64; DELAY_BUCKETS],
    /// The longest delay, nanoseconds.
    pub max_ns: u64,
}

/// Number of [`Delays::frames`].
pub const DELAY_BUCKETS: usize = 64;

impl Default for Delays {
    fn default() -> Self {
        Self { frames: [0; DELAY_BUCKETS], max_ns: 0 }
    }
}

impl Delays {
    /// Returns how many frames there were.
    pub fn all_frames(&self) -> u64 {
        self.frames.iter().copied().fold(0, u64::saturating_add)
    }

    /// Returns the longest delay of a bucket, nanoseconds.
    pub const fn end(bucket: usize) -> u64 {
        u64::MAX >> (DELAY_BUCKETS - 1 - bucket)
    }

    /// Returns the bucket of a delay.
    pub const fn bucket(delay_ns: u64) -> usize {
        (delay_ns | 1).ilog2() as usize
    }

    /// Adds those of another address space.
    pub fn add(&mut self, other: &Self) {
        for (frames, more) in self.frames.iter_mut().zip(other.frames) {
            *frames = frames.saturating_add(more);
        }
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Returns a delay, in nanoseconds, within which `per_cent` of the frames came back: the upper
    /// end of its bucket, but not more than the longest. `None` when there were none.
    pub fn within(&self, per_cent: u64) -> Option<u64> {
        let all = self.all_frames();
        let wanted = all.saturating_mul(per_cent).div_ceil(100);
        let mut seen: u64 = 0;
        for (bucket, &frames) in self.frames.iter().enumerate() {
            seen = seen.saturating_add(frames);
            if seen >= wanted && all > 0 {
                return Some(Self::end(bucket).min(self.max_ns));
            }
        }
        None
    }
}

/// Whose an address space is. With [`Owner::tgid`] 0: a program in a cgroup.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Owner {
    /// Its name, zero-terminated.
    pub comm: [u8; 16],
    /// Number of its cgroup (version 2, or of the memory controller in version 1): the inode number of
    /// its folder.
    pub cgroup: u64,
    /// Process id as userspace knows it.
    pub tgid: u32,
    /// Zero.
    pub reserved: u32,
}

/// What left address spaces that ended, summed over a program in a cgroup.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Sum {
    /// How many they were.
    pub spaces: u64,
    /// What left, by [`Path`].
    pub paths: [PathCounters; PATHS],
    /// Operations that detached pages, by [`Path`].
    pub operations: [u64; PATHS],
}

/// How long freed frames of an address space kept what was in them, before they were given out again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Remanence {
    /// Frames that it freed.
    pub freed_frames: u64,
    /// Of those that others got: frames that whoever asked for them wanted zeroed.
    pub zeroed_frames: u64,
    /// Frames that it got again itself.
    pub to_itself: Delays,
    /// Frames that others got: other processes, the page cache, the kernel.
    pub to_others: Delays,
}

impl Remanence {
    /// The part of its number by which the frames of an address space are known.
    pub const TAG: u64 = (1 << 20) - 1;

    /// Adds that of another address space.
    pub fn add(&mut self, other: &Self) {
        self.freed_frames = self.freed_frames.saturating_add(other.freed_frames);
        self.zeroed_frames = self.zeroed_frames.saturating_add(other.zeroed_frames);
        self.to_itself.add(&other.to_itself);
        self.to_others.add(&other.to_others);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_the_upper_end_of_its_bucket_and_not_above_the_longest() {
        let mut delays = Delays::default();
        assert_eq!(delays.within(50), None);
        for (ns, frames) in [(0, 1), (1, 1), (1000, 97), (900_000, 1)] {
            delays.frames[Delays::bucket(ns)] += frames;
            delays.max_ns = delays.max_ns.max(ns);
        }
        assert_eq!(
            [1, 2, 50, 99, 100].map(|n| delays.within(n)),
            [Some(1), Some(1), Some(1023), Some(1023), Some(900_000)]
        );
        let mut both = delays;
        both.add(&Delays { max_ns: 7, ..delays });
        assert_eq!((both.frames[0], both.max_ns, both.within(50)), (4, 900_000, Some(1023)));
        assert_eq!(Delays::bucket(u64::MAX), DELAY_BUCKETS - 1);
    }
}
