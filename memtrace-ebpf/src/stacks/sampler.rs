//! Which allocations are sampled: those that hold a sampled byte. The distances between sampled bytes
//! are drawn at random, or a loop that allocates in turns would have the same turn sampled every time.

use aya_ebpf::{
    helpers::generated::bpf_get_prandom_u32,
    macros::map,
    maps::{Array, PerCpuArray},
};
use memtrace_common::stacks;

use crate::{atomic, kernel};

/// Bytes until the next sampled byte of this CPU. Userspace draws the first ones.
#[map]
static UNTIL_SAMPLE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Distances of equal likelihood, `SAMPLE_BYTES` on average.
#[map]
static INTERVALS: Array<u64> = Array::with_max_entries(stacks::INTERVALS, 0);

/// Sampled bytes of one allocation that are counted; more are next to impossible.
const MOST_POINTS: u32 = 16;

/// Returns for how many allocated bytes an allocation of `size` stands, 0 when it is not sampled.
#[inline(always)]
pub(crate) fn sample(size: u64) -> u64 {
    let period = u64::from(kernel::SAMPLE_BYTES.load());
    if size >= period {
        return size;
    }
    let Some(until) = UNTIL_SAMPLE.get_ptr_mut(0) else { return 0 };
    // SAFETY: a live map value that is only accessed atomically.
    let before = unsafe { atomic::add(until, 0_u64.wrapping_sub(size)) } as i64;
    let mut left = before.wrapping_sub(size as i64);
    // Below zero before: the thread that took it there was preempted and draws the next distance.
    if left > 0 || before <= 0 {
        return 0;
    }
    let mut points = 0;
    for _ in 0..MOST_POINTS {
        let interval = interval();
        // SAFETY: as above.
        unsafe { atomic::bump(until, interval) };
        left = left.wrapping_add(interval as i64);
        points += 1;
        if left > 0 {
            break;
        }
    }
    points * period
}

#[inline(always)]
fn interval() -> u64 {
    // SAFETY: the helper takes no argument and has no side effect.
    let index = unsafe { bpf_get_prandom_u32() } & (stacks::INTERVALS - 1);
    // SAFETY: a map value that nobody writes to any more.
    INTERVALS.get_ptr(index).map_or(1, |interval| unsafe { *interval })
}
