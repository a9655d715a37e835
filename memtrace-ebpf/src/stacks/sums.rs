//! What each call stack of the processes that are followed gave up, and how often it faulted. Sums,
//! not samples.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::HashMap};
use memtrace_common::stacks::{Faulted, Faulter, Origin, Reclaimed, Reclaimer};

use super::count;
use crate::{atomic, kernel};

/// What each call stack gave up, by path.
#[map]
static RECLAIMED: HashMap<Reclaimer, Reclaimed> = HashMap::with_max_entries(1, 0);

/// How often each call stack faulted.
#[map]
static FAULTED: HashMap<Faulter, Faulted> = HashMap::with_max_entries(1, 0);

/// Books what a call of a followed process gave up.
#[inline(always)]
pub(crate) fn gave_up(reclaimer: Reclaimer, mm: u64, zapped_pages: u64, freed_frames: u64) {
    if RECLAIMED.get_ptr(reclaimer).is_none() {
        let none = Reclaimed { origin: origin(mm), ..Reclaimed::default() };
        // Another thread may be first: then it stays.
        let _ = RECLAIMED.insert(reclaimer, none, u64::from(BPF_NOEXIST));
    }
    let Some(sum) = RECLAIMED.get_ptr_mut(reclaimer) else {
        count(|stats| &raw mut stats.lost_reclaims);
        return;
    };
    // SAFETY: a live map value that is only written atomically.
    unsafe {
        atomic::bump(&raw mut (*sum).calls, 1);
        atomic::bump(&raw mut (*sum).zapped_pages, zapped_pages);
        atomic::bump(&raw mut (*sum).freed_frames, freed_frames);
    }
}

/// Books a page fault of a followed process.
#[inline(always)]
pub(crate) fn faulted(faulter: Faulter, mm: u64) {
    if FAULTED.get_ptr(faulter).is_none() {
        let none = Faulted { origin: origin(mm), ..Faulted::default() };
        // As above.
        let _ = FAULTED.insert(faulter, none, u64::from(BPF_NOEXIST));
    }
    let Some(sum) = FAULTED.get_ptr_mut(faulter) else {
        count(|stats| &raw mut stats.lost_faults);
        return;
    };
    // SAFETY: as above.
    unsafe { atomic::bump(&raw mut (*sum).faults, 1) };
}

#[inline(always)]
fn origin(mm: u64) -> Origin {
    Origin { mm, time_ns: kernel::now_ns() }
}
