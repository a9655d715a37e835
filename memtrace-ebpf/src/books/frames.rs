//! Frames that the page allocator gets back inside an operation, by reclaim, or while an address space
//! is torn down. Those that come back later are in `late`.

use memtrace_common::Path;

use super::{
    add, followed, in_exec, known_task,
    late::{add_late, book_late, is_pending, note_owner},
    ledger,
    operation::{KERNEL_THREAD, Operation, TEARDOWN, Task, begin},
    path_counters, vain,
};
use crate::{
    emit,
    kernel::{self, Typed},
};

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
    // As it is before anything is looked for: what changes meanwhile makes it another.
    let key = if anon { vain::key(freed) } else { 0 };
    if anon && vain::is_known(key) {
        return 0;
    }
    let known = known_task();
    let is_idle = known.as_ref().is_none_or(|task| task.state != Task::ACTIVE);
    let remover = if is_idle && !anon { begin_removal() } else { None };
    let Some(task) = remover.or(known) else {
        return if anon { book_elsewhere(freed, key) } else { 0 };
    };
    match task.state {
        Task::ACTIVE => {
            let in_range = task.low <= index && index < task.high;
            if anon
                && !in_range
                && let Some(owner) = book_late(freed, frames, false)
            {
                return owner;
            }
            let removes = task.path == Path::Remove as u16;
            let room = if removes { frames } else { task.zapped.saturating_sub(task.freed) };
            let own = frames.min(room);
            if anon && own < frames {
                // Of a huge page only a part was mapped: the rest was given up before.
                book_late(freed, frames - own, false);
            }
            if own == 0 {
                return 0;
            }
            book_own(task, freed, own);
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
        _ if anon => book_elsewhere(freed, key),
        _ => 0,
    }
}

/// Books frames that the current thread's operation freed.
#[inline(always)]
fn book_own(task: &mut Task, freed: &Freed, frames: u64) {
    let &Freed { mapping, index, .. } = freed;
    task.freed += frames;
    task.unbooked += frames;
    if Freed::is_anon(mapping) {
        note_owner(task, mapping);
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
/// it, or a per-CPU batch let it go. Returns whose it was, 0 for nobody's that is followed.
#[inline(always)]
fn book_elsewhere(freed: &Freed, key: u64) -> u64 {
    if Typed::current().load::<u32>(&kernel::TASK_FLAGS) & kernel::PF_MEMALLOC != 0 {
        let (owner, path) = (freed.owner(), Path::Pressure as u64);
        // Half of a huge page that was split only now.
        if freed.frames == 1 && is_pending(freed, owner) && book_late(freed, 1, false).is_some() {
            return owner;
        }
        let Some(counters) = path_counters(owner, path) else { return 0 };
        add(&counters.freed_frames, freed.frames);
        add_anon(owner, path, freed.frames);
        return owner;
    }
    let owner = book_late(freed, freed.frames, detaches_itself());
    if owner.is_none() {
        vain::note(key);
    }
    owner.unwrap_or(0)
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

/// Tells whether the current task is giving up pages of its own. What it frees then is not late if
/// it shared it with one that gave it up before.
#[inline(always)]
fn detaches_itself() -> bool {
    let exits = Typed::current().load::<u32>(&kernel::TASK_FLAGS) & kernel::PF_EXITING != 0;
    exits || in_exec() || Operation::current().is_some()
}

/// Adds to the anonymous frames among those freed by a path.
#[inline(always)]
pub(super) fn add_anon(mm: u64, path: u64, frames: u64) {
    // As in `path_counters`.
    let path = core::hint::black_box(path);
    if let Some(ledger) = ledger(mm)
        && let Some(total) = ledger.freed_anon_frames.get(path as usize)
    {
        add(total, frames);
    }
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
