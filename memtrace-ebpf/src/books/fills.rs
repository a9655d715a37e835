//! How frames got their contents when faults allocated them: zeroed, or copied.
//!
//! The kernel asks for a zeroed frame only for a page of anonymous memory. Whatever else it
//! allocates for a fault it zeroes, copies or reads itself (`folio_zero_user`,
//! `copy_mc_user_highpage`, mm/memory.c, 6.18): which of them is known when the page is counted as
//! mapped. A copy of anonymous memory takes the place of what it copies, and is not counted again.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use memtrace_common::{Counter, Fill, Ledger};

use super::{Mm, add};
use crate::kernel;

/// The frame that this CPU allocated last for a followed address space.
#[map]
static ALLOCATED: PerCpuArray<Allocated> = PerCpuArray::with_max_entries(1, 0);

/// A frame that was allocated and may not be mapped yet.
#[derive(Clone, Copy)]
#[repr(C)]
struct Allocated {
    /// The thread that wanted it, 0 for none.
    tid: u32,
    /// 1 when it was taken for a copy.
    copied: u32,
    frames: u64,
}

/// Bits of `gfp_t` (include/linux/gfp_types.h, 5.10 to 7.3).
const GFP_MOVABLE: u64 = 0x08;
const GFP_ZERO: u64 = 0x100;
/// What a copy does not ask for: of a write to a file, and of reading ahead.
const GFP_OF_FILES: u64 = 0x1000 | 0x10000;

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

/// Notes what is not told where a thread counts a while for itself before the kernel says what was
/// mapped (before 6.2).
#[inline(always)]
pub(super) const fn note_untold(ledger: &mut Ledger) {
    ledger.filled_frames[Fill::ZeroedShmem as usize] = Ledger::NOT_TOLD;
    ledger.filled_frames[Fill::Copied as usize] = Ledger::NOT_TOLD;
}

/// Notes a frame that the current thread allocated for its own address space.
#[inline(always)]
pub(crate) fn allocated(books: &Mm, order: u64, gfp: u64) {
    let frames = 1 << (order & 31);
    let Some(last) = ALLOCATED.get_ptr_mut(0) else { return };
    let (mut tid, mut copied) = (0, 0);
    if is_zeroed(gfp) {
        count(books, Fill::Zeroed, frames);
    } else if kernel::RSS_HAS_COUNT.load() == 1 {
        if order >= HUGE_ORDER {
            count(books, Fill::ZeroedHuge, frames);
        }
    } else {
        tid = kernel::tid();
        if order == 0 && gfp & GFP_OF_FILES == 0 && kernel::syscall_nr() == kernel::NO_SYSCALL {
            count(books, Fill::Copied, 1);
            copied = 1;
        }
    }
    // SAFETY: this CPU's live map value.
    unsafe { *last = Allocated { tid, copied, frames } };
}

/// The current thread mapped pages of a kind: the frame that it allocated last is among them.
#[inline(always)]
pub(super) fn mapped(books: &Mm, member: u32) {
    let Some(last) = last() else { return };
    if member == Counter::Anon as u32 {
        if last.frames > 1 {
            count(books, Fill::ZeroedHuge, last.frames);
            last.tid = 0;
        } else if last.copied == 0 {
            count(books, Fill::Copied, 1);
            last.copied = 1;
        }
        return;
    }
    undo_copy(books, last);
    if member == Counter::Shmem as u32 {
        count(books, Fill::ZeroedShmem, last.frames);
    }
}

/// What the current thread mapped last came from swap: it was no copy.
#[inline(always)]
pub(super) fn came_from_swap(books: &Mm) {
    if let Some(last) = last() {
        undo_copy(books, last);
    }
}

#[inline(always)]
fn undo_copy(books: &Mm, last: &mut Allocated) {
    if last.copied == 1 {
        count(books, Fill::Copied, u64::MAX);
    }
    last.tid = 0;
}

/// Returns the frame that this CPU allocated last, if it was for the current thread.
#[inline(always)]
fn last() -> Option<&'static mut Allocated> {
    let last = ALLOCATED.get_ptr_mut(0)?;
    // SAFETY: this CPU's live map value.
    let last = unsafe { &mut *last };
    (last.tid == kernel::tid()).then_some(last)
}

#[inline(always)]
fn count(books: &Mm, fill: Fill, frames: u64) {
    if let Some(total) = books.ledger.filled_frames.get(fill as usize) {
        add(total, frames);
    }
}
