//! How frames got their contents when faults allocated them: zeroed, or copied.
//!
//! The kernel asks for a zeroed frame only for a page of anonymous memory. Whatever else it
//! allocates for a fault it zeroes, copies or reads itself (`folio_zero_user`,
//! `copy_mc_user_highpage`, mm/memory.c, 6.18): which of them is known when a page is counted as
//! mapped.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use memtrace_common::{Counter, Fill, Ledger};

use super::{Mm, add};
use crate::kernel::{self, Typed};

/// The thread that got a zeroed frame last on this CPU and has not mapped it, as far as is known; 0
/// for none. Most frames are such, and need no look into the next map.
#[map]
static ZEROED_FOR: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// What each thread allocated and may not have mapped yet, by tid: it may sleep in between.
#[map]
static ALLOCATED: LruHashMap<u32, Allocated> = LruHashMap::with_max_entries(4_096, 0);

/// Frames that a fault allocated, and what was counted of them.
#[derive(Clone, Copy)]
#[repr(C)]
struct Allocated {
    /// Tells the thread's faults apart: how many it had before.
    fault: u64,
    /// The system call in which it faulted.
    nr: u64,
    /// Frames that it allocated last.
    frames: u64,
    /// A [`Fill`], and how many frames were counted in it.
    fill: u64,
    counted: u64,
}

/// Bits of `gfp_t` (include/linux/gfp_types.h, 5.10 to 7.3).
const GFP_MOVABLE: u64 = 0x08;
const GFP_ZERO: u64 = 0x100;
/// What single pages of files ask for when they are written or read ahead, and nobody else.
const GFP_OF_FILES: u64 = 0x1000 | 0x10000;
/// What is asked for with several pages, unless they are of files (`GFP_TRANSHUGE_LIGHT`).
const GFP_NO_RESERVES: u64 = 0x80000;

/// Pages of a huge page are `1 << HUGE_ORDER`.
const HUGE_ORDER: u64 = 9;

/// Tells whether a request is for data of processes and files: page tables and the kernel's own
/// objects are not movable.
#[inline(always)]
pub(crate) const fn is_data(gfp: u64) -> bool {
    gfp & GFP_MOVABLE != 0
}

/// Tells whether a request is for frames full of zeros.
#[inline(always)]
pub(super) const fn is_zeroed(gfp: u64) -> bool {
    gfp & GFP_ZERO != 0
}

/// Tells whether a request is known to be for the page cache.
#[inline(always)]
const fn is_of_files(order: u64, gfp: u64) -> bool {
    if order == 0 { gfp & GFP_OF_FILES != 0 } else { gfp & GFP_NO_RESERVES == 0 }
}

/// Notes what is not told where a thread counts a while for itself before the kernel says what was
/// mapped (before 6.2).
#[inline(always)]
pub(super) const fn note_untold(ledger: &mut Ledger) {
    ledger.filled_frames[Fill::ZeroedShmem as usize] = Ledger::NOT_TOLD;
    ledger.filled_frames[Fill::Copied as usize] = Ledger::NOT_TOLD;
}

/// Tells whether it is told what is mapped: where allocations are seen, and each page is counted when
/// it is mapped.
#[inline(always)]
fn tells_mapped() -> bool {
    kernel::COUNTS_FRAMES.load() == 1
        && kernel::MACHINE.load() == 0
        && kernel::RSS_HAS_COUNT.load() == 0
}

/// Notes frames that the current thread allocated for its own address space.
#[inline(always)]
pub(crate) fn allocated(books: &Mm, order: u64, gfp: u64) {
    let frames = 1 << (order & 31);
    if is_zeroed(gfp) {
        count(books, Fill::Zeroed, frames);
        set_zeroed_for(kernel::tid());
        return;
    }
    if is_of_files(order, gfp) {
        return;
    }
    if kernel::RSS_HAS_COUNT.load() == 1 {
        if order >= HUGE_ORDER {
            count(books, Fill::ZeroedHuge, frames);
        }
        return;
    }
    let tid = kernel::tid();
    let (fault, nr) = fault();
    let mut now = Allocated { fault, nr, frames, fill: Fill::Copied as u64, counted: 0 };
    // A copy of anonymous memory takes the place of what it copies: nothing more is told of it.
    if order == 0 && nr == kernel::NO_SYSCALL {
        count(books, Fill::Copied, 1);
        now.counted = 1;
    }
    set_zeroed_for(0);
    let Some(known) = ALLOCATED.get_ptr_mut(tid) else {
        let _ = ALLOCATED.insert(tid, now, 0);
        return;
    };
    // SAFETY: a live map value that only this thread writes to.
    let known = unsafe { &mut *known };
    if known.fault == fault && known.nr == nr && known.fill == now.fill {
        now.counted += known.counted;
    }
    *known = now;
}

/// The current thread mapped pages of a kind: what it allocated last is among them, if it allocated
/// anything for them.
#[inline(always)]
pub(super) fn mapped(books: &Mm, member: u32) {
    if !tells_mapped() || member == Counter::Swap as u32 {
        return;
    }
    if member == Counter::Anon as u32 && zeroed_for() == kernel::tid() {
        set_zeroed_for(0);
        return;
    }
    let Some(last) = last() else { return };
    if member == Counter::Anon as u32 {
        let fill = if last.frames > 1 { Fill::ZeroedHuge } else { Fill::Copied };
        // Of what else it allocated nothing is mapped here: a file that it copies from.
        recount(books, last, fill, last.frames);
        return;
    }
    recount(books, last, Fill::Copied, 0);
    if member == Counter::Shmem as u32 {
        count(books, Fill::ZeroedShmem, last.frames);
    }
    last.fault = u64::MAX;
}

/// What the current thread mapped last came from swap, and so did all else that it allocated for it.
#[inline(always)]
pub(super) fn came_from_swap(books: &Mm) {
    if tells_mapped()
        && let Some(last) = last()
    {
        recount(books, last, Fill::Copied, 0);
        last.fault = u64::MAX;
    }
}

/// Counts frames in the place of those that were counted for this fault.
#[inline(always)]
fn recount(books: &Mm, last: &mut Allocated, fill: Fill, frames: u64) {
    count_raw(books, last.fill, last.counted.wrapping_neg());
    (last.fill, last.counted) = (fill as u64, frames);
    count(books, fill, frames);
}

/// Returns what the current thread allocated in the fault that it is in.
#[inline(always)]
fn last() -> Option<&'static mut Allocated> {
    let last = ALLOCATED.get_ptr_mut(kernel::tid())?;
    // SAFETY: a live map value that only this thread writes to.
    let last = unsafe { &mut *last };
    let (fault, nr) = fault();
    (last.fault == fault && last.nr == nr).then_some(last)
}

/// Returns what tells the current thread's faults apart. A fault is counted when it is over
/// (`mm_account_fault`, mm/memory.c, 6.2 to 7.3).
#[inline(always)]
fn fault() -> (u64, u64) {
    let task = Typed::current();
    let minor = task.load::<u64>(&kernel::TASK_MIN_FLT);
    (minor.wrapping_add(task.load::<u64>(&kernel::TASK_MAJ_FLT)), kernel::syscall_nr())
}

#[inline(always)]
fn zeroed_for() -> u32 {
    // SAFETY: this CPU's live map value.
    ZEROED_FOR.get_ptr(0).map_or(0, |tid| unsafe { *tid })
}

#[inline(always)]
fn set_zeroed_for(tid: u32) {
    if let Some(place) = ZEROED_FOR.get_ptr_mut(0) {
        // SAFETY: this CPU's live map value.
        unsafe { *place = tid };
    }
}

#[inline(always)]
fn count(books: &Mm, fill: Fill, frames: u64) {
    count_raw(books, fill as u64, frames);
}

/// The same for a [`Fill`] as it stands in a map.
#[inline(always)]
fn count_raw(books: &Mm, fill: u64, frames: u64) {
    if let Some(total) = books.ledger.filled_frames.get(fill as usize) {
        add(total, frames);
    }
}
