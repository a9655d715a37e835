//! Every kernel field that the probes read, and how.
//!
//! Rust has no CO-RE relocations: userspace looks the offsets up in the kernel's BTF and sets these
//! globals before the object is loaded, so that the verifier sees constants.

use aya_ebpf::{
    Global,
    bindings::pt_regs,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_get_smp_processor_id,
        bpf_task_pt_regs, generated, generated::bpf_ktime_get_boot_ns,
    },
};
use memtrace_common::control::NO_FIELD;

macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr),+ $(,)?) => {
        $($(#[$doc])*
        #[unsafe(no_mangle)]
        pub(crate) static $name: Global<$type> = Global::new($value);)+
    };
}

macro_rules! offsets {
    ($($name:ident),+ $(,)?) => { globals! { $($name: u32 = NO_FIELD),+ } };
}

// See `memtrace_common::control::FIELDS`.
offsets! {
    TASK_MM, TASK_TGID, TASK_PID, TASK_FLAGS, TASK_COMM, TASK_SIGNAL, TASK_LEADER, TASK_START,
    TASK_MIN_FLT, TASK_MAJ_FLT, TASK_RSS_CACHE, TASK_EXIT_CODE, TASK_NO_FAULTS, TASK_CGROUPS, SET_CGROUP,
    STATE_CGROUP, CGROUP_NODE, NODE_ID, SIGNAL_LIVE, SIGNAL_MIN_FLT, SIGNAL_MAJ_FLT, SIGNAL_FLAGS,
    SIGNAL_GROUP_EXIT_CODE, MM_USERS, MM_TREE, MM_RSS, MM_START_BRK, MM_BRK, MM_START_STACK, MM_VDSO,
    PERCPU_COUNT, PERCPU_COUNTERS, VMA_START, VMA_END, VMA_MM, VMA_FLAGS, VMA_PGOFF,
    VMA_FILE, FILE_INODE, FILE_DENTRY, INODE_INO, INODE_SB, SB_DEV, SB_MAGIC, DENTRY_NAME, DENTRY_HASH,
    MAS_TREE, MAS_INDEX, MAS_LAST, PAGE_FLAGS, PAGE_MAPPING, PAGE_INDEX, PAGE_ANON_ROOT,
    PAGE_CHAIN_NODE, PAGE_CHAIN_VMA, BPRM_FILENAME, ARRAY_PPTRS,
}

globals! {
    /// 1 when children of traced processes are traced too.
    FOLLOW: u32 = 0,
    /// 1 when every process of the machine is counted, and nothing is sent (`memtrace ledger`).
    MACHINE: u32 = 0,
    /// 1 when frames that come back are counted (`--evidence frames`).
    COUNTS_FRAMES: u32 = 0,
    /// 1 when it is measured how long freed frames keep what was in them (`--remanence`).
    STAMPS_FRAMES: u32 = 0,
    /// Entries of the map of all frames, minus one.
    FRAME_MASK: u32 = 0,
    /// Size of the kernel's `struct percpu_counter`.
    PERCPU_SIZE: u32 = 40,
    /// 1 where `rss_stat` has a third argument, the new count (before 6.2).
    RSS_HAS_COUNT: u32 = 0,
    /// 1 where a VMA gets its offset after it was stored (before 6.3).
    OFFSET_COMES_LATE: u32 = 0,
    /// Where a `css_set` has the state of the memory controller, if that has a hierarchy of its own
    /// (version 1).
    SET_STATE: u32 = NO_FIELD,
    /// Bit number of `PG_uptodate`.
    PG_UPTODATE: u32 = 0,
    /// CPUs on which a process is seeded before its counting begins.
    SEED_CPUS: u32 = 1,
    /// 1 when each page fault is told (`--events=faults`).
    TELLS_FAULTS: u32 = 0,
    /// 1 when page faults are counted by call stack (`--stacks=faults`).
    COUNTS_FAULTERS: u32 = 0,
    /// 1 when what calls give up is summed by call stack (`--stacks=reclaimed`).
    SUMS_RECLAIMERS: u32 = 0,
    /// One byte of so many that are allocated is sampled, about (`--sample-bytes`).
    SAMPLE_BYTES: u32 = 1 << 19,
}

/// `task_struct.flags`: the task frees memory for others (include/linux/sched.h, 5.10 to 6.18).
pub(crate) const PF_MEMALLOC: u32 = 0x800;
/// `task_struct.flags`: the task exits.
pub(crate) const PF_EXITING: u32 = 4;
/// `task_struct.flags`: a kernel thread that works for io_uring in the name of a process.
pub(crate) const PF_IO_WORKER: u32 = 0x10;
/// `task_struct.flags`: a kernel thread.
pub(crate) const PF_KTHREAD: u32 = 0x20_0000;
/// The first bytes of `task_struct.comm` of the OOM reaper (mm/oom_kill.c, 5.10 to 7.3).
pub(crate) const OOM_REAPER: u64 = u64::from_le_bytes(*b"oom_reap");
/// `super_block.s_magic` of tmpfs (include/uapi/linux/magic.h).
pub(crate) const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Bytes of a page are `1 << PAGE_SHIFT`.
pub(crate) const PAGE_SHIFT: u32 = 12;
/// A page-table page maps `1 << BLOCK_SHIFT` pages.
pub(crate) const BLOCK_SHIFT: u32 = 9;

/// x86-64 system call numbers (arch/x86/entry/syscalls/syscall_64.tbl).
pub(crate) mod nr {
    pub(crate) const MMAP: u64 = 9;
    pub(crate) const MPROTECT: u64 = 10;
    pub(crate) const MUNMAP: u64 = 11;
    pub(crate) const BRK: u64 = 12;
    pub(crate) const MREMAP: u64 = 25;
    pub(crate) const MADVISE: u64 = 28;
    pub(crate) const SHMAT: u64 = 30;
    pub(crate) const CLONE: u64 = 56;
    pub(crate) const VFORK: u64 = 58;
    pub(crate) const EXECVE: u64 = 59;
    pub(crate) const SHMDT: u64 = 67;
    pub(crate) const FALLOCATE: u64 = 285;
    pub(crate) const EXECVEAT: u64 = 322;
    pub(crate) const PKEY_MPROTECT: u64 = 329;
    pub(crate) const CLONE3: u64 = 435;
    pub(crate) const PROCESS_MADVISE: u64 = 440;
    pub(crate) const PROCESS_MRELEASE: u64 = 448;
}

/// Reads a field of any kernel object; zero when the read faults or the field does not exist.
#[inline(always)]
pub(crate) fn read<T: Copy + Default>(base: u64, field: &Global<u32>) -> T {
    let offset = field.load();
    if offset == NO_FIELD {
        return T::default();
    }
    read_at(base.wrapping_add(u64::from(offset)))
}

/// Reads a value at a kernel address; zero when the read faults, as at address 0.
///
/// Without a branch: each would double what the verifier has to follow.
#[inline(always)]
pub(crate) fn read_at<T: Copy + Default>(address: u64) -> T {
    let mut value = T::default();
    let place = (&raw mut value).cast();
    // SAFETY: the helper checks the address, and fills the value with what it read or with zeros
    // (`bpf_probe_read_kernel_common`, kernel/trace/bpf_trace.c, 5.5).
    unsafe { generated::bpf_probe_read_kernel(place, size_of::<T>() as u32, address as *const _) };
    value
}

/// A pointer that the verifier knows to be of a kernel type: its fields are plain loads.
#[derive(Clone, Copy)]
pub(crate) struct Typed(*const u8);

impl Typed {
    /// Wraps the argument of a BTF tracepoint, or a pointer loaded from one.
    #[inline(always)]
    pub(crate) const fn new<T>(pointer: *const T) -> Self {
        Self(pointer.cast())
    }

    /// Returns the current task.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper takes no argument and always returns a task.
        Self(unsafe { bpf_get_current_task_btf() }.cast())
    }

    /// Returns its address: an opaque key.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    /// Loads a field. The kernel makes a faulting load zero.
    #[inline(always)]
    pub(crate) fn load<T: Copy>(self, field: &Global<u32>) -> T {
        self.load_at(field.load())
    }

    /// Loads a field `extra` bytes behind a named one.
    #[inline(always)]
    pub(crate) fn load_at<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the verifier proves the type and the offset, or refuses the program.
        unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast()) }
    }

    /// Loads a pointer to another typed object.
    #[inline(always)]
    pub(crate) fn follow(self, field: &Global<u32>) -> Self {
        Self(self.load::<*const u8>(field))
    }

    /// Tells whether the pointer is null.
    #[inline(always)]
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

/// Returns the registers with which the current task entered the kernel. During a system call
/// `orig_rax` is its number; during a page fault, [`NO_SYSCALL`].
#[inline(always)]
pub(crate) fn user_regs() -> *const pt_regs {
    // SAFETY: every task has registers at the top of its stack (kernel threads, stale ones).
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs }
}

/// What stands for the number of a system call when the kernel was entered by an exception
/// (`error_entry`, arch/x86/entry/entry_64.S).
pub(crate) const NO_SYSCALL: u64 = u64::MAX;

/// Returns the number of the system call that the current thread is in; another number outside.
#[inline(always)]
pub(crate) fn syscall_nr() -> u64 {
    // SAFETY: the verifier knows the task's `pt_regs`.
    unsafe { (*user_regs()).orig_rax }
}

/// Returns the time, `CLOCK_BOOTTIME`.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper takes no argument and has no side effect.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Returns the current thread's `tgid`.
#[inline(always)]
pub(crate) fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Returns the current thread's id.
#[inline(always)]
pub(crate) fn tid() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// Returns the current CPU.
#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: the helper takes no argument and has no side effect.
    unsafe { bpf_get_smp_processor_id() as u32 }
}
