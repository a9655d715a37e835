//! Calls of the allocator that have not returned yet, by thread.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::map, maps::HashMap};
use memtrace_common::stacks::Live;

/// A call of which the return is awaited: it is sampled, or may call another probed function.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Pending {
    /// Stack pointer at its entry, where the return address lies.
    pub(crate) sp: u64,
    /// What will be allocated; weight 0 when it is not sampled.
    pub(crate) live: Live,
    /// realloc: the old block.
    pub(crate) old: u64,
    /// realloc: what it was; weight 0 when it was not sampled.
    pub(crate) was: Live,
    /// `posix_memalign`: where the pointer is put.
    pub(crate) out: u64,
}

#[map]
static AWAITED: HashMap<u64, Pending> = HashMap::with_max_entries(1, 0);

/// Tells whether a call at stack pointer `sp` is made by another one that is pending. One that never
/// returned (longjmp, an exception) lies below it, and counts no more.
#[inline(always)]
pub(crate) fn is_nested(sp: u64) -> bool {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: a live map value of this thread.
    AWAITED.get_ptr(thread).is_some_and(|pending| sp <= unsafe { (*pending).sp })
}

/// Awaits the return of a call. Returns false when there is no room.
#[inline(always)]
pub(crate) fn begin(pending: &Pending) -> bool {
    AWAITED.insert(bpf_get_current_pid_tgid(), pending, 0).is_ok()
}

/// Returns the call that returns with stack pointer `sp`, if it was awaited.
#[inline(always)]
pub(crate) fn end(sp: u64) -> Option<Pending> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: a live map value of this thread.
    let pending = unsafe { *AWAITED.get_ptr(thread)? };
    if pending.sp != sp.wrapping_sub(8) {
        return None;
    }
    let _ = AWAITED.remove(thread);
    Some(pending)
}
