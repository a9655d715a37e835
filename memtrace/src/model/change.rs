//! What one event changed, for the live stream.

use memtrace_common::{Path, Syscall};
use serde::Serialize;

use super::report::RegionReport;

/// One line of the live stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// When it returned, `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// What users call its PID.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// A memory system call returned.
    Call {
        /// Its name.
        call: &'static str,
        /// First byte of its range, hexadecimal in JSON.
        #[serde(serialize_with = "hex")]
        start: u64,
        /// Bytes of its range.
        requested: u64,
        /// Advice, protection or flags, in words; empty without any.
        detail: String,
        /// Result: an address for those that map, else 0; or a negative errno.
        ret: i64,
        /// The path by which pages left, `None` when none left.
        path: Option<&'static str>,
        /// Resident bytes detached, `None` where they are not counted.
        zapped: Option<u64>,
        /// Bytes that the page allocator got back inside the call, `None` where they are not counted.
        freed: Option<u64>,
        /// Nanoseconds from when the first pages were counted out until it returned, at most 2³² − 1;
        /// `None` where that is not known, or none were. The kernel counts after each page table, that
        /// is 2 MiB (`zap_pte_range`, mm/memory.c, 5.10 to 7.3).
        duration_ns: Option<u32>,
    },
    /// A page fault began.
    Fault {
        /// Where.
        #[serde(serialize_with = "hex")]
        address: u64,
        /// `read`, `write` or `exec`.
        access: &'static str,
        /// The kernel itself touched user memory.
        from_kernel: bool,
    },
    /// A child was created.
    Fork {
        /// Its PID.
        child: u32,
        /// It is traced too.
        followed: bool,
    },
    /// The program was replaced.
    Exec {
        /// As given to exec.
        path: String,
    },
    /// The process exited.
    Exit {
        /// Exit code, or 128 and the signal that ended it.
        code: i32,
    },
    /// What it holds, as it was asked for every so often.
    Memory {
        /// Frames that it has mapped, in bytes.
        resident: Option<u64>,
        /// Resident and not known to be free.
        live: Option<u64>,
        /// Resident and free in its allocators.
        free_resident: Option<u64>,
        /// `MADV_FREE`d and not yet taken.
        lazy_free: Option<u64>,
        /// What a trim would give back.
        trimmable: Option<u64>,
        /// Its regions that have frames.
        regions: Vec<RegionReport>,
    },
    /// Its address space was torn down.
    MmEnd {
        /// Resident bytes detached by exec or exit, `None` where they are not counted.
        zapped: Option<u64>,
        /// Bytes that the page allocator got back in it, `None` where they are not counted.
        freed: Option<u64>,
    },
}

fn hex<S: serde::Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

/// Returns the name of a path in every output.
pub const fn path_name(path: Path) -> &'static str {
    match path {
        Path::Munmap => "munmap",
        Path::Brk => "brk",
        Path::DontNeed => "dont_need",
        Path::Free => "free",
        Path::Remove => "remove",
        Path::Mremap => "mremap",
        Path::Overmap => "overmap",
        Path::Exec => "exec",
        Path::Exit => "exit",
        Path::Pressure => "pressure",
        Path::Other => "other",
    }
}

/// Returns the name of a system call.
pub const fn syscall_name(syscall: Syscall) -> &'static str {
    match syscall {
        Syscall::Mmap => "mmap",
        Syscall::Munmap => "munmap",
        Syscall::Brk => "brk",
        Syscall::Mremap => "mremap",
        Syscall::Mprotect => "mprotect",
        Syscall::Madvise => "madvise",
        Syscall::ProcessMadvise => "process_madvise",
        Syscall::Shmat => "shmat",
        Syscall::Shmdt => "shmdt",
        Syscall::PunchHole => "fallocate",
    }
}

/// Returns a call's advice, protection or flags in words.
pub fn detail(syscall: Syscall, args: &[u64; 6]) -> String {
    let &[first, _, third, fourth, ..] = args;
    match syscall {
        Syscall::Mmap => format!("{} {}", protection(third), map_flags(fourth)),
        Syscall::Mprotect => protection(third),
        Syscall::Madvise => advice(third),
        Syscall::ProcessMadvise => advice(fourth),
        Syscall::Mremap => format!("from {first:#x}"),
        Syscall::Munmap | Syscall::Brk | Syscall::Shmat | Syscall::Shmdt => String::new(),
        Syscall::PunchHole => format!("fd {first} PUNCH_HOLE"),
    }
}

fn protection(prot: u64) -> String {
    let names = [(1, "READ"), (2, "WRITE"), (4, "EXEC")];
    flags(prot, &names, "NONE")
}

fn map_flags(bits: u64) -> String {
    // include/uapi/asm-generic/mman-common.h, include/uapi/asm-generic/mman.h (6.18)
    let names = [
        (0x01, "SHARED"),
        (0x02, "PRIVATE"),
        (0x10, "FIXED"),
        (0x20, "ANONYMOUS"),
        (0x100, "GROWSDOWN"),
        (0x2000, "LOCKED"),
        (0x4000, "NORESERVE"),
        (0x8000, "POPULATE"),
        (0x20000, "STACK"),
        (0x40000, "HUGETLB"),
        (0x10_0000, "FIXED_NOREPLACE"),
    ];
    flags(bits, &names, "0")
}

fn flags(bits: u64, names: &[(u64, &str)], none: &str) -> String {
    let set: Vec<&str> =
        names.iter().filter(|(bit, _)| bits & bit != 0).map(|&(_, name)| name).collect();
    if set.is_empty() { none.to_owned() } else { set.join("|") }
}

fn advice(advice: u64) -> String {
    // include/uapi/asm-generic/mman-common.h (6.18)
    let name = match advice {
        0 => "NORMAL",
        1 => "RANDOM",
        2 => "SEQUENTIAL",
        3 => "WILLNEED",
        4 => "DONTNEED",
        8 => "FREE",
        9 => "REMOVE",
        10 => "DONTFORK",
        11 => "DOFORK",
        12 => "MERGEABLE",
        13 => "UNMERGEABLE",
        14 => "HUGEPAGE",
        15 => "NOHUGEPAGE",
        16 => "DONTDUMP",
        17 => "DODUMP",
        18 => "WIPEONFORK",
        19 => "KEEPONFORK",
        20 => "COLD",
        21 => "PAGEOUT",
        22 => "POPULATE_READ",
        23 => "POPULATE_WRITE",
        24 => "DONTNEED_LOCKED",
        25 => "COLLAPSE",
        102 => "GUARD_INSTALL",
        103 => "GUARD_REMOVE",
        _ => return format!("advice {advice}"),
    };
    name.to_owned()
}
