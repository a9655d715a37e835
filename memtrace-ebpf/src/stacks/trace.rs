//! Takes call stacks of user code. The kernel follows frame pointers: code that was built without them
//! ends the stack early, but never before the caller of the allocator, or of a function without a
//! frame, which is read apart.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_USER_STACK, pt_regs},
    helpers::generated::{bpf_get_stack, bpf_probe_read_user},
    macros::map,
    maps::{HashMap, PerCpuArray},
    programs::ProbeContext,
};
use memtrace_common::stacks::{FRAMES, Stack, StackStats};

use super::{caller::caller, count};
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
    /// How many are at it, or trying: it is his who finds himself alone. (An exchange, which would be
    /// simpler, came with 5.12.)
    visitors: u64,
    stack: Stack,
}

/// How user code came into the kernel.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    ip: u64,
    sp: u64,
    faulted: bool,
}

impl Entry {
    /// Nobody may see where.
    pub(crate) const UNKNOWN: Self = Self { ip: 0, sp: 0, faulted: false };

    /// By a system call: the instruction pointer is behind it.
    ///
    /// # Safety
    ///
    /// The verifier knows `regs`.
    #[inline(always)]
    pub(crate) unsafe fn by_call(regs: *const pt_regs) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Self { ip: (*regs).rip, sp: (*regs).rsp, faulted: false } }
    }

    /// By a page fault: the instruction pointer is at what faulted.
    ///
    /// # Safety
    ///
    /// The verifier knows `regs`.
    #[inline(always)]
    pub(crate) unsafe fn by_fault(regs: *const pt_regs) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Self { ip: (*regs).rip, sp: (*regs).rsp, faulted: true } }
    }
}

/// Keeps the call stack of a function that was just entered and returns its key; 0, and counts it,
/// when it could not be kept.
#[inline(always)]
pub(crate) fn trace(ctx: &ProbeContext) -> u64 {
    let Some(desk) = sit_down() else { return lost() };
    // SAFETY: the desk is ours.
    let key = take(ctx, unsafe { &raw mut (*desk).stack });
    leave(desk, key)
}

/// The same of the user code that is in the kernel now.
#[inline(always)]
pub(crate) fn trace_entry<C: EbpfContext>(ctx: &C, entry: Entry) -> u64 {
    let Some(desk) = sit_down() else { return lost() };
    // SAFETY: the desk is ours.
    let key = take_entry(ctx, unsafe { &raw mut (*desk).stack }, entry);
    leave(desk, key)
}

/// Returns a desk that nobody else is at; it is ours until we leave.
#[inline(always)]
fn sit_down() -> Option<*mut Desk> {
    for number in 0..DESK_COUNT {
        let desk = DESKS.get_ptr_mut(number)?;
        // SAFETY: a live map value that is only accessed atomically.
        unsafe {
            atomic::bump(&raw mut (*desk).visitors, 1);
            if (&raw const (*desk).visitors).read_volatile() == 1 {
                return Some(desk);
            }
            atomic::bump(&raw mut (*desk).visitors, u64::MAX);
        }
    }
    None
}

/// Leaves the desk at which the stack with this key was taken.
#[inline(always)]
fn leave(desk: *mut Desk, key: u64) -> u64 {
    // SAFETY: as in `sit_down`.
    unsafe { atomic::bump(&raw mut (*desk).visitors, u64::MAX) };
    if key == 0 { lost() } else { key }
}

#[inline(always)]
fn lost() -> u64 {
    count(|stats: &mut StackStats| &raw mut stats.lost_stacks);
    0
}

#[inline(always)]
fn take(ctx: &ProbeContext, stack: *mut Stack) -> u64 {
    if !walk(ctx, stack, 0) {
        return 0;
    }
    // SAFETY: the stack is ours, the registers are the context's.
    unsafe {
        // The first frame is the probed function, which everyone has: its caller instead, whose frame
        // no frame pointer leads to yet. The probes sit where nothing was pushed.
        let place = (&raw mut (*stack).frames[0]).cast();
        bpf_probe_read_user(place, 8, (*ctx.regs).rsp as *const _);
    }
    keep(stack)
}

#[inline(always)]
fn take_entry<C: EbpfContext>(ctx: &C, stack: *mut Stack, entry: Entry) -> u64 {
    let Entry { ip, sp, faulted } = entry;
    let caller = caller(ip, sp, faulted);
    // The caller goes between the first frame and those that frame pointers lead to.
    let walked = if caller == 0 { walk(ctx, stack, 0) } else { walk(ctx, stack, 1) };
    if !walked {
        return 0;
    }
    // SAFETY: the stack is ours.
    unsafe {
        if caller != 0 {
            (*stack).frames[0] = ip;
            (*stack).frames[1] = caller;
        }
        if faulted {
            // As if it were a return address: behind what faulted.
            (*stack).frames[0] = ip.wrapping_add(1);
        }
    }
    keep(stack)
}

/// Fills a stack from one of its frames on, behind its end with zeros.
#[inline(always)]
fn walk<C: EbpfContext>(ctx: &C, stack: *mut Stack, first: usize) -> bool {
    let len = size_of::<Stack>() - 8 * first;
    // SAFETY: the helper fills the rest of the stack, which is ours.
    unsafe {
        let place = (&raw mut (*stack).frames[first]).cast();
        bpf_get_stack(ctx.as_ptr(), place, len as u32, u64::from(BPF_F_USER_STACK)) >= 0
    }
}

/// Keeps a call stack and returns its key, 0 when there is no room.
#[inline(always)]
fn keep(stack: *mut Stack) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for at in 0..FRAMES {
        // SAFETY: within the stack. Volatile, or the compiler makes one long block of it.
        let frame = unsafe { (&raw const (*stack).frames[at]).read_volatile() };
        if frame == 0 {
            break;
        }
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
