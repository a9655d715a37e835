//! The report: plain data, the same for every output format. Documented in docs/OUTPUT.md.
//!
//! Sizes are bytes, times nanoseconds of `CLOCK_BOOTTIME`; an unknown figure is `None`, never 0.

mod allocators;
mod frames;
mod left;
mod memory;
mod stacks;

use serde::{Deserialize, Serialize};

use super::{
    cells::Cells,
    names::{Name, interned},
};

pub use self::{
    allocators::{AllocatorReport, ArenaReport, Remains},
    frames::{Faults, MadvFree, Remanence, Reuse, Swap, Within, ZeroedByKind},
    left::{KeptByReason, KindReport, LateDelay, PathReport, Reclaimed},
    memory::{FreedNotReclaimed, Memory, ResidentByKind},
    stacks::{
        FaultedBy, Frame, FreedBy, ProbedFunction, ProcessStacks, ReclaimedBy, RetainedBy,
        SamplingCost, StackKind, Stacks,
    },
};

/// Everything that one run of memtrace has to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name and version of this layout.
    #[serde(deserialize_with = "interned")]
    pub schema: Name,
    /// Where it was measured.
    pub host: Host,
    /// When, and how completely.
    pub window: Window,
    /// The traced processes, in the order in which they were seen.
    pub processes: Vec<ProcessReport>,
    /// Who allocated and freed, gave up and faulted; `None` without `--stacks`.
    pub stacks: Option<Stacks>,
}

/// [`Report::schema`] of this build.
pub const SCHEMA: &str = "memtrace.report/1";

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What it watches.
    pub name: String,
    /// The hook that was taken, `None` when none could be.
    pub hook: Option<String>,
    /// `attached`, `skipped` (not asked for) or `unsupported`.
    #[serde(deserialize_with = "interned")]
    pub state: Name,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    #[serde(deserialize_with = "interned")]
    pub state: Name,
    /// It was read in a core file.
    #[serde(skip)]
    pub of_core: bool,
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
    /// Why allocators that it uses could not be walked, each in a sentence.
    pub unwalked: Vec<String>,
    /// What is worth doing about what it holds, the most bytes first.
    pub findings: Vec<Finding>,
    /// Its regions, the largest first.
    pub regions: Vec<RegionReport>,
}

/// Address space that a process asked for in the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mapped {
    /// Calls of mmap, growing brk and mremap, and shmat that succeeded.
    pub calls: u64,
    /// Bytes that they added; `None` when the size of one is not known.
    pub requested: Option<u64>,
    /// The largest size of all regions together, as far as it was seen.
    pub peak: Option<u64>,
}

/// `in = resident + out + unexplained`, all in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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

/// Something worth doing about what a process holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// What it is, in one word.
    #[serde(deserialize_with = "interned")]
    pub id: Name,
    /// The memory that it is about.
    pub bytes: u64,
    /// What was found.
    pub summary: String,
    /// What it rests on.
    pub evidence: String,
    /// What to try.
    pub advice: String,
}

/// One region of the map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegionReport {
    /// First byte, hexadecimal.
    pub start: String,
    /// First byte after it, hexadecimal.
    pub end: String,
    /// `heap`, `stack`, `anon`, `file`, `shmem`, `vdso`, `vvar` or `vsyscall`.
    #[serde(deserialize_with = "interned")]
    pub kind: Name,
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
    /// In swap.
    #[serde(skip)]
    pub swapped: Option<u64>,
    /// Resident and not touched in the window; `None` when nobody asked.
    pub cold: Option<u64>,
    /// Where its pages are: for the page, which has it beside the report.
    #[serde(skip)]
    pub cells: Option<Cells>,
}
