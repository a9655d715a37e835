//! The report: plain data, the same for every output format. Documented in docs/OUTPUT.md.
//!
//! Sizes are bytes, times nanoseconds of `CLOCK_BOOTTIME`; an unknown figure is `None`, never 0.

use std::collections::BTreeMap;

use serde::Serialize;

/// Everything that one run of memtrace has to say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Where it was measured.
    pub host: Host,
    /// When, and how completely.
    pub window: Window,
    /// The traced processes, in the order in which they were seen.
    pub processes: Vec<ProcessReport>,
}

/// [`Report::schema`] of this build.
pub const SCHEMA: &str = "memtrace.report/1";

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// The kernel zeroes every frame that it hands out (`init_on_alloc`).
    pub init_on_alloc: Option<bool>,
    /// The kernel zeroes every frame that it gets back (`init_on_free`).
    pub init_on_free: Option<bool>,
}

/// What the figures rest on. Each level knows what the one before it does, and costs more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// Arguments and results of calls: *requested*. Region maps are read, not followed.
    Args,
    /// What the kernel counts for each address space: *zapped*, and the balance.
    Rss,
    /// Frames that the page allocator gets back: *freed*, *late* and *kept elsewhere*.
    #[default]
    Frames,
}

impl Evidence {
    /// Every level, the cheapest first.
    pub const ALL: [Self; 3] = [Self::Args, Self::Rss, Self::Frames];

    /// Returns its name on the command line and in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Args => "args",
            Self::Rss => "rss",
            Self::Frames => "frames",
        }
    }

    /// Returns a figure if this level knows it: one that rests on `needed`.
    pub fn knows<T>(self, needed: Self, figure: T) -> Option<T> {
        (self >= needed).then_some(figure)
    }
}

/// The time in which was traced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    /// What the figures rest on.
    pub evidence: Evidence,
    /// When the probes were attached.
    pub start_ns: u64,
    /// When the report was made.
    pub end_ns: u64,
    /// Records that the probes wrote.
    pub emitted: u64,
    /// Records that were lost because the ring buffer was full.
    pub dropped: u64,
    /// Address spaces that were not followed because the table was full.
    pub untracked: u64,
    /// Runs of probes that the kernel skipped, of any process of the machine.
    pub missed: u64,
    /// Region maps that were read again because something was lost.
    pub resyncs: u64,
    /// No record was lost and every address space was followed.
    pub complete: bool,
    /// The probes and what became of them.
    pub probes: Vec<ProbeReport>,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// What it watches.
    pub name: String,
    /// The hook that was taken, `None` when none could be.
    pub hook: Option<String>,
    /// `attached`, `skipped` (not asked for) or `unsupported`.
    pub state: &'static str,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessReport {
    /// What users call its PID.
    pub tgid: u32,
    /// When it started.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
    /// Its executable, as given to exec or from `/proc/PID/exe`.
    pub exe: Option<String>,
    /// `running`, `exited` or `unknown`.
    pub state: &'static str,
    /// Exit code, or 128 and the signal that ended it.
    pub exit_code: Option<i32>,
    /// What it holds: now, or just before it exited.
    pub memory: Memory,
    /// What it asked for.
    pub mapped: Mapped,
    /// What left it.
    pub reclaimed: Reclaimed,
    /// What became of the memory that it gave up by `MADV_FREE`.
    pub madv_free: MadvFree,
    /// What went to swap and came back, in the window.
    pub swap: Swap,
    /// How long its freed frames kept what was in them; `None` when nobody measured.
    pub remanence: Option<Remanence>,
    /// Its page faults in the window.
    pub faults: Faults,
    /// What came in against what went out and what is there.
    pub balance: Balance,
    /// What its allocators hold; empty until they are walked.
    pub allocators: Vec<AllocatorReport>,
    /// Its regions, the largest first.
    pub regions: Vec<RegionReport>,
}

/// What a process holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Size of all its regions.
    pub mapped: Option<u64>,
    /// Frames that it has mapped.
    pub resident: Option<u64>,
    /// `resident` by what backs it.
    pub resident_by_kind: ResidentByKind,
    /// Resident and not known to be free.
    pub live: Option<u64>,
    /// Given up by the program, frames still taken.
    pub freed_not_reclaimed: FreedNotReclaimed,
    /// Mapped without a frame.
    pub reserved: Option<u64>,
    /// In swap.
    pub swapped: Option<u64>,
}

/// Resident bytes by what backs them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResidentByKind {
    /// Anonymous memory.
    pub anon: Option<u64>,
    /// Files.
    pub file: Option<u64>,
    /// tmpfs: shared anonymous memory, memfd, System V.
    pub shmem: Option<u64>,
}

/// Given up by the program, frames still taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FreedNotReclaimed {
    /// All of it; `None` while one part is unknown.
    pub total: Option<u64>,
    /// Kept by allocators.
    pub allocator: Option<u64>,
    /// `MADV_FREE`d and not yet taken.
    pub lazy_free: Option<u64>,
}

/// Address space that a process asked for in the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mapped {
    /// Calls of mmap, growing brk and mremap, and shmat that succeeded.
    pub calls: u64,
    /// Bytes that they added; `None` when the size of one is not known.
    pub requested: Option<u64>,
    /// The largest size of all regions together, as far as it was seen.
    pub peak: Option<u64>,
}

/// What left a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reclaimed {
    /// Bytes that the page allocator got back, by any path; `None` below [`Evidence::Frames`].
    pub total: Option<u64>,
    /// How long the late frames took; `None` when there were none, or nobody measured.
    pub late_delay: Option<LateDelay>,
    /// The same by path; a path that nothing took is absent.
    pub by_path: BTreeMap<&'static str, PathReport>,
    /// What left in system calls, by what the region was; a kind that nothing left is absent.
    pub by_kind: BTreeMap<&'static str, KindReport>,
}

/// What left regions of one kind in system calls, bytes. What exec, exit and reclaim took is not among
/// it, nor what came back late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KindReport {
    /// Calls that detached pages.
    pub calls: u64,
    /// Resident bytes detached.
    pub zapped: u64,
    /// Bytes that the page allocator got back inside the calls; `None` below [`Evidence::Frames`].
    pub freed: Option<u64>,
}

/// How long frames took that came back after the operation that detached them, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LateDelay {
    /// Half of them took at most so long (to the next power of two).
    pub p50_ns: u64,
    /// 99 % of them took at most so long (to the next power of two).
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// What left by one path. The four figures of docs/OUTPUT.md, never mixed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PathReport {
    /// Operations.
    pub calls: u64,
    /// Bytes of their ranges; `None` when the size of one is not known.
    pub requested: Option<u64>,
    /// Resident bytes detached from this process; `None` below [`Evidence::Rss`].
    pub zapped: Option<u64>,
    /// Bytes that the page allocator got back, `late` ones included; like those that follow `None`
    /// below [`Evidence::Frames`].
    pub freed: Option<u64>,
    /// Bytes of `freed` that came back after the call, out of a per-CPU batch or from task work.
    pub late: Option<u64>,
    /// `zapped - freed`: the frames live on elsewhere.
    pub kept_elsewhere: Option<u64>,
    /// Why, in bytes that add up to `kept_elsewhere`.
    pub kept_by_reason: Option<KeptByReason>,
}

/// Why detached frames were not freed, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeptByReason {
    /// They belong to files: the page cache keeps them.
    pub page_cache: u64,
    /// They belong to tmpfs: the memory object lives on (another mapping, a descriptor, a segment).
    pub shmem: u64,
    /// Anonymous, and an address space that a fork shares them with was alive.
    pub shared: u64,
    /// Part of a huge page of which another part is still mapped: it goes as a whole.
    pub huge_page: u64,
    /// Pinned for a device, as far as the process's `VmPin` says so.
    pub pinned: u64,
    /// Taken by reclaim, and still in the swap cache, or mapped again from there.
    pub swap: u64,
    /// Nobody knows: still in a per-CPU batch, pinned, or shared since before tracing began.
    pub unknown: u64,
}

impl KeptByReason {
    /// Adds others.
    pub fn add(&mut self, other: Self) {
        let Self { page_cache, shmem, shared, huge_page, pinned, swap, unknown } = self;
        for (sum, more) in [
            (page_cache, other.page_cache),
            (shmem, other.shmem),
            (shared, other.shared),
            (huge_page, other.huge_page),
            (pinned, other.pinned),
            (swap, other.swap),
            (unknown, other.unknown),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// Page faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Without I/O.
    pub minor: Option<u64>,
    /// With I/O.
    pub major: Option<u64>,
    /// Frames that were zeroed for it.
    pub zeroed: Option<u64>,
    /// The same by what they are for.
    pub zeroed_by_kind: ZeroedByKind,
    /// Frames into which another was copied for it: copy-on-write.
    pub copied: Option<u64>,
}

/// Zeroed frames by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ZeroedByKind {
    /// Pages of anonymous memory.
    pub anon: Option<u64>,
    /// Huge pages of anonymous memory, in frames.
    pub huge: Option<u64>,
    /// Pages of tmpfs.
    pub shmem: Option<u64>,
}

/// What became of the memory that a process gave up by `MADV_FREE`, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MadvFree {
    /// Still there, for the kernel to take.
    pub now: Option<u64>,
    /// Resident in a range that was given up, and in use again.
    pub used_again: Option<u64>,
    /// Taken by the kernel, in the window.
    pub taken: Option<u64>,
}

/// Pages to and from swap, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swap {
    /// Written by reclaim.
    pub out: Option<u64>,
    /// Brought back by faults.
    pub r#in: Option<u64>,
}

/// How long freed frames kept what was in them, in frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remanence {
    /// Frames that the process freed.
    pub freed: u64,
    /// Of them, those that nobody got yet: they hold what was in them, unless the kernel clears what
    /// it gets back ([`Host::init_on_free`]).
    pub still_free: u64,
    /// Of those that others got, those that were asked for full of zeros. Whoever got the rest
    /// overwrites them: a copy, the page cache, the kernel's own data.
    pub zeroed_for_others: u64,
    /// Frames that the process got again.
    pub to_itself: Reuse,
    /// Frames that others got.
    pub to_others: Reuse,
}

/// Frames that were given out again, and how long after they had been freed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reuse {
    /// How many.
    pub frames: u64,
    /// Half of them at most so long (to the next power of two); like the next two 0 without any.
    pub p50_ns: u64,
    /// 99 % of them at most so long (to the next power of two).
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// All of them, by the time that they took; ascending, without empty steps.
    pub histogram: Vec<Within>,
}

/// A step of a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Within {
    /// At most so long, and longer than the step before: a power of two minus one.
    pub within_ns: u64,
    /// Frames.
    pub frames: u64,
}

/// `in = resident + out + unexplained`, all in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Resident when tracing began and faulted in since.
    pub r#in: Option<i64>,
    /// Zapped, by any path.
    pub out: Option<i64>,
    /// Resident at the end, measured on its own; 0 after the teardown.
    pub resident: Option<i64>,
    /// What is left over.
    pub unexplained: Option<i64>,
}

/// What one allocator holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllocatorReport {
    /// Its name.
    pub name: String,
}

/// One region of the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegionReport {
    /// First byte, hexadecimal.
    pub start: String,
    /// First byte after it, hexadecimal.
    pub end: String,
    /// `heap`, `stack`, `anon`, `file`, `shmem`, `vdso`, `vvar` or `vsyscall`.
    pub kind: &'static str,
    /// File name or what the kernel calls it.
    pub name: Option<String>,
    /// As in `/proc/PID/maps`.
    pub prot: String,
    /// Size.
    pub mapped: u64,
    /// Frames in it.
    pub resident: Option<u64>,
    /// Resident and not known to be free.
    pub live: Option<u64>,
    /// Resident and free in the allocator.
    pub free_resident: Option<u64>,
    /// `MADV_FREE`d and not yet taken.
    pub lazy_free: Option<u64>,
}
