//! Takes call stacks of user code. The kernel follows frame pointers: code that was built without them
//! ends the stack early, but never before the caller of the allocator, which is read apart.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_USER_STACK,
    helpers::generated::{bpf_get_stack, bpf_probe_read_user},
    macros::map,
    maps::{HashMap, PerCpuArray},
    programs::ProbeContext,
};
use memtrace_common::stacks::{FRAMES, Stack, StackStats};

use super::count;
use crate::atomic;

/// Call stacks by their hash.
#[map]
static STACKS: HashMap<u64, Stack> = HashMap::with_max_entries(1, 0);

/// Room for stacks that are being taken, more than one since this may be preempted.
#[map]
static DESKS: PerCpuArray<Desk> = PerCpuArray::with_max_entries(DESK_COUNT, 0);

const DESK_COUNT: u32 = 4;

#[repr(C)]
struct Desk {
    /// 1 when someone is at it.
    taken: i64,
    stack: Stack,
}

/// Keeps the current call stack and returns its key; 0, and counts it, when it could not be kept.
#[inline(always)]
pub(crate) fn trace(ctx: &ProbeContext) -> u64 {
    for number in 0..DESK_COUNT {
        let Some(desk) = DESKS.get_ptr_mut(number) else { break };
        // SAFETY: a live map value that is only accessed atomically.
        if unsafe { atomic::swap(&raw mut (*desk).taken, 1) } == 0 {
            // SAFETY: a live map value that is ours until it is given back.
            let key = take(ctx, unsafe { &raw mut (*desk).stack });
            // SAFETY: as above.
            unsafe { atomic::swap(&raw mut (*desk).taken, 0) };
            if key == 0 {
                break;
            }
            return key;
        }
    }
    count(|stats: &mut StackStats| &raw mut stats.lost_stacks);
    0
}

#[inline(always)]
fn take(ctx: &ProbeContext, stack: *mut Stack) -> u64 {
    let len = size_of::<Stack>() as u32;
    let user = u64::from(BPF_F_USER_STACK);
    // SAFETY: the helper fills all of the stack, with zeros behind its end.
    let taken = unsafe { bpf_get_stack(ctx.as_ptr(), stack.cast(), len, user) };
    if taken < 0 {
        return 0;
    }
    // SAFETY: the stack is ours, the registers are the context's.
    unsafe {
        // The first frame is the probed function, which everyone has: its caller instead, whose frame
        // no frame pointer leads to yet. The probes sit where nothing was pushed.
        let place = (&raw mut (*stack).frames[0]).cast();
        bpf_probe_read_user(place, 8, (*ctx.regs).rsp as *const _);
    }
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for at in 0..FRAMES {
        // SAFETY: within the stack. Volatile, or the compiler makes one long block of it.
        let frame = unsafe { (&raw const (*stack).frames[at]).read_volatile() };
        hash = (hash ^ frame).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    let key = hash | 1;
    if STACKS.get_ptr(key).is_none() {
        // SAFETY: the stack is ours. It is too large to be passed by value.
        let stack: &Stack = unsafe { &*stack };
        if STACKS.insert(key, stack, 0).is_err() {
            return 0;
        }
    }
    key
}
