//! Frames that come back after the operation that detached them: out of a per-CPU batch, or with the
//! other half of a huge page.
//!
//! Such a frame is told by where it was and by whose it was. Where: its linear page index, in the range
//! of an operation. Whose: its `anon_vma`, which stands in the folio until it is freed, and is that of
//! other frames which the operation did free. The operation that ended last gets it.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, LruHashMap},
};
use memtrace_common::Delays;

use super::{
    add, entry, family,
    frames::{Freed, add_anon},
    note_change,
    operation::Task,
    path_counters,
    spaces::find,
    vain,
};
use crate::kernel::{self, BLOCK_SHIFT};

/// Detached frames that did not come back yet, by block of linear page indices.
#[map]
static PENDING: LruHashMap<u64, Pending> = LruHashMap::with_max_entries(16_384, 0);

/// Who freed frames of an `anon_vma` last, by its address.
#[map]
static OWNERS: LruHashMap<u64, Freer> = LruHashMap::with_max_entries(16_384, 0);

/// An address space whose operation freed frames.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Freer {
    mm: u64,
    /// When it was noted first.
    since_ns: u64,
}

/// How long late frames took, by address space.
#[map]
static DELAYS: LruHashMap<u64, Delays> = LruHashMap::with_max_entries(1_024, 0);

/// A zeroed [`Delays`], too large for the stack.
#[map]
static NO_DELAYS: Array<Delays> = Array::with_max_entries(1, 0);

/// Frames that an operation detached in a range and that did not come back yet.
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
    /// It freed other frames of the range: those that did not come back have an owner.
    owned: u64,
}

/// Frames that the last operation of an address space detached and that did not come back yet,
/// wherever they are.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Left {
    time_ns: u64,
    outstanding: i64,
    path: u64,
}

/// Blocks of one operation whose late frames are told by where they were.
const PENDING_BLOCKS: u64 = 64;

/// Frames that one CPU's batches hold at most: those on their way to the LRU lists, and those that
/// are being locked (`PAGEVEC_SIZE`, include/linux/pagevec.h, 6.18).
const MOST_IN_BATCHES: i64 = 62;

/// Notes whose frames an operation frees.
#[inline(always)]
pub(super) fn note_owner(task: &mut Task, mapping: u64) {
    if task.mapping == mapping {
        return;
    }
    task.mapping = mapping;
    if owner(mapping).mm != task.mm {
        let _ = OWNERS.insert(mapping, Freer { mm: task.mm, since_ns: kernel::now_ns() }, 0);
        vain::forget();
    }
}

/// Returns who freed frames of an `anon_vma` last; mm 0 when nobody did.
#[inline(always)]
fn owner(mapping: u64) -> Freer {
    // SAFETY: a copy of a value that is written whole.
    unsafe { OWNERS.get(mapping) }.copied().unwrap_or_default()
}

/// Notes what an operation that ends detached and did not free.
#[inline(always)]
pub(super) fn remember(task: &Task) {
    let mut outstanding = (task.zapped_anon - task.freed_anon) as i64;
    let in_batches = MOST_IN_BATCHES * i64::from(kernel::SEED_CPUS.load());
    if outstanding > in_batches && family::has_relatives(task.mm) {
        // The others have them, at least those that batches cannot hold.
        if task.mapping == 0 {
            return;
        }
        outstanding = in_batches;
    }
    let path = u64::from(task.path);
    if task.mapping != 0
        && let Some(books) = find(task.mm)
    {
        // SAFETY: a live map value; a lost race costs the lateness of a few frames.
        unsafe { (*books).left = Left { time_ns: task.ended_ns, outstanding, path } };
    }
    if task.low != 0 || task.high != u64::MAX {
        remember_range(task, outstanding, path);
    }
    vain::forget();
}

#[inline(always)]
fn remember_range(task: &Task, outstanding: i64, path: u64) {
    let pending = Pending {
        time_ns: task.ended_ns,
        mm: task.mm,
        low: task.low,
        high: task.high,
        outstanding,
        path,
        owned: u64::from(task.mapping != 0),
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
                known.owned &= pending.owned;
                continue;
            }
        }
        let _ = PENDING.insert(block, pending, 0);
    }
}

/// Books frames of a folio that came back late. Those of an address space that shares memory with
/// another are left out when they `may_be_shared`. Returns whose it was, 0 when it was left out, `None`
/// when no operation waits for them.
#[inline(always)]
pub(super) fn book_late(freed: &Freed, frames: u64, may_be_shared: bool) -> Option<u64> {
    let Freer { mm: owner, since_ns } = owner(freed.mapping);
    let wanted = frames as i64;
    let here = pending(freed).filter(|pending| {
        // What was noted before may be about another `anon_vma` at the same address.
        let is_its = owner == pending.mm || (pending.owned == 0 && since_ns < pending.time_ns);
        is_its && pending.outstanding >= wanted
    });
    let left = left(owner).filter(|left| left.outstanding >= wanted);
    let (mm, path, since_ns) = match (here, left) {
        (Some(here), left) if left.as_ref().is_none_or(|left| left.time_ns <= here.time_ns) => {
            if may_be_shared && family::has_relatives(here.mm) {
                return Some(0);
            }
            here.outstanding -= wanted;
            if let Some(left) = left
                && here.mm == owner
                && here.path == left.path
            {
                left.outstanding -= wanted;
            }
            (here.mm, here.path, here.time_ns)
        }
        (_, Some(left)) => {
            if may_be_shared && family::has_relatives(owner) {
                return Some(0);
            }
            left.outstanding -= wanted;
            (owner, left.path, left.time_ns)
        }
        _ => return None,
    };
    add_late(mm, path, frames, since_ns);
    add_anon(mm, path, frames);
    Some(mm)
}

/// Tells whether an operation on an address space waits for a folio.
#[inline(always)]
pub(super) fn is_pending(freed: &Freed, mm: u64) -> bool {
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

/// Returns what the last operation of an address space left, also of one that was torn down.
#[inline(always)]
fn left(mm: u64) -> Option<&'static mut Left> {
    let books = find(mm)?;
    // SAFETY: a live map value; a lost race costs the lateness of a few frames.
    Some(unsafe { &mut (*books).left })
}

/// Books late frames with their delay.
#[inline(always)]
pub(super) fn add_late(mm: u64, path: u64, frames: u64, since_ns: u64) {
    let Some(counters) = path_counters(mm, path) else { return };
    add(&counters.late_frames, frames);
    note_change(mm);
    let delay_ns = kernel::now_ns().saturating_sub(since_ns);
    let insert = |none: &Delays| _ = DELAYS.insert(mm, none, u64::from(BPF_NOEXIST));
    let Some(delays) = entry(&NO_DELAYS, || DELAYS.get_ptr_mut(mm), insert) else { return };
    // SAFETY: a live map value; a lost race costs the longest delay of two.
    add_delay(unsafe { &mut *delays }, delay_ns, frames);
}

/// Adds frames that took so long.
#[inline(always)]
pub(super) fn add_delay(delays: &mut Delays, delay_ns: u64, frames: u64) {
    // The compiler knows that it is below 64 and would leave the check out, which the verifier needs.
    let bucket = core::hint::black_box(Delays::bucket(delay_ns));
    if let Some(total) = delays.frames.get(bucket) {
        add(total, frames);
    }
    delays.max_ns = delays.max_ns.max(delay_ns);
}

/// Forgets the delays of an address space whose place another takes.
#[inline(always)]
pub(super) fn forget_delays(mm: u64) {
    let _ = DELAYS.remove(mm);
}
