//! Frames that the page allocator gets back: inside an operation, late out of a per-CPU batch, or
//! while an address space is torn down.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, LruHashMap},
};
use memtrace_common::{Delays, Path};

use super::{
    add, followed, in_exec, known_task, ledger,
    operation::{KERNEL_THREAD, Operation, TEARDOWN, Task, begin},
    path_counters,
};
use crate::{
    emit,
    kernel::{self, BLOCK_SHIFT, Typed},
};

/// Detached frames that per-CPU batches still hold, by block of linear page indices.
#[map]
static PENDING: LruHashMap<u64, Pending> = LruHashMap::with_max_entries(16_384, 0);

/// How long late frames took, by address space.
#[map]
static DELAYS: LruHashMap<u64, Delays> = LruHashMap::with_max_entries(1_024, 0);

/// A zeroed [`Delays`], too large for the stack.
#[map]
static NO_DELAYS: Array<Delays> = Array::with_max_entries(1, 0);

/// Frames that an operation detached and per-CPU batches still hold.
#[derive(Clone, Copy)]
#[repr(C)]
struct Pending {
    /// When the last operation on the block ended.
    time_ns: u64,
    mm: u64,
    low: u64,
    high: u64,
    outstanding: i64,
    path: u64,
}

/// Blocks of one operation whose late frames are recognized.
const PENDING_BLOCKS: u64 = 64;

/// Notes the range in which detached anonymous frames wait in a per-CPU batch.
#[inline(always)]
pub(super) fn remember_pending(task: &Task) {
    let pending = Pending {
        time_ns: task.ended_ns,
        mm: task.mm,
        low: task.low,
        high: task.high,
        outstanding: (task.zapped_anon - task.freed_anon) as i64,
        path: u64::from(task.path),
    };
    let first = task.low >> BLOCK_SHIFT;
    for block in 0..PENDING_BLOCKS {
        let block = first + block;
        if block << BLOCK_SHIFT >= task.high {
            break;
        }
        if let Some(known) = PENDING.get_ptr_mut(block) {
            // SAFETY: a live map value; a lost race costs the lateness of a few frames.
            let known = unsafe { &mut *known };
            if known.mm == pending.mm && known.path == pending.path && known.outstanding > 0 {
                known.time_ns = pending.time_ns;
                known.low = known.low.min(pending.low);
                known.high = known.high.max(pending.high);
                known.outstanding += pending.outstanding;
                continue;
            }
        }
        let _ = PENDING.insert(block, pending, 0);
    }
}

/// A folio that the page allocator got back.
pub(crate) struct Freed {
    /// `folio->mapping`, with the bits that say what it is.
    pub(crate) mapping: u64,
    /// Linear page index.
    pub(crate) index: u64,
    pub(crate) frames: u64,
}

impl Freed {
    /// Tells anonymous folios by their mapping (`FOLIO_MAPPING_ANON`, include/linux/page-flags.h).
    #[inline(always)]
    pub(crate) const fn is_anon(mapping: u64) -> bool {
        mapping & 3 == 1
    }

    /// Returns the address space that has a VMA in the folio's `anon_vma`; one of them, when a fork
    /// shares it. It must not be about to unmap that VMA.
    #[inline(always)]
    fn owner(&self) -> u64 {
        let node: u64 = kernel::read(self.mapping & !3, &kernel::PAGE_ANON_ROOT);
        let chain = node.wrapping_sub(u64::from(kernel::PAGE_CHAIN_NODE.load()));
        let vma: u64 = kernel::read(chain, &kernel::PAGE_CHAIN_VMA);
        kernel::read(vma, &kernel::VMA_MM)
    }
}

/// Books a folio that the page allocator got back. Returns the address space whose it was, 0 when
/// that is nobody's that is followed.
#[inline(always)]
pub(crate) fn book_freed(freed: &Freed) -> u64 {
    let &Freed { mapping, index, frames } = freed;
    let anon = Freed::is_anon(mapping);
    let known = known_task();
    let is_idle = known.as_ref().is_none_or(|task| task.state != Task::ACTIVE);
    let remover = if is_idle && !anon { begin_removal() } else { None };
    let Some(task) = remover.or(known) else {
        return if anon { book_elsewhere(freed) } else { 0 };
    };
    match task.state {
        Task::ACTIVE => {
            let in_range = task.low <= index && index < task.high;
            if anon && !in_range {
                let owner = book_late(freed, frames);
                if owner != 0 {
                    return owner;
                }
            }
            let removes = task.path == Path::Remove as u16;
            let room = if removes { frames } else { task.zapped.saturating_sub(task.freed) };
            let own = frames.min(room);
            if anon && own < frames {
                // Of a huge page only a part was mapped: the rest was given up before.
                book_late(freed, frames - own);
            }
            if own == 0 {
                return 0;
            }
            book_own(task, index, own, anon);
            task.mm
        }
        // The last reference to shared memory goes in task work, after the call.
        Task::ENDED if !anon => {
            let nr = kernel::syscall_nr();
            if (task.nr == nr || task.nr == TEARDOWN) && task.freed + frames <= task.zapped {
                task.freed += frames;
                add_late(task.mm, u64::from(task.path), frames, task.ended_ns);
                return task.mm;
            }
            0
        }
        _ if anon => book_elsewhere(freed),
        _ => 0,
    }
}

/// Books frames that the current thread's operation freed.
#[inline(always)]
fn book_own(task: &mut Task, index: u64, frames: u64, anon: bool) {
    task.freed += frames;
    task.unbooked += frames;
    if anon {
        task.freed_anon += frames;
        task.unbooked_anon += frames;
        if task.nr == TEARDOWN && kernel::MACHINE.load() == 0 {
            note_run(task, index, frames);
        }
    }
    if task.unbooked >= MOST_UNBOOKED || task.nr == KERNEL_THREAD {
        book_task(task);
    }
}

/// Begins the current thread's operation if it is one that takes pages out of a file: they may be
/// mapped nowhere, and nobody notices that they are detached.
#[inline(always)]
fn begin_removal() -> Option<&'static mut Task> {
    let nr = kernel::syscall_nr();
    if nr != kernel::nr::FALLOCATE && nr != kernel::nr::MADVISE {
        return None;
    }
    let operation =
        Operation::current().filter(|operation| matches!(operation.path, Path::Remove))?;
    let mm = Typed::current().load::<u64>(&kernel::TASK_MM);
    followed(mm)?;
    begin(mm, operation)
}

/// Books an anonymous folio that came back outside of the operation that detached it: reclaim took
/// it, or a per-CPU batch let it go. Returns whose it was.
#[inline(always)]
fn book_elsewhere(freed: &Freed) -> u64 {
    if Typed::current().load::<u32>(&kernel::TASK_FLAGS) & kernel::PF_MEMALLOC != 0 {
        let (owner, path) = (freed.owner(), Path::Pressure as u64);
        // Half of a huge page that was split only now.
        if freed.frames == 1 && is_pending(freed, owner) && book_late(freed, 1) != 0 {
            return owner;
        }
        let Some(counters) = path_counters(owner, path) else { return 0 };
        add(&counters.freed_frames, freed.frames);
        add_anon(owner, path, freed.frames);
        return owner;
    }
    if detaches_itself() { 0 } else { book_late(freed, freed.frames) }
}

/// A task adds what it frees to the books when it is so much, and at the end of its operation.
const MOST_UNBOOKED: u64 = 512;

/// Adds to the books what the task's operation freed.
#[inline(always)]
pub(super) fn book_task(task: &mut Task) {
    if task.unbooked > 0
        && let Some(counters) = path_counters(task.mm, u64::from(task.path))
    {
        add(&counters.freed_frames, task.unbooked);
        add_anon(task.mm, u64::from(task.path), task.unbooked_anon);
    }
    (task.unbooked, task.unbooked_anon) = (0, 0);
}

/// Tells whether the current task is giving up pages of its own. What it frees then is not late,
/// even if it shared it with one that gave it up before.
#[inline(always)]
fn detaches_itself() -> bool {
    let exits = Typed::current().load::<u32>(&kernel::TASK_FLAGS) & kernel::PF_EXITING != 0;
    exits || in_exec() || Operation::current().is_some()
}

/// Books frames of a folio that came back after the operation that detached them, out of a per-CPU
/// batch or with the other half of a huge page. Returns whose it was, 0 when no operation waits for
/// them.
#[inline(always)]
fn book_late(freed: &Freed, frames: u64) -> u64 {
    let Some(pending) = pending(freed) else { return 0 };
    if pending.outstanding < frames as i64 {
        return 0;
    }
    pending.outstanding -= frames as i64;
    add_late(pending.mm, pending.path, frames, pending.time_ns);
    add_anon(pending.mm, pending.path, frames);
    pending.mm
}

/// Tells whether an operation on an address space waits for a folio.
#[inline(always)]
fn is_pending(freed: &Freed, mm: u64) -> bool {
    pending(freed).is_some_and(|pending| pending.mm == mm)
}

/// Returns the operation that waits for frames where a folio was.
#[inline(always)]
fn pending(freed: &Freed) -> Option<&'static mut Pending> {
    let pending = PENDING.get_ptr_mut(freed.index >> BLOCK_SHIFT)?;
    // SAFETY: a live map value; a lost race costs the lateness of a few frames.
    let pending = unsafe { &mut *pending };
    let overlaps = pending.low < freed.index + freed.frames && freed.index < pending.high;
    overlaps.then_some(pending)
}

#[inline(always)]
fn add_late(mm: u64, path: u64, frames: u64, since_ns: u64) {
    let Some(counters) = path_counters(mm, path) else { return };
    add(&counters.late_frames, frames);
    let delay_ns = kernel::now_ns().saturating_sub(since_ns);
    if DELAYS.get_ptr(mm).is_none()
        && let Some(none) = NO_DELAYS.get_ptr(0)
    {
        // SAFETY: a zeroed value that nobody writes to.
        let none = unsafe { &*none };
        let _ = DELAYS.insert(mm, none, u64::from(BPF_NOEXIST));
    }
    let Some(delays) = DELAYS.get_ptr_mut(mm) else { return };
    // SAFETY: a live map value; a lost race costs the longest delay of two.
    let delays = unsafe { &mut *delays };
    // The compiler knows that it is below 64 and would leave the check out, which the verifier needs.
    let bucket = core::hint::black_box(Delays::bucket(delay_ns));
    if let Some(total) = delays.frames.get(bucket) {
        add(total, frames);
    }
    delays.max_ns = delays.max_ns.max(delay_ns);
}

/// Adds to the anonymous frames among those freed by a path.
#[inline(always)]
fn add_anon(mm: u64, path: u64, frames: u64) {
    if let Some(ledger) = ledger(mm)
        && let Some(total) = ledger.freed_anon_frames.get(path as usize)
    {
        add(total, frames);
    }
}

/// Forgets the delays of an address space whose place another takes.
#[inline(always)]
pub(super) fn forget_delays(mm: u64) {
    let _ = DELAYS.remove(mm);
}

/// Holes of fewer pages do not end a run of frames.
const RUN_HOLE: u64 = 16;

/// Collects neighbouring frames while an address space is torn down.
#[inline(always)]
fn note_run(task: &mut Task, index: u64, frames: u64) {
    if index < task.run_end || index - task.run_end > RUN_HOLE {
        flush_run(task);
        task.run_first = index;
    }
    task.run_end = index + frames;
    task.run_frames += frames;
}

#[inline(always)]
pub(super) fn flush_run(task: &mut Task) {
    if task.run_frames > 0 {
        let pages = task.run_end - task.run_first;
        emit::teardown_run(task.mm, task.run_first, pages, task.run_frames);
        task.run_frames = 0;
    }
}
