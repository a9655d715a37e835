//! Who is followed and what is counted for them: the maps, and the only code that writes to them.
//!
//! An address space is followed by its mm, never by the current process: reclaim, `process_mrelease`
//! and the last `mmput` run anywhere. Reading order: this file (who is followed), `operation` (what a
//! thread is doing), `pages` (what enters and leaves), `frames` (what the page allocator gets back),
//! `family` (who may still have it). `spaces` finds the books.

mod family;
mod fills;
mod frames;
mod late;
mod machine;
mod operation;
mod pages;
mod remanence;
mod spaces;
mod vain;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};
use memtrace_common::{COUNTERS, Ledger, Owner, PATHS, PathCounters};

use self::spaces::find;
pub(crate) use self::{
    family::{born, died},
    fills::{allocated, is_data},
    frames::{Freed, book_freed},
    machine::{discover, own},
    operation::{end, end_teardown, in_exec, in_fork, in_process_madvise, known_task, task},
    pages::{book, counter_change, seed, settle},
    remanence::{freed, given_out},
    spaces::find_recent,
};
use crate::{atomic, emit, evidence::Counted, kernel};

/// Processes that are traced, by tgid. Userspace adds the first ones.
#[map]
pub(crate) static TRACED: HashMap<u32, u32> = HashMap::with_max_entries(16_384, 0);

/// An address space that is followed.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Mm {
    /// The books, as userspace reads them.
    pub(crate) ledger: Ledger,
    /// The shared part of each counter when it was last consumed.
    shared: [i64; COUNTERS],
    /// [`Mm::SEEDING`], [`Mm::EMBRYO`], [`Mm::LIVE`] or [`Mm::DEAD`].
    pub(crate) state: u32,
    /// CPUs whose shares were read while seeding.
    seeded: u32,
    /// No other address space has had it: tells apart those that had the same slot.
    number: u64,
    /// Where it is, and where each CPU keeps its share of the counters.
    slot: u32,
    /// 1 when the books changed after the address space was torn down.
    changed: u32,
    /// Whom it shares memory with, see [`family`]; 0 for nobody.
    family: u64,
    /// Address of its `mm_struct`; 0 when the slot is free.
    mm: u64,
    /// What its last operation detached and did not free.
    left: late::Left,
    /// The VMA that was stored last.
    pub(crate) stored: Stored,
    /// Whose it is; only of the whole machine, as the next.
    owner: Owner,
    /// Operations that detached pages, by path.
    operations: [u64; PATHS],
}

/// A VMA as it was when it was stored.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Stored {
    pub(crate) vma: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) flags: u64,
    pub(crate) file: u64,
    pub(crate) pgoff: u64,
    /// Number of the write section.
    pub(crate) section: u64,
}

impl Stored {
    /// Reads a VMA that is, or was, stored in write section `section`.
    #[inline(always)]
    pub(crate) fn read(vma: u64, section: u64) -> Self {
        let field = |field| kernel::read::<u64>(vma, field);
        Self {
            vma,
            start: field(&kernel::VMA_START),
            end: field(&kernel::VMA_END),
            flags: field(&kernel::VMA_FLAGS),
            file: field(&kernel::VMA_FILE),
            pgoff: field(&kernel::VMA_PGOFF),
            section,
        }
    }

    /// Returns the offset that it got after it was stored (`__vma_adjust`, mm/mmap.c, 6.1), if it is
    /// still the same VMA.
    #[inline(always)]
    pub(crate) fn late_offset(&self) -> Option<u64> {
        let now = Self::read(self.vma, self.section);
        // In one go: each branch doubles what the verifier has to follow.
        let other = (now.start ^ self.start)
            | (now.end ^ self.end)
            | (now.flags ^ self.flags)
            | (now.file ^ self.file);
        (other == 0 && now.pgoff != self.pgoff).then_some(now.pgoff)
    }
}

impl Mm {
    /// Being read for the first time: nothing is counted yet.
    pub(crate) const SEEDING: u32 = 0;
    /// Being built by fork or exec; nobody runs in it yet.
    pub(crate) const EMBRYO: u32 = 1;
    /// Followed.
    pub(crate) const LIVE: u32 = 2;
    /// Torn down; late frames are still booked.
    pub(crate) const DEAD: u32 = 3;

    /// Returns its number, once it is counted and its process runs.
    #[inline(always)]
    pub(crate) fn running(&self) -> Option<u64> {
        (self.state == Self::LIVE).then_some(self.number)
    }
}

/// Returns the books of a followed address space that is not torn down.
#[inline(always)]
pub(crate) fn followed(mm: u64) -> Option<*mut Mm> {
    let books = find(mm)?;
    // SAFETY: a live map value.
    (unsafe { (*books).state } != Mm::DEAD).then_some(books)
}

/// Begins to follow an address space, unless it is followed. Returns its books, or counts that
/// there is no room.
#[inline(always)]
pub(crate) fn track(mm: u64, state: u32) -> Option<*mut Mm> {
    let books = followed(mm).or_else(|| take(mm, state));
    if books.is_none() {
        emit::untracked();
    }
    books
}

/// Opens the books of an address space that is not followed, if there is room.
#[inline(always)]
fn take(mm: u64, state: u32) -> Option<*mut Mm> {
    forget(mm);
    late::forget_delays(mm);
    let books = spaces::open(mm, state)?;
    if kernel::RSS_HAS_COUNT.load() == 1 {
        // SAFETY: a live map value; nobody counts in it yet.
        fills::note_untold(unsafe { &mut (*books).ledger });
    }
    Some(books)
}

/// Drops the books of an address space that was torn down, if there are any.
#[inline(always)]
fn forget(mm: u64) {
    let Some(books) = find(mm) else { return };
    // SAFETY: a live map value.
    unsafe {
        if (*books).state != Mm::DEAD {
            return;
        }
        machine::fold(&*books);
        if (*books).changed == 1 {
            emit::mm_end::<Counted>(mm, &raw const (*books).ledger);
        }
    }
    spaces::close(mm, books);
}

/// The address spaces that were torn down last; what falls out is forgotten.
#[map]
static GRAVES: Array<u64> = Array::with_max_entries(GRAVE_COUNT, 0);

/// The next grave to use.
#[map]
static NEXT_GRAVE: Array<u64> = Array::with_max_entries(1, 0);

const GRAVE_COUNT: u32 = 1024;

/// Ends the life of an address space: its books stay a while, for late frames and a last look.
#[inline(always)]
pub(crate) fn bury(mm: u64, books: *mut Mm) {
    // SAFETY: a live map value whose address space nobody has any more.
    unsafe {
        (*books).state = Mm::DEAD;
        family::leave((*books).family);
    }
    let Some(next) = NEXT_GRAVE.get_ptr_mut(0) else { return };
    // SAFETY: a live map value that is only accessed atomically.
    let grave = unsafe { atomic::add(next, 1) } as u32 % GRAVE_COUNT;
    let Some(grave) = GRAVES.get_ptr_mut(grave) else { return };
    // SAFETY: a live map value; a lost race forgets one later.
    let old = unsafe { grave.replace(mm) };
    if old != mm {
        forget(old);
    }
}

/// Makes an address space that fork or exec built a followed one.
#[inline(always)]
pub(crate) fn adopt(mm: u64) {
    if let Some(books) = track(mm, Mm::LIVE) {
        // SAFETY: a live map value, and its process does not run yet.
        unsafe { (*books).state = Mm::LIVE };
    }
}

/// Opens a write section of an address space: all changes of its map in it carry this number.
#[inline(always)]
pub(crate) fn open_section(books: *mut Mm) -> u64 {
    // SAFETY: a live map value; the mm's lock is held for writing, so nobody else is here.
    unsafe { atomic::add(&raw mut (*books).ledger.sections, 1) + 1 }
}

/// Notes that the books of an address space change, which matters once they were sent.
#[inline(always)]
fn note_change(mm: u64) {
    let Some(books) = find(mm) else { return };
    // SAFETY: a live map value; others write the same.
    unsafe { (*books).changed = u32::from((*books).state == Mm::DEAD) };
}

/// Returns what left a followed address space by a path, given as it stands in a record. (A bounds
/// check, not a table of paths: the verifier must see the limit.)
#[inline(always)]
fn path_counters(mm: u64, path: u64) -> Option<&'static PathCounters> {
    // Else the compiler may check one copy of it and use another.
    let path = core::hint::black_box(path);
    ledger(mm)?.paths.get(path as usize)
}

/// Returns the ledger of an address space that is followed or was torn down.
#[inline(always)]
fn ledger(mm: u64) -> Option<&'static Ledger> {
    let books = find(mm)?;
    // SAFETY: a live map value that is only written atomically.
    Some(unsafe { &(*books).ledger })
}

/// Returns a value of a map, which is made when it is missing: out of a zeroed one, too large for the
/// stack.
#[inline(always)]
fn entry<T>(
    zeroed: &Array<T>,
    get: impl Fn() -> Option<*mut T>,
    insert: impl FnOnce(&T),
) -> Option<*mut T> {
    if let Some(known) = get() {
        return Some(known);
    }
    // SAFETY: a zeroed value that nobody writes to.
    insert(unsafe { &*zeroed.get_ptr(0)? });
    get()
}

/// Adds to a counter of the books.
#[inline(always)]
fn add(counter: *const u64, amount: u64) {
    // SAFETY: the callers pass a live, aligned map value that is only written atomically.
    unsafe { atomic::bump(counter.cast_mut(), amount) };
}
