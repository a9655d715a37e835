//! Address spaces that share anonymous memory, since a fork made one of the other.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LruHashMap},
};

use super::{add, followed, ledger, operation::Task, spaces::find};
use crate::atomic;

/// Living address spaces of each family, by the number of the first that was seen.
#[map]
static FAMILIES: HashMap<u64, u64> = HashMap::with_max_entries(4_096, 0);

/// Address spaces that are not followed, but of a family of which one is; by address of their
/// `mm_struct`.
#[map]
static RELATIVES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4_096, 0);

/// A fork made `child` of `parent`.
#[inline(always)]
pub(crate) fn born(parent: u64, child: u64) {
    let Some(books) = followed(parent) else { return };
    // SAFETY: a live map value; the parent's thread is here, another fork of it may be as well: then
    // one of the two families has a member too few.
    let books = unsafe { &mut *books };
    if books.family == 0 {
        books.family = books.number;
        let _ = FAMILIES.insert(books.family, 1, 0);
    }
    let Some(members) = FAMILIES.get_ptr_mut(books.family) else { return };
    // SAFETY: a live map value that is only accessed atomically.
    unsafe { atomic::bump(members, 1) };
    match followed(child) {
        // SAFETY: a live map value whose process does not run yet.
        Some(child) => unsafe { (*child).family = books.family },
        None => {
            let _ = RELATIVES.insert(child, books.family, 0);
        }
    }
}

/// An address space was torn down that is not followed.
#[inline(always)]
pub(crate) fn died(mm: u64) {
    // SAFETY: a copy of a value that is written whole.
    if let Some(family) = unsafe { RELATIVES.get(mm) }.copied() {
        let _ = RELATIVES.remove(mm);
        leave(family);
    }
}

/// A member of a family was torn down.
#[inline(always)]
pub(super) fn leave(family: u64) {
    let Some(members) = FAMILIES.get_ptr_mut(family) else { return };
    // SAFETY: a live map value that is only accessed atomically.
    let left = unsafe {
        atomic::bump(members, u64::MAX);
        members.read_volatile()
    };
    if left == 0 {
        let _ = FAMILIES.remove(family);
    }
}

/// Tells whether another address space lives that shares memory with this one.
#[inline(always)]
pub(super) fn has_relatives(mm: u64) -> bool {
    let Some(books) = find(mm) else { return false };
    // SAFETY: a live map value.
    let family = unsafe { (*books).family };
    // SAFETY: a copy of a value that is only written atomically.
    unsafe { FAMILIES.get(family) }.copied().unwrap_or(0) > 1
}

/// Books what an operation detached and did not free, if a relative may have it.
#[inline(always)]
pub(super) fn book_shared(task: &Task) {
    if has_relatives(task.mm)
        && let Some(ledger) = ledger(task.mm)
        && let Some(total) = ledger.shared_pages.get(usize::from(task.path))
    {
        add(total, task.zapped_anon - task.freed_anon);
    }
}
