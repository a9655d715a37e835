//! Atomic read-modify-write on map values. `core::sync::atomic` leaves them out for this target,
//! since the first BPF machines lacked them; every kernel that memtrace runs on has them.

/// Adds to `*counter` and returns what was there.
///
/// # Safety
///
/// `counter` is live, aligned, and only accessed atomically.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, amount: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: passed on to the caller.
    unsafe {
        use core::intrinsics::{AtomicOrdering::SeqCst, atomic_xadd};
        atomic_xadd::<u64, u64, { SeqCst }>(counter, amount)
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: passed on to the caller.
    unsafe {
        use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
        AtomicU64::from_ptr(counter).fetch_add(amount, SeqCst)
    }
}

/// Adds to `*counter`. Without asking what was there it is an instruction that every kernel has: those
/// that return it came with 5.12.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub(crate) unsafe fn bump(counter: *mut u64, amount: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: passed on to the caller.
    unsafe {
        use core::intrinsics::{AtomicOrdering::Relaxed, atomic_xadd};
        atomic_xadd::<u64, u64, { Relaxed }>(counter, amount);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: passed on to the caller.
    unsafe {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        AtomicU64::from_ptr(counter).fetch_add(amount, Relaxed);
    }
}

/// Replaces `*counter` and returns what was there.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub(crate) unsafe fn swap(counter: *mut i64, value: i64) -> i64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: passed on to the caller.
    unsafe {
        use core::intrinsics::{AtomicOrdering::SeqCst, atomic_xchg};
        atomic_xchg::<i64, { SeqCst }>(counter, value)
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: passed on to the caller.
    unsafe {
        use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
        AtomicI64::from_ptr(counter).swap(value, SeqCst)
    }
}
