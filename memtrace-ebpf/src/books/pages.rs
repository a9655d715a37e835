//! Pages that enter and leave address spaces: how much a counter changed, and for whom.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use memtrace_common::{COUNTERS, Counter, Path};

use super::{
    Mm, add, fills,
    operation::{Operation, begin, in_exec},
    spaces::SLOTS,
    track,
};
use crate::{
    atomic,
    kernel::{self, Typed},
    percpu,
};

/// What this CPU saw last of each address space's counters, by [`Mm::slot`]. An array, since each
/// fault looks here.
#[map]
static SHARES: PerCpuArray<Share> = PerCpuArray::with_max_entries(SLOTS, 0);

/// One CPU's share of an mm's counters.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Share {
    /// [`Mm::number`] of the address space that had the slot when this CPU wrote to it.
    owner: u64,
    /// The shares when `rss_stat` last fired here, pages.
    last: [i32; COUNTERS],
}

/// Tells whether an address space has a share of this CPU's.
#[inline(always)]
fn has_share(books: &Mm) -> bool {
    // SAFETY: this CPU's live map value.
    SHARES.get_ptr(books.slot).is_some_and(|share| unsafe { (*share).owner } == books.number)
}

/// Returns this CPU's share of an address space: zero on a CPU that it did not run on.
#[inline(always)]
fn share(books: &Mm) -> Option<&'static mut Share> {
    let share = SHARES.get_ptr_mut(books.slot)?;
    // SAFETY: this CPU's live map value.
    let share = unsafe { &mut *share };
    if share.owner != books.number {
        *share = Share { owner: books.number, ..Share::default() };
    }
    Some(share)
}

/// Reads this CPU's share of a living address space; call it once on each CPU, before counting. Once
/// it is counted, the same call settles what is in flight.
#[inline(always)]
pub(crate) fn seed(mm: Typed) -> bool {
    let key = mm.address();
    let Some(books) = track(key, Mm::SEEDING) else { return false };
    // SAFETY: a live map value; nobody else writes while it is being seeded.
    let books = unsafe { &mut *books };
    if books.state != Mm::SEEDING {
        settle(mm, books);
        return true;
    }
    if kernel::RSS_HAS_COUNT.load() == 0 && has_share(books) {
        // Another process has it as well (`CLONE_VM`).
        return true;
    }
    for member in 0..COUNTERS {
        if kernel::RSS_HAS_COUNT.load() == 1 {
            books.shared[member] = count(mm, member as u32);
            books.ledger.base_pages[member] = books.shared[member];
            continue;
        }
        let Some(share) = share(books) else { return false };
        let Some((shared, local)) = counter(mm, member as u32) else { return false };
        if books.seeded == 0 {
            books.shared[member] = shared;
            books.ledger.base_pages[member] = shared;
        }
        books.ledger.base_pages[member] += i64::from(local);
        share.last[member] = local;
    }
    books.seeded += 1;
    if books.seeded >= kernel::SEED_CPUS.load() {
        books.state = Mm::LIVE;
    }
    true
}

/// Books what changed and was left to an event that has not come (yet): on this CPU, and in the
/// shared parts.
#[inline(always)]
pub(crate) fn settle(mm: Typed, books: &Mm) {
    for member in 0..COUNTERS {
        let Some(seen) = books.shared.get(member) else { return };
        let seen = core::ptr::from_ref(seen).cast_mut();
        let (shared, change) = if kernel::RSS_HAS_COUNT.load() == 1 {
            (count(mm, member as u32), 0)
        } else {
            let Some(share) = share(books) else { return };
            let Some((shared, local)) = counter(mm, member as u32) else { return };
            let last = &mut share.last[member];
            let change = i64::from(local) - i64::from(*last);
            *last = local;
            (shared, change)
        };
        // SAFETY: a live, aligned map value that is only accessed atomically once it is live.
        let folded = shared - unsafe { atomic::swap(seen, shared) };
        let total = core::ptr::from_ref(&books.ledger.in_pages[member]).cast();
        add(total, (change + folded) as u64);
    }
}

/// Reads one counter of an mm where they are not per CPU (before 6.2). That kernel's verifier does
/// not know the way into an array of atomics.
#[inline(always)]
fn count(mm: Typed, member: u32) -> i64 {
    kernel::read_at(mm.address() + u64::from(kernel::MM_RSS.load()) + 8 * u64::from(member))
}

/// Reads one percpu counter of an mm: its shared part and this CPU's share
/// (lib/percpu_counter.c, 6.2 to 7.3).
#[inline(always)]
pub(super) fn counter(mm: Typed, member: u32) -> Option<(i64, i32)> {
    let at = kernel::MM_RSS.load() + member * kernel::PERCPU_SIZE.load();
    let shared = mm.load_at::<i64>(at + kernel::PERCPU_COUNT.load());
    let shares = mm.load_at::<u64>(at + kernel::PERCPU_COUNTERS.load());
    Some((shared, kernel::read_at(shares.wrapping_add(percpu::offset()?))))
}

/// Returns by how many pages a counter of `mm` changed, given that `rss_stat` just fired for it.
///
/// The sum over all calls is exact. Between a change and its event another CPU's event may come,
/// which must not take what is not its own: a fault leaves a large or negative change to the
/// operation that made it.
#[inline(always)]
pub(crate) fn counter_change(mm: Typed, books: &Mm, member: u32, count: i64) -> i64 {
    let Some(seen) = books.shared.get(member as usize) else { return 0 };
    let seen = core::ptr::from_ref(seen).cast_mut();
    // SAFETY: a live, aligned map value that is only accessed atomically once it is live.
    let consume = |now| now - unsafe { atomic::swap(seen, now) };
    // SAFETY: as above.
    let unseen = |now: i64| now - unsafe { seen.read_volatile() };
    if kernel::RSS_HAS_COUNT.load() == 1 {
        let others = unseen(count) < -MOST_SYNCED && !detaches(mm);
        return if others { 0 } else { consume(count) };
    }
    let Some(share) = share(books) else { return 0 };
    // The verifier takes constant offsets only.
    let counter = match member {
        0 => counter(mm, 0),
        1 => counter(mm, 1),
        2 => counter(mm, 2),
        _ => counter(mm, 3),
    };
    let Some((shared, local)) = counter else { return 0 };
    let Some(last) = share.last.get_mut(member as usize) else { return 0 };
    let before = i64::from(*last);
    *last = local;
    let change = i64::from(local) - before;
    // A share becomes 0 when it is folded into the shared part, seldom otherwise.
    if local != 0 {
        return change;
    }
    // What a fault folds is its share and one page, as a rule.
    let own = if before < 0 { before - 1 } else { before + 1 };
    let folded = unseen(shared);
    let own_only = if own > 0 { (0..=MOST_FOLDED).contains(&folded) } else { folded <= 0 };
    if own_only || detaches(mm) {
        return change + consume(shared);
    }
    // SAFETY: as above.
    unsafe { atomic::add(seen.cast(), own as u64) };
    change + own
}

/// A fault folds at most its share, below this, and what it maps around the address, or a huge page
/// (`percpu_counter_batch`, lib/percpu_counter.c; `fault_around_bytes`, mm/memory.c).
const MOST_FOLDED: i64 = 1024;

/// What a thread adds at most when it adds what it counted for itself, but for what is mapped around
/// an address (`TASK_RSS_EVENTS_THRESH`, mm/memory.c, 6.1).
const MOST_SYNCED: i64 = 128;

/// Tells whether the current thread may detach pages of `mm` now.
#[inline(always)]
fn detaches(mm: Typed) -> bool {
    let flags = Typed::current().load::<u32>(&kernel::TASK_FLAGS);
    mm.load::<u32>(&kernel::MM_USERS) == 0
        || flags & kernel::PF_MEMALLOC != 0
        || Operation::current().is_some()
}

/// Books a change of `pages` in a counter of a followed address space.
#[inline(always)]
pub(crate) fn book(mm: Typed, books: &Mm, member: u32, pages: i64) {
    let key = mm.address();
    let task = Typed::current();
    let own = task.load::<u64>(&kernel::TASK_MM) == key;
    let reclaims = task.load::<u32>(&kernel::TASK_FLAGS) & kernel::PF_MEMALLOC != 0;
    let is_swap = member == Counter::Swap as u32;
    let is_synced = kernel::RSS_HAS_COUNT.load() == 1 && own && pages == unsynced(task, member);
    let operation = if is_synced {
        // What the thread counted for itself at faults before.
        None
    } else if mm.load::<u32>(&kernel::MM_USERS) == 0 {
        Some(Operation::teardown(if in_exec() { Path::Exec } else { Path::Exit }))
    } else if pages > 0 {
        if is_swap && reclaims {
            add(&books.ledger.swapped_out_pages, pages as u64);
        }
        fills::mapped(books, member);
        if kernel::RSS_HAS_COUNT.load() == 1
            && member == Counter::Anon as u32
            && pages > MOST_SYNCED
            && own
            && let Some(operation) = Operation::current()
            && matches!(operation.path, Path::Munmap | Path::DontNeed)
        {
            // No page comes in then, but for those that the thread had counted for itself: what it
            // detached was taken by another, whose event came first. It is given back.
            add_zapped(books, operation.path, member, pages.wrapping_neg() as u64);
            return;
        }
        None
    } else {
        let operation = Operation::current();
        let unasked = match &operation {
            // `MADV_PAGEOUT` is reclaim that the process asked for.
            Some(operation) if reclaims && !matches!(operation.path, Path::Pressure) => {
                Some(Path::Pressure)
            }
            None if reclaims => Some(Path::Pressure),
            None if is_swap => None,
            None if !own => Some(Path::Other),
            _ => None,
        };
        if let Some(path) = unasked {
            add_zapped(books, path, member, pages.unsigned_abs());
            return;
        }
        operation
    };
    match operation {
        Some(operation) if pages < 0 => {
            let pages = pages.unsigned_abs();
            add_zapped(books, operation.path, member, pages);
            if let Some(task) = begin(key, operation)
                && !is_swap
            {
                if task.zapped == 0 && kernel::MACHINE.load() == 0 {
                    task.began_ns = kernel::now_ns();
                }
                task.zapped += pages;
                if member == Counter::Anon as u32 {
                    task.zapped_anon += pages;
                }
            }
        }
        // A fault: what copy-on-write exchanges cancels out.
        _ => {
            if is_swap && pages < 0 {
                add(&books.ledger.swapped_in_pages, pages.unsigned_abs());
                fills::came_from_swap(books);
            }
            if let Some(total) = books.ledger.in_pages.get(member as usize) {
                add(core::ptr::from_ref(total).cast(), pages as u64);
            }
        }
    }
}

/// Returns the pages that a thread counted and is adding to its mm's counter now, if it is: it sets
/// them to 0 after that (`sync_mm_rss`, mm/memory.c, 6.1).
#[inline(always)]
fn unsynced(task: Typed, member: u32) -> i64 {
    let counts = task.address() + u64::from(kernel::TASK_RSS_CACHE.load());
    i64::from(kernel::read_at::<i32>(counts + 4 * u64::from(member)))
}

#[inline(always)]
fn add_zapped(books: &Mm, path: Path, member: u32, pages: u64) {
    if let Some(counters) = books.ledger.paths.get(path.index())
        && let Some(total) = counters.zapped_pages.get(member as usize)
    {
        add(total, pages);
    }
}
