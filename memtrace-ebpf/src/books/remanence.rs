//! How long freed frames keep what was in them (`--remanence`). Nobody reads what that is: only when a
//! frame came back, whose it was, and when it was given out again.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, LruHashMap},
};
use memtrace_common::Remanence;

use super::{add, entry, fills, followed, late::add_delay, spaces::find};
use crate::kernel;

/// When each frame came back and whose it was: a [`stamp`], 0 for a frame that was given out. By the
/// address of its `struct page`; userspace sets the size to a power of two that holds every frame.
#[map]
static FRAMES: Array<u64> = Array::with_max_entries(1, 0);

/// What became of the frames of each address space, by its tag.
#[map]
static REMANENCE: LruHashMap<u64, Remanence> = LruHashMap::with_max_entries(256, 0);

/// A zeroed [`Remanence`], too large for the stack.
#[map]
static NO_REMANENCE: Array<Remanence> = Array::with_max_entries(1, 0);

/// `1 << STRUCT_PAGE_SHIFT` bytes are a `struct page`.
const STRUCT_PAGE_SHIFT: u32 = 6;

/// The most frames of a folio that are looked at: those of a huge page.
const MOST_FRAMES: u64 = 512;

const TAG: u64 = Remanence::TAG;

/// Returns a stamp: a time, in units of 16 ns, and a tag. It goes around after three days.
#[inline(always)]
const fn stamp(now_ns: u64, tag: u64) -> u64 {
    (now_ns >> 4) << 20 | tag
}

/// Returns how long ago a stamp was set.
#[inline(always)]
const fn age_ns(stamped: u64, now_ns: u64) -> u64 {
    (stamp(now_ns, 0).wrapping_sub(stamped & !TAG) >> 20) << 4
}

/// Returns the place of a frame.
#[inline(always)]
fn place(page: u64, frame: u64) -> Option<*mut u64> {
    let number = (page >> STRUCT_PAGE_SHIFT).wrapping_add(frame);
    FRAMES.get_ptr_mut(number as u32 & kernel::FRAME_MASK.load())
}

/// Returns the tag of an address space, if it is or was followed.
#[inline(always)]
fn tag(mm: u64) -> Option<u64> {
    let books = find(mm)?;
    // SAFETY: a live map value; the number is never changed.
    Some(unsafe { (*books).number } & TAG)
}

/// The page allocator got frames back that were those of an address space.
#[inline(always)]
pub(crate) fn freed(page: u64, frames: u64, mm: u64) {
    let Some(tag) = tag(mm) else { return };
    let insert = |none: &Remanence| _ = REMANENCE.insert(tag, none, u64::from(BPF_NOEXIST));
    let get = || REMANENCE.get_ptr_mut(tag);
    let Some(remanence) = entry(&NO_REMANENCE, get, insert) else { return };
    // SAFETY: a live map value that is only written atomically.
    add(unsafe { &raw const (*remanence).freed_frames }, frames);
    let stamp = stamp(kernel::now_ns(), tag);
    for frame in 0..MOST_FRAMES {
        if frame >= frames {
            break;
        }
        if let Some(place) = place(page, frame) {
            // SAFETY: a live map value; the frame is the page allocator's, which has one owner.
            unsafe { *place = stamp };
        }
    }
}

/// The page allocator gave frames out, to the current thread or for it.
#[inline(always)]
pub(crate) fn given_out(page: u64, order: u64, gfp: u64, mm: u64) {
    let frames = 1 << (order & 31);
    let now_ns = kernel::now_ns();
    // SAFETY: a live map value; the number is never changed.
    let own = followed(mm).map_or(u64::MAX, |books| unsafe { (*books).number } & TAG);
    for frame in 0..MOST_FRAMES {
        if frame >= frames {
            break;
        }
        let Some(place) = place(page, frame) else { return };
        // SAFETY: a live map value; the frame has one owner.
        let stamp = unsafe { *place };
        if stamp == 0 {
            continue;
        }
        // SAFETY: as above.
        unsafe { *place = 0 };
        book(stamp, own, age_ns(stamp, now_ns), fills::is_zeroed(gfp));
    }
}

#[inline(always)]
fn book(stamp: u64, own: u64, age_ns: u64, zeroed: bool) {
    let tag = stamp & TAG;
    let Some(remanence) = REMANENCE.get_ptr_mut(tag) else { return };
    // SAFETY: a live map value; a lost race costs the longest time of two.
    let remanence = unsafe { &mut *remanence };
    let delays = if tag == own {
        &mut remanence.to_itself
    } else {
        if zeroed {
            add(&remanence.zeroed_frames, 1);
        }
        &mut remanence.to_others
    };
    add_delay(delays, age_ns, 1);
}
