//! What each kind of record holds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;
use crate::{COUNTERS, Ledger};

/// What backs a VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Backing {
    /// Anonymous memory.
    Anon = 0,
    /// A file on a file system with a disk or network behind it.
    File = 1,
    /// A file on tmpfs: `MAP_SHARED|MAP_ANONYMOUS`, memfd, System V shared memory, /dev/shm.
    Shmem = 2,
}

impl Backing {
    /// Returns the backing that `raw` stands for.
    pub const fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            0 => Self::Anon,
            1 => Self::File,
            2 => Self::Shmem,
            _ => return None,
        })
    }
}

/// A VMA as the kernel stored it ([`super::Kind::MapRegion`]), or a range that it erased
/// ([`super::Kind::UnmapRegion`]: only `start`, `end` and `seq` count), or one that got another
/// offset ([`super::Kind::RegionOffset`]: `pgoff` as well).
///
/// Source: tracepoint `maple_tree:ma_write` and `struct vm_area_struct`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Region {
    /// Who and when; `mm` is the address space that changed, not always the current one.
    pub header: Header,
    /// Number of the mm's write section: see [`Ledger::sections`].
    pub seq: u64,
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
    /// `vm_pgoff`, pages: offset into the file, or the linear index of anonymous memory.
    pub pgoff: u64,
    /// `vm_flags`, raw.
    pub flags: u64,
    /// Inode number, 0 for anonymous memory.
    pub inode: u64,
    /// `s_dev` of the file's superblock, `(major << 20) | minor`.
    pub dev: u32,
    /// A [`Backing`], raw.
    pub backing: u16,
    /// Tells apart files of the same inode number and device: see [`FileName::name_tag`].
    pub name_tag: u16,
}

/// A memory system call, whatever its number on this architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Syscall {
    /// `mmap(2)`.
    Mmap = 1,
    /// `munmap(2)`.
    Munmap = 2,
    /// `brk(2)`.
    Brk = 3,
    /// `mremap(2)`.
    Mremap = 4,
    /// `mprotect(2)` and `pkey_mprotect(2)`.
    Mprotect = 5,
    /// `madvise(2)`.
    Madvise = 6,
    /// `process_madvise(2)`.
    ProcessMadvise = 7,
    /// `shmat(2)`.
    Shmat = 8,
    /// `shmdt(2)`.
    Shmdt = 9,
    /// `fallocate(2)` with `FALLOC_FL_PUNCH_HOLE`.
    PunchHole = 10,
}

impl Syscall {
    /// Returns the call that `raw` stands for, if this build knows it.
    pub const fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            1 => Self::Mmap,
            2 => Self::Munmap,
            3 => Self::Brk,
            4 => Self::Mremap,
            5 => Self::Mprotect,
            6 => Self::Madvise,
            7 => Self::ProcessMadvise,
            8 => Self::Shmat,
            9 => Self::Shmdt,
            10 => Self::PunchHole,
            _ => return None,
        })
    }
}

/// A memory system call returned.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Call {
    /// Who and when; `mm` is the caller's.
    pub header: Header,
    /// Number of the write section in which the call changed the map: see [`Ledger::sections`].
    pub seq: u64,
    /// The call's arguments as they stood in the registers.
    pub args: [u64; 6],
    /// Result, or a negative errno.
    pub ret: i64,
    /// Pages that the call detached from the caller's address space.
    pub zapped_pages: u64,
    /// Frames that the page allocator got back inside the call.
    pub freed_frames: u64,
    /// A [`Syscall`], raw.
    pub syscall: u16,
    /// A [`crate::Path`], raw, or [`crate::Path::NONE`] when nothing was detached or freed.
    pub path: u16,
    /// Nanoseconds since the first pages were counted out, at most `u32::MAX`; 0 when none were, where
    /// they are not counted, and in older traces.
    pub duration_ns: u32,
}

/// A process was created. Threads are not reported.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Fork {
    /// The parent, and the *child's* mm: the parent's own one after `CLONE_VM`.
    pub header: Header,
    /// The parent's mm.
    pub parent_mm: u64,
    /// `CLONE_*` flags.
    pub clone_flags: u64,
    /// The child's `tgid`.
    pub child_tgid: u32,
    /// 1 when the child is traced (`--follow`), else 0.
    pub followed: u32,
    /// The child's start time, `CLOCK_BOOTTIME`.
    pub child_start_ns: u64,
}

/// A process replaced its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Exec {
    /// Who and when; `mm` is the new address space.
    pub header: Header,
    /// When the process started.
    pub start_ns: u64,
    /// First byte of the heap.
    pub start_brk: u64,
    /// End of the heap.
    pub brk: u64,
    /// Where the stack began.
    pub start_stack: u64,
    /// First byte of the vdso, 0 without one.
    pub vdso: u64,
    /// Minor faults of the process so far (`/proc/PID/stat` field 10).
    pub minor_faults: u64,
    /// Major faults of the process so far (`/proc/PID/stat` field 12).
    pub major_faults: u64,
    /// The file name that was given to `execve(2)`, cut at 95 bytes, zero-terminated.
    pub path: [u8; 96],
}

/// The last thread of a process exited.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Exit {
    /// Who and when; `mm` is 0 on kernels that detach it first.
    pub header: Header,
    /// Minor faults of the process in its life.
    pub minor_faults: u64,
    /// Major faults of the process in its life.
    pub major_faults: u64,
    /// As in `wait(2)`'s status.
    pub exit_code: u32,
    /// Zero.
    pub reserved: u32,
}

/// An address space was torn down; its final figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MmEnd {
    /// Who and when; `mm` is the address space, whoever tore it down.
    pub header: Header,
    /// All that was counted for it.
    pub ledger: Ledger,
}

/// A page fault began.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Fault {
    /// Who and when.
    pub header: Header,
    /// Faulting address.
    pub address: u64,
    /// Instruction that faulted.
    pub ip: u64,
    /// x86 page-fault error code (`enum x86_pf_error_code`).
    pub error_code: u64,
    /// 1 for a fault of the kernel on a user address, else 0.
    pub from_kernel: u64,
}

/// The last component of a mapped file's name, once per inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileName {
    /// Who mapped it first.
    pub header: Header,
    /// Inode number.
    pub inode: u64,
    /// `s_dev` of the file's superblock.
    pub dev: u32,
    /// A number that goes with the name. (The inode number of System V shared memory is its id, on
    /// the same device as that of memfd and shared anonymous memory: ipc/shm.c.)
    pub name_tag: u16,
    /// Zero.
    pub reserved: u16,
    /// The name, cut at 63 bytes, zero-terminated.
    pub name: [u8; 64],
}

/// A process as it was found when tracing began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TaskSeed {
    /// `mm`, `tgid` and `tid` are the found task's.
    pub header: Header,
    /// When the process started.
    pub start_ns: u64,
    /// First byte of the heap.
    pub start_brk: u64,
    /// End of the heap.
    pub brk: u64,
    /// Where the stack began.
    pub start_stack: u64,
    /// First byte of the vdso, 0 without one.
    pub vdso: u64,
    /// Pages that were resident, by [`crate::Counter`].
    pub rss_pages: [i64; COUNTERS],
    /// 1 when the probes now follow this mm; 0 when there was no room for it.
    pub tracked: u64,
}

/// Neighbouring frames that came back while an address space was torn down, which tells where its
/// resident memory was.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TeardownRun {
    /// Who and when; `mm` is the dying address space.
    pub header: Header,
    /// Linear page index of the first frame (`folio->index`).
    pub first: u64,
    /// Pages from the first frame to the last.
    pub pages: u64,
    /// Anonymous frames freed among them; fewer than `pages` where there were small holes.
    pub frames: u64,
}
