//! What is already there when tracing begins: a process, and its VMAs. Userspace starts these
//! iterators for one thread at a time.

use aya_ebpf::cty::c_void;
use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use memtrace_common::{COUNTERS, Kind, TaskSeed};
use zerocopy::IntoBytes;

use super::address_space::region;
use crate::{
    books::{self, Stored, TRACED},
    emit,
    evidence::Args,
    kernel::{self, Typed},
    percpu,
};

/// Context of `iter/task` and the first part of that of `iter/task_vma`
/// (kernel/bpf/task_iter.c): `{ bpf_iter_meta *meta; task_struct *task; vm_area_struct *vma; }`.
#[repr(C)]
struct TaskContext {
    meta: *const *mut seq_file,
    task: *const u8,
    vma: *const u8,
}

/// Learns where this CPU's per-CPU variables lie. Run it once on each CPU, before any probe is
/// attached.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn anchor_iter(_ctx: *mut c_void) -> i32 {
    percpu::anchor();
    0
}

/// Begins to follow the task's mm, reads this CPU's share of its counters, and writes a
/// [`TaskSeed`]. Run it once on each CPU.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn seed_iter(ctx: *mut c_void) -> i32 {
    seed(ctx, |task, mm| {
        if kernel::MACHINE.load() == 1
            && task.load::<u32>(&kernel::TASK_PID) != task.load::<u32>(&kernel::TASK_TGID)
        {
            return None;
        }
        let tracked = books::seed(mm);
        if kernel::MACHINE.load() == 1 {
            books::own(mm.address(), task);
        }
        let mut rss_pages = [0; COUNTERS];
        if let Some(books) = books::followed(mm.address()) {
            // SAFETY: a live map value.
            rss_pages = unsafe { (*books).ledger.base_pages };
        }
        Some((rss_pages, tracked))
    })
}

/// The same for `--evidence args`: begins to follow the task's mm, if its process is traced. Kernels
/// before 6.1 show it every task of the machine.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn seed_args_iter(ctx: *mut c_void) -> i32 {
    seed(ctx, |task, mm| {
        // SAFETY: the map's value is only looked at for its presence.
        unsafe { TRACED.get(task.load::<u32>(&kernel::TASK_TGID)) }?;
        Some(([0; COUNTERS], Args::follow(mm.address())))
    })
}

/// Has a living task and its mm followed, and writes what was found: the pages that are resident,
/// and whether there was room.
#[inline(always)]
fn seed(
    ctx: *mut c_void,
    follow: impl FnOnce(Typed, Typed) -> Option<([i64; COUNTERS], bool)>,
) -> i32 {
    let ctx: *const TaskContext = ctx.cast_const().cast();
    // SAFETY: the verifier knows the context's layout.
    let (meta, task) = unsafe { ((*ctx).meta, Typed::new((*ctx).task)) };
    if task.is_null() {
        return 0;
    }
    let mm = task.follow(&kernel::TASK_MM);
    // The last thread may be past the probe of its exit, though its mm is not gone yet.
    let living = task.follow(&kernel::TASK_SIGNAL).load::<u32>(&kernel::SIGNAL_LIVE);
    if mm.is_null() || living == 0 {
        return 0;
    }
    if let Some((rss_pages, tracked)) = follow(task, mm) {
        write(meta, &task_seed(task, mm, rss_pages, tracked));
    }
    0
}

#[inline(always)]
fn task_seed(task: Typed, mm: Typed, rss_pages: [i64; COUNTERS], tracked: bool) -> TaskSeed {
    let mut header = emit::header::<TaskSeed>(Kind::TaskSeed, mm.address());
    header.tgid = task.load(&kernel::TASK_TGID);
    header.tid = task.load(&kernel::TASK_PID);
    TaskSeed {
        header,
        start_ns: task.follow(&kernel::TASK_LEADER).load(&kernel::TASK_START),
        start_brk: mm.load(&kernel::MM_START_BRK),
        brk: mm.load(&kernel::MM_BRK),
        start_stack: mm.load(&kernel::MM_START_STACK),
        vdso: mm.load(&kernel::MM_VDSO),
        rss_pages,
        tracked: u64::from(tracked),
    }
}

/// Writes the pages that each thread counted and has not added to its mm's counters yet, by
/// [`memtrace_common::Counter`] (`SPLIT_RSS_COUNTING`, before 6.2).
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn unsynced_iter(ctx: *mut c_void) -> i32 {
    let ctx: *const TaskContext = ctx.cast_const().cast();
    // SAFETY: the verifier knows the context's layout.
    let (meta, task) = unsafe { ((*ctx).meta, Typed::new((*ctx).task)) };
    if !task.is_null() {
        let pages: [i32; COUNTERS] = kernel::read(task.address(), &kernel::TASK_RSS_CACHE);
        write(meta, &pages);
    }
    0
}

/// Writes each VMA. Its `seq` is left 0: newer kernels read VMAs while their mm is being changed, so
/// only the number of the last section before the iterator began means something.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_vma")]
fn regions_iter(ctx: *mut c_void) -> i32 {
    let ctx: *const TaskContext = ctx.cast_const().cast();
    // SAFETY: the verifier knows the context's layout.
    let (meta, vma) = unsafe { ((*ctx).meta, Typed::new((*ctx).vma)) };
    if vma.is_null() {
        return 0;
    }
    let mm = vma.load::<u64>(&kernel::VMA_MM);
    write(meta, &region(mm, &Stored::read(vma.address(), 0)));
    0
}

#[inline(always)]
fn write<T: IntoBytes + zerocopy::Immutable>(meta: *const *mut seq_file, record: &T) {
    // SAFETY: `bpf_iter_meta.seq` is its first field; the record is plain bytes.
    unsafe {
        bpf_seq_write(*meta, record.as_bytes().as_ptr().cast_mut().cast(), size_of::<T>() as u32)
    };
}
