//! Where this CPU's copies of the kernel's per-CPU variables lie.
//!
//! A `__percpu` pointer plus the CPU's offset is an address. Not every kernel exports its table of
//! offsets, but a per-CPU map of our own gives both ends: `bpf_array.pptrs` is the pointer, a
//! look-up gives the address (kernel/bpf/arraymap.c, 6.1 to 7.3).

use aya_ebpf::{macros::map, maps::PerCpuArray};

use crate::kernel;

#[map]
static ANCHOR: PerCpuArray<Anchor> = PerCpuArray::with_max_entries(1, 0);

/// One CPU's value.
#[derive(Clone, Copy)]
#[repr(C)]
struct Anchor {
    offset: u64,
    /// A pointer that was stored here and loaded again is a number to the verifier.
    here: u64,
    map: u64,
}

/// Learns this CPU's offset. Call it once on each CPU, while nothing interrupts it with the same.
pub(crate) fn anchor() {
    let Some(anchor) = ANCHOR.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's live map value; volatile, or the compiler would skip the detour.
    unsafe {
        (&raw mut (*anchor).here).write_volatile(anchor as u64);
        (&raw mut (*anchor).map).write_volatile(&raw const ANCHOR as u64);
        let here = (&raw const (*anchor).here).read_volatile();
        let map = (&raw const (*anchor).map).read_volatile();
        let pointer: u64 = kernel::read(map, &kernel::ARRAY_PPTRS);
        (*anchor).offset = here.wrapping_sub(pointer);
    }
}

/// Returns this CPU's offset, `None` on a CPU that came up after the probes.
#[inline(always)]
pub(crate) fn offset() -> Option<u64> {
    let anchor = ANCHOR.get_ptr(0)?;
    // SAFETY: this CPU's live map value.
    let offset = unsafe { (*anchor).offset };
    (offset != 0).then_some(offset)
}
