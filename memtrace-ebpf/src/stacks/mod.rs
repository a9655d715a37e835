//! Who allocates and who frees, who gives pages up and who faults (`--stacks`): the maps, and the only
//! code that writes to them.
//!
//! Nothing here is loaded unless asked for, and the maps have one entry each then. Programs on user
//! functions can be preempted (`bpf_prog_run_array_uprobe`, include/linux/bpf.h, 6.1 to 7.3): whatever
//! a CPU has for itself may be found in use.

mod caller;
mod pending;
mod sampler;
mod sums;
mod trace;

use aya_ebpf::{
    EbpfContext,
    macros::map,
    maps::{HashMap, PerCpuArray, ProgramArray},
};
use memtrace_common::stacks::{Block, Freed, Freer, Gone, Live, StackStats, image};

pub(crate) use self::{
    pending::{Pending, begin, end, is_nested},
    sampler::sample,
    sums::{faulted, gave_up},
    trace::{Entry, trace, trace_entry},
};
use crate::{atomic, kernel};

/// Processes that are sampled, by tgid, and the number of programs that they have executed since. 0 is
/// a copy of memtrace that has not executed its command yet.
#[map]
static SAMPLED: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

/// Sampled allocations that were not freed.
#[map]
static LIVE: HashMap<Block, Live> = HashMap::with_max_entries(1, 0);

/// Sampled allocations that were freed, as long as the allocator did not give them out again.
#[map]
static GONE: HashMap<Block, Gone> = HashMap::with_max_entries(1, 0);

/// What each call stack freed.
#[map]
static FREED: HashMap<Freer, Freed> = HashMap::with_max_entries(1, 0);

#[map]
static STACK_STATS: PerCpuArray<StackStats> = PerCpuArray::with_max_entries(1, 0);

/// No program at all, see [`current`].
#[map]
static NO_PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Returns the program that the current process runs, if it is sampled. Every program on a function
/// begins with this.
#[inline(always)]
pub(crate) fn current<C: EbpfContext>(ctx: &C) -> Option<u64> {
    let tgid = kernel::tgid();
    if tgid == 0 {
        // Never comes here. But a program with a tail call runs on the stack of its thread; without one
        // it gets a stack for each CPU, which the thread that preempts it overwrites
        // (`bpf_enable_priv_stack`, kernel/bpf/verifier.c, 6.13 to 7.3).
        // SAFETY: the context is the program's.
        unsafe { NO_PROGRAM.tail_call(ctx, 0) };
    }
    // SAFETY: a live map value; a number that changes belongs to the same process.
    let number = unsafe { *SAMPLED.get_ptr(tgid)? };
    (number != 0).then_some(image(tgid, number))
}

/// Notes that the current process has executed a program: what was allocated before is gone.
#[inline(always)]
pub(crate) fn executed() {
    if let Some(number) = SAMPLED.get_ptr_mut(kernel::tgid()) {
        // SAFETY: a live map value; only this thread is left of the process.
        unsafe { *number = (*number).wrapping_add(1).max(1) };
    }
}

/// Books an allocation that was sampled.
#[inline(always)]
pub(crate) fn allocated(block: Block, live: Live) {
    count(|stats| &raw mut stats.samples);
    if LIVE.insert(block, live, 0).is_err() {
        count(|stats| &raw mut stats.lost);
    }
}

/// Takes a block that is about to be freed out of the books; `None` unless it was sampled.
#[inline(always)]
pub(crate) fn take(block: Block) -> Option<Live> {
    // SAFETY: a live map value. Nobody else frees or gets the same block meanwhile.
    let live = unsafe { *LIVE.get_ptr(block)? };
    let _ = LIVE.remove(block);
    Some(live)
}

/// Puts back what [`take`] took: it was not freed.
#[inline(always)]
pub(crate) fn put_back(block: Block, live: Live) {
    if LIVE.insert(block, live, 0).is_err() {
        count(|stats| &raw mut stats.lost);
    }
}

/// Books that `stack` freed a block.
#[inline(always)]
pub(crate) fn freed(block: Block, was: Live, stack: u64) {
    let freer = Freer { image: block.image, stack };
    if FREED.get_ptr(freer).is_none() {
        // Another thread may be first: then it stays.
        let _ = FREED.insert(freer, Freed { samples: 0, weight: 0 }, NO_EXIST);
    }
    let Some(freed) = FREED.get_ptr_mut(freer) else {
        count(|stats| &raw mut stats.lost);
        return;
    };
    // SAFETY: a live map value that is only written atomically.
    unsafe {
        atomic::bump(&raw mut (*freed).samples, 1);
        atomic::bump(&raw mut (*freed).weight, was.weight);
    }
    if GONE.insert(block, Gone { stack, was }, 0).is_err() {
        count(|stats| &raw mut stats.lost);
    }
}

/// Notes that the allocator gave out a block, sampled or not.
#[inline(always)]
pub(crate) fn given_out(block: Block) {
    // A look takes no lock, and almost none is there.
    if GONE.get_ptr(block).is_some() {
        let _ = GONE.remove(block);
    }
}

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const NO_EXIST: u64 = 1;

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: impl FnOnce(&mut StackStats) -> *mut u64) {
    if let Some(stats) = STACK_STATS.get_ptr_mut(0) {
        // SAFETY: a live map value that is only accessed atomically.
        unsafe { atomic::bump(counter(&mut *stats), 1) };
    }
}
