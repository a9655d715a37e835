//! Where the books of each address space are.
//!
//! They lie in an array; a hash table says in which slot. The probes of pages run for every page of
//! the machine, so that each CPU remembers what it found last, and what it looked for in vain.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, Queue},
};

use super::{Mm, followed};
use crate::atomic;

/// The slots of address spaces that are followed or were torn down lately, by address of their
/// `mm_struct`.
#[map]
static MMS: HashMap<u64, u32> = HashMap::with_max_entries(SLOTS, 0);

/// Their books, by slot.
#[map]
static BOOKS: Array<Mm> = Array::with_max_entries(SLOTS, 0);

/// A zeroed [`Mm`], too large for the stack.
#[map]
static EMPTY_MM: Array<Mm> = Array::with_max_entries(1, 0);

/// Slots that an address space gave back.
#[map]
static FREE_SLOTS: Queue<u32> = Queue::with_max_entries(SLOTS, 0);

/// Slots that were ever taken.
#[map]
static USED_SLOTS: Array<u64> = Array::with_max_entries(1, 0);

/// Grows before and after the books of an address space are opened.
#[map]
static FOLLOWED: Array<u64> = Array::with_max_entries(1, 0);

/// Address spaces that can be followed at once.
pub(super) const SLOTS: u32 = 8_192;

/// What one CPU looked for last.
#[derive(Clone, Copy)]
#[repr(C)]
struct Recent {
    /// What it did not find, and what [`FOLLOWED`] said before it looked. Written in this order: a
    /// program that interrupts another between the two leaves nothing wrong behind.
    missed: u64,
    missed_at: u64,
    /// Where it found something.
    slot: u32,
    reserved: u32,
}

#[map]
static RECENT: PerCpuArray<Recent> = PerCpuArray::with_max_entries(1, 0);

/// Returns the books of an address space that is followed or was torn down lately.
#[inline(always)]
pub(super) fn find(mm: u64) -> Option<*mut Mm> {
    // SAFETY: a copy of a value that never changes while it is there.
    let slot = unsafe { MMS.get(mm) }.copied()?;
    BOOKS.get_ptr_mut(slot)
}

/// As [`followed`], for probes that run for every page.
#[inline(always)]
pub(crate) fn find_recent(mm: u64) -> Option<*mut Mm> {
    let recent = RECENT.get_ptr_mut(0)?;
    // SAFETY: a live map value that is only written atomically.
    let count = unsafe { FOLLOWED.get_ptr(0)?.read_volatile() };
    // SAFETY: this CPU's live map value.
    let recent = unsafe { &mut *recent };
    if recent.missed == mm && recent.missed_at == count {
        return None;
    }
    if let Some(books) = BOOKS.get_ptr_mut(recent.slot) {
        // SAFETY: a live map value.
        let (owner, state) = unsafe { ((*books).mm, (*books).state) };
        if owner == mm && (state == Mm::EMBRYO || state == Mm::LIVE) {
            return Some(books);
        }
    }
    let Some(books) = followed(mm) else {
        // SAFETY: as above; volatile for the sake of the order.
        unsafe {
            (&raw mut recent.missed).write_volatile(mm);
            (&raw mut recent.missed_at).write_volatile(count);
        }
        return None;
    };
    // SAFETY: a live map value.
    recent.slot = unsafe { (*books).slot };
    Some(books)
}

/// Opens the books of an address space that has none, if there is room.
#[inline(always)]
pub(super) fn open(mm: u64, state: u32) -> Option<*mut Mm> {
    let slot = take_slot()?;
    // SAFETY: a zeroed value that nobody writes to.
    let empty: &Mm = unsafe { &*EMPTY_MM.get_ptr(0)? };
    let _ = BOOKS.set(slot, empty, 0);
    let (books, followed) = (BOOKS.get_ptr_mut(slot)?, FOLLOWED.get_ptr_mut(0)?);
    // SAFETY: live map values: of the slot, which nobody else has, and one that is only accessed
    // atomically.
    unsafe {
        (*books).number = atomic::add(followed, 1) + 1;
        (*books).slot = slot;
        (*books).mm = mm;
        (*books).state = state;
    }
    if MMS.insert(mm, slot, u64::from(BPF_NOEXIST)).is_err() {
        give_back(books);
        return None;
    }
    // Whoever looked in between did so in vain.
    // SAFETY: as above.
    unsafe { atomic::bump(followed, 1) };
    Some(books)
}

/// Gives the place of books up that nobody needs any more.
#[inline(always)]
pub(super) fn close(mm: u64, books: *mut Mm) {
    if MMS.remove(mm).is_ok() {
        give_back(books);
    }
}

#[inline(always)]
fn take_slot() -> Option<u32> {
    if let Ok(Some(slot)) = FREE_SLOTS.pop() {
        return Some(slot);
    }
    let used = USED_SLOTS.get_ptr_mut(0)?;
    // SAFETY: a live map value that is only accessed atomically.
    let slot = unsafe { atomic::add(used, 1) };
    (slot < u64::from(SLOTS)).then_some(slot as u32)
}

#[inline(always)]
fn give_back(books: *mut Mm) {
    // SAFETY: a live map value that nobody finds any more.
    let slot = unsafe {
        (*books).mm = 0;
        (*books).state = Mm::DEAD;
        (*books).slot
    };
    let _ = FREE_SLOTS.push(slot, 0);
}
