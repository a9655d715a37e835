//! What a thread is doing that detaches pages, as its registers tell.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::LruHashMap};
use memtrace_common::Path;

use super::{family, frames, late, machine, vain};
use crate::kernel::{self, PAGE_SHIFT, Typed};

/// What each thread of a followed process is doing, by tid.
#[map]
static TASKS: LruHashMap<u32, Task> = LruHashMap::with_max_entries(16_384, 0);

/// What a thread is doing that detaches pages.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Task {
    /// Number of the last write section that this thread entered.
    pub(crate) seq: u64,
    /// The address space of another process that the current `process_madvise` is about, or 0.
    pub(crate) advised: u64,
    /// The address space that loses pages.
    pub(crate) mm: u64,
    /// System call number, or [`TEARDOWN`].
    pub(super) nr: u64,
    /// Range of linear page indices that belongs to the operation.
    pub(super) low: u64,
    pub(super) high: u64,
    /// Resident pages detached so far, and those of them that were anonymous.
    pub(crate) zapped: u64,
    pub(super) zapped_anon: u64,
    /// Frames freed so far, and those of them that were anonymous.
    pub(crate) freed: u64,
    pub(super) freed_anon: u64,
    /// Frames freed that the books do not have yet, and those of them that were anonymous.
    pub(super) unbooked: u64,
    pub(super) unbooked_anon: u64,
    /// The frames freed last while tearing down: first index, index after the last, and how many.
    pub(super) run_first: u64,
    pub(super) run_end: u64,
    pub(super) run_frames: u64,
    /// `folio->mapping` of the anonymous frame freed last.
    pub(super) mapping: u64,
    /// When its first pages were counted out; 0 before, and where nobody asks.
    pub(super) began_ns: u64,
    /// When the operation ended with something outstanding.
    pub(super) ended_ns: u64,
    /// A [`Path`], raw.
    pub(crate) path: u16,
    /// 0 when idle, [`Task::ACTIVE`] or [`Task::ENDED`].
    pub(super) state: u16,
    reserved: u32,
}

/// [`Task::nr`] of exec and exit.
pub(super) const TEARDOWN: u64 = u64::MAX;

/// [`Task::nr`] of a kernel thread that works for a process, and of which nobody sees the end.
pub(super) const KERNEL_THREAD: u64 = u64::MAX - 1;

impl Task {
    pub(super) const ACTIVE: u16 = 1;
    /// Returned to userspace, but task work may still free what the call detached.
    pub(super) const ENDED: u16 = 2;
}

/// What the current system call does to pages, as its registers tell.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(super) nr: u64,
    pub(super) path: Path,
    pub(super) low: u64,
    pub(super) high: u64,
}

impl Operation {
    /// Tears down a whole address space.
    pub(super) const fn teardown(path: Path) -> Self {
        Self { nr: TEARDOWN, path, low: 0, high: u64::MAX }
    }

    /// A kernel thread's: nobody sees it return.
    const fn in_kernel_thread(path: Path) -> Self {
        Self { nr: KERNEL_THREAD, path, low: 0, high: u64::MAX }
    }

    /// Returns the operation of the system call that the current thread is in, if it is one that
    /// detaches pages by itself.
    #[inline(always)]
    pub(super) fn current() -> Option<Self> {
        let task = Typed::current();
        let flags: u32 = task.load(&kernel::TASK_FLAGS);
        if flags & kernel::PF_IO_WORKER != 0 {
            return Some(Self::in_kernel_thread(Path::Other));
        }
        if flags & kernel::PF_KTHREAD != 0 {
            // It does what the exit of its victim would.
            let reaps = task.load::<u64>(&kernel::TASK_COMM) == kernel::OOM_REAPER;
            return reaps.then_some(Self::in_kernel_thread(Path::Exit));
        }
        let regs = kernel::user_regs();
        // SAFETY: the verifier knows `regs` as the task's `pt_regs`.
        let (nr, first, second, third) =
            unsafe { ((*regs).orig_rax, (*regs).rdi, (*regs).rsi, (*regs).rdx) };
        let whole = |path| Some(Self { nr, path, low: 0, high: u64::MAX });
        let range = |path| {
            let low = first >> PAGE_SHIFT;
            Some(Self { nr, path, low, high: low + (second >> PAGE_SHIFT) + 1 })
        };
        match nr {
            kernel::nr::MUNMAP => range(Path::Munmap),
            // The old end is not among the arguments: everything above the new one.
            kernel::nr::BRK => {
                Some(Self { nr, path: Path::Brk, low: first >> PAGE_SHIFT, high: u64::MAX })
            }
            kernel::nr::MADVISE => match advice_path(third) {
                Path::Remove => whole(Path::Remove),
                path => range(path),
            },
            kernel::nr::MMAP => range(Path::Overmap),
            kernel::nr::MREMAP if third < second => {
                let low = (first + third) >> PAGE_SHIFT;
                let high = (first + second) >> PAGE_SHIFT;
                Some(Self { nr, path: Path::Mremap, low, high })
            }
            kernel::nr::MREMAP => whole(Path::Mremap),
            kernel::nr::SHMDT => whole(Path::Munmap),
            kernel::nr::FALLOCATE => whole(Path::Remove),
            // SAFETY: as above.
            kernel::nr::PROCESS_MADVISE => whole(advice_path(unsafe { (*regs).r10 })),
            kernel::nr::PROCESS_MRELEASE => whole(Path::Exit),
            _ => None,
        }
    }
}

#[inline(always)]
fn advice_path(advice: u64) -> Path {
    Path::of_advice(advice).unwrap_or(Path::Other)
}

/// Tells whether the current thread is inside `execve`.
#[inline(always)]
pub(crate) fn in_exec() -> bool {
    let nr = kernel::syscall_nr();
    nr == kernel::nr::EXECVE || nr == kernel::nr::EXECVEAT
}

/// Tells whether the current thread is inside `process_madvise`.
#[inline(always)]
pub(crate) fn in_process_madvise() -> bool {
    kernel::syscall_nr() == kernel::nr::PROCESS_MADVISE
}

/// Tells whether the current thread is inside `fork`, `vfork`, `clone` or `clone3`.
#[inline(always)]
pub(crate) fn in_fork() -> bool {
    let nr = kernel::syscall_nr();
    (kernel::nr::CLONE..=kernel::nr::VFORK).contains(&nr) || nr == kernel::nr::CLONE3
}

/// Returns the current thread's entry, made if missing.
#[inline(always)]
pub(crate) fn task() -> Option<&'static mut Task> {
    let tid = kernel::tid();
    if TASKS.get_ptr(tid).is_none() {
        let _ = TASKS.insert(tid, Task::default(), u64::from(BPF_NOEXIST));
    }
    known_task()
}

/// Returns the current thread's entry, if it has one.
#[inline(always)]
pub(crate) fn known_task() -> Option<&'static mut Task> {
    let task = TASKS.get_ptr_mut(kernel::tid())?;
    // SAFETY: a live map value that only this thread writes to.
    Some(unsafe { &mut *task })
}

/// Returns the current thread's entry with `operation` under way on `mm`.
#[inline(always)]
pub(super) fn begin(mm: u64, operation: Operation) -> Option<&'static mut Task> {
    let task = task()?;
    let Operation { nr, path, low, high } = operation;
    if task.state != Task::ACTIVE || task.nr != nr || task.mm != mm {
        let Task { seq, advised, .. } = *task;
        frames::book_task(task);
        *task = Task { seq, advised, mm, nr, low, high, ..Task::default() };
        task.path = path as u16;
        task.state = Task::ACTIVE;
        vain::forget();
    }
    Some(task)
}

/// Ends the current thread's operation as system call `nr` returns; [`None`] when there is none.
#[inline(always)]
pub(crate) fn end(task: &mut Task, nr: u64) -> Option<&Task> {
    if task.state != Task::ACTIVE || task.nr != nr {
        return None;
    }
    task.state = Task::ENDED;
    frames::book_task(task);
    machine::count(task);
    note_outstanding(task);
    Some(task)
}

impl Task {
    /// Returns how long the operation took that ended at a time, nanoseconds; 0 when it detached nothing.
    #[inline(always)]
    pub(crate) fn duration_ns(&self, end_ns: u64) -> u32 {
        if self.began_ns == 0 || end_ns <= self.began_ns {
            return 0;
        }
        let duration = end_ns - self.began_ns;
        if duration > u64::from(u32::MAX) { u32::MAX } else { duration as u32 }
    }
}

/// Notes what an operation that ends detached and did not free. Where frames are not counted that
/// would be everything.
#[inline(always)]
fn note_outstanding(task: &mut Task) {
    if kernel::COUNTS_FRAMES.load() == 1 && task.zapped > task.freed {
        task.ended_ns = kernel::now_ns();
        if task.zapped_anon > task.freed_anon {
            family::book_shared(task);
            late::remember(task);
        }
    }
}

/// Ends the teardown of `mm`, if it is the current thread's.
#[inline(always)]
pub(crate) fn end_teardown(mm: u64) {
    if let Some(task) = known_task()
        && task.nr == TEARDOWN
        && task.mm == mm
        && task.state == Task::ACTIVE
    {
        frames::flush_run(task);
        frames::book_task(task);
        machine::count(task);
        note_outstanding(task);
        task.state = Task::ENDED;
    }
}
