//! Frames that nobody waits for. Whatever a machine frees comes by here: each CPU remembers for which
//! frames it looked in vain last, since the next are most often of the same memory.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray},
};

use super::frames::Freed;
use crate::{
    atomic,
    kernel::{self, BLOCK_SHIFT, Typed},
};

/// For which frames this CPU looked in vain last: a [`key`].
#[map]
static VAIN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Counts what may make a search come out otherwise.
#[map]
static NEWS: Array<u64> = Array::with_max_entries(1, 0);

/// An odd number whose bits look random: 2^64 by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns what stands for an anonymous folio's memory, as the current thread frees it now.
#[inline(always)]
pub(super) fn key(freed: &Freed) -> u64 {
    // SAFETY: a live map value that is only written atomically.
    let news = NEWS.get_ptr(0).map_or(0, |count| unsafe { count.read_volatile() });
    let reclaims = Typed::current().load::<u32>(&kernel::TASK_FLAGS) & kernel::PF_MEMALLOC;
    let thread = u64::from(kernel::tid()) << 32 | u64::from(reclaims);
    let mix = |sum: u64, more: u64| (sum ^ more).wrapping_mul(SPREAD);
    mix(mix(mix(thread, freed.mapping), freed.index >> BLOCK_SHIFT), news)
}

/// Tells whether nobody waited for such frames when they were looked for last.
#[inline(always)]
pub(super) fn is_known(key: u64) -> bool {
    // SAFETY: this CPU's live map value.
    VAIN.get_ptr(0).is_some_and(|known| unsafe { *known } == key)
}

/// Notes that nobody waits for such frames.
#[inline(always)]
pub(super) fn note(key: u64) {
    if let Some(known) = VAIN.get_ptr_mut(0) {
        // SAFETY: this CPU's live map value.
        unsafe { *known = key };
    }
}

/// Somebody may wait for frames that nobody waited for before.
#[inline(always)]
pub(super) fn forget() {
    if let Some(news) = NEWS.get_ptr_mut(0) {
        // SAFETY: a live map value that is only written atomically.
        unsafe { atomic::bump(news, 1) };
    }
}
