//! The one way out of the kernel: every probe ends in [`emit`].

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_probe_read_kernel,
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use memtrace_common::{Header, Kind, Ledger, MmEnd, ProbeStats, Record, TeardownRun};

use crate::{atomic, evidence::Evidence, kernel};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

#[map]
static STATS: PerCpuArray<ProbeStats> = PerCpuArray::with_max_entries(1, 0);

/// Bytes waiting in the ring above which the reader is woken. It also looks by itself on a timer.
const WATERMARK: u64 = 64 << 10;
/// `BPF_RB_AVAIL_DATA` (include/uapi/linux/bpf.h).
const AVAILABLE: u64 = 0;

/// Returns the header of a record of `kind` and type `R` about `mm`.
#[inline(always)]
pub(crate) fn header<R>(kind: Kind, mm: u64) -> Header {
    Header {
        time_ns: kernel::now_ns(),
        mm,
        tgid: kernel::tgid(),
        tid: kernel::tid(),
        cpu: kernel::cpu() as u16,
        sequence: 0,
        kind: kind as u16,
        len: size_of::<R>() as u16,
    }
}

/// Writes `record`, or counts it as dropped.
#[inline(always)]
pub(crate) fn emit<R: Record + 'static>(record: R) {
    emit_with(whole(record));
}

/// Returns what writes a whole record in place.
#[inline(always)]
pub(crate) fn whole<R: Record + 'static>(record: R) -> impl FnOnce(*mut R) {
    |place: *mut R| {
        // SAFETY: `place` is reserved memory of the ring, large enough and aligned to 8.
        unsafe { place.write(record) };
    }
}

/// Reserves room for a record, lets `fill` write it in place, and submits it; or counts it as
/// dropped. `fill` must write every byte; it is called only when there is room.
#[inline(always)]
pub(crate) fn emit_with<R: Record + 'static>(fill: impl FnOnce(*mut R)) {
    let Some(stats) = STATS.get_ptr_mut(0) else { return };
    // SAFETY: `stats` points into a live map value that is only ever accessed atomically.
    let sequence = unsafe { atomic::add(&raw mut (*stats).operations, 1) } as u16;
    write(stats, sequence, fill);
}

/// As [`emit_with`], but the record gets no number: a kernel before 5.12 cannot give one.
#[inline(always)]
pub(crate) fn emit_unnumbered<R: Record + 'static>(fill: impl FnOnce(*mut R)) {
    let Some(stats) = STATS.get_ptr_mut(0) else { return };
    // SAFETY: `stats` points into a live map value.
    count(unsafe { &raw mut (*stats).operations });
    write(stats, 0, fill);
}

#[inline(always)]
fn write<R: Record + 'static>(stats: *mut ProbeStats, sequence: u16, fill: impl FnOnce(*mut R)) {
    if kernel::MACHINE.load() == 1 {
        return;
    }
    match EVENTS.reserve::<R>(0) {
        Some(mut entry) => {
            fill(entry.as_mut_ptr());
            // SAFETY: every record begins with its header.
            unsafe { (*entry.as_mut_ptr().cast::<Header>()).sequence = sequence };
            entry.submit(wakeup::<R>());
            // SAFETY: `stats` points into a live map value.
            count(unsafe { &raw mut (*stats).emitted });
        }
        // SAFETY: as above.
        None => count(unsafe { &raw mut (*stats).dropped }),
    }
}

/// Counts an address space that cannot be followed.
#[inline(always)]
pub(crate) fn untracked() {
    if let Some(stats) = STATS.get_ptr_mut(0) {
        // SAFETY: `stats` points into a live map value.
        count(unsafe { &raw mut (*stats).untracked });
    }
}

/// A wake-up costs more than a record, so only the record that crosses the watermark wakes the
/// reader. Should two CPUs cross it unseen, the reader's timer sees to it.
#[inline(always)]
fn wakeup<R>() -> u64 {
    let waiting = EVENTS.query(AVAILABLE);
    let crossed = waiting >= WATERMARK && waiting < WATERMARK + 2 * (size_of::<R>() as u64 + 8);
    u64::from(if crossed { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

/// Adds one. Atomic, since an interrupt may run another probe on this CPU.
#[inline(always)]
fn count(counter: *mut u64) {
    // SAFETY: the callers pass a live, aligned map value that is only ever accessed atomically.
    unsafe { atomic::bump(counter, 1) };
}

/// Emits neighbouring frames that came back at a teardown.
#[inline(always)]
pub(crate) fn teardown_run(mm: u64, first: u64, pages: u64, frames: u64) {
    let header = header::<TeardownRun>(Kind::TeardownRun, mm);
    emit(TeardownRun { header, first, pages, frames });
}

/// Emits the end of an address space with its books; with zeros where there are none.
#[inline(always)]
pub(crate) fn mm_end<E: Evidence>(mm: u64, ledger: *const Ledger) {
    let header = header::<MmEnd>(Kind::MmEnd, mm);
    E::emit_with(|place: *mut MmEnd| {
        // SAFETY: `place` is reserved memory of the ring; the helper copies a ledger into it, or
        // zeroes it.
        unsafe {
            (&raw mut (*place).header).write(header);
            bpf_probe_read_kernel(
                (&raw mut (*place).ledger).cast(),
                size_of::<Ledger>() as u32,
                ledger.cast(),
            );
        }
    });
}
