//! Who is followed and what is counted for them: the maps, and the only code that writes to them.
//!
//! An address space is followed by its mm, never by the current process: reclaim, `process_mrelease`
//! and the last `mmput` run anywhere.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, LruHashMap, LruPerCpuHashMap, PerCpuArray},
};
use memtrace_common::{COUNTERS, Ledger, Path, PathCounters};

use crate::{
    atomic, emit,
    kernel::{self, BLOCK_SHIFT, PAGE_SHIFT, Typed},
    percpu,
};

/// Processes that are traced, by tgid. Userspace adds the first ones.
#[map]
pub(crate) static TRACED: HashMap<u32, u32> = HashMap::with_max_entries(16_384, 0);

/// Address spaces that are followed, by address of their `mm_struct`.
#[map]
static MMS: HashMap<u64, Mm> = HashMap::with_max_entries(8_192, 0);

/// This CPU's share of an mm's counters when `rss_stat` last fired here.
#[map]
static SHARES: LruPerCpuHashMap<u64, Share> = LruPerCpuHashMap::with_max_entries(8_192, 0);

/// What each thread of a followed process is doing, by tid.
#[map]
static TASKS: LruHashMap<u32, Task> = LruHashMap::with_max_entries(16_384, 0);

/// Detached frames that per-CPU batches still hold, by block of linear page indices.
#[map]
static PENDING: LruHashMap<u64, Pending> = LruHashMap::with_max_entries(16_384, 0);

/// A zeroed [`Mm`], too large for the stack.
#[map]
static EMPTY_MM: PerCpuArray<Mm> = PerCpuArray::with_max_entries(1, 0);

/// An address space that is followed.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Mm {
    /// The books, as userspace reads them.
    pub(crate) ledger: Ledger,
    /// The shared part of each counter when it was last consumed.
    shared: [i64; COUNTERS],
    /// [`Mm::EMBRYO`], [`Mm::SEEDING`], [`Mm::LIVE`] or [`Mm::DEAD`].
    pub(crate) state: u32,
    /// CPUs whose shares were read while seeding.
    seeded: u32,
    /// The VMA that was stored last: its address, its range, and the write section.
    stored: [u64; 4],
}

impl Mm {
    /// Tells whether a VMA was stored already in this write section: one store fires the tracepoint
    /// on its way through the tree more than once.
    #[inline(always)]
    pub(crate) fn stores_again(&mut self, vma: u64, start: u64, end: u64) -> bool {
        let now = [vma, start, end, self.ledger.sections];
        let again = self.stored == now;
        self.stored = now;
        again
    }
}

impl Mm {
    /// Being built by fork or exec; nobody runs in it yet.
    pub(crate) const EMBRYO: u32 = 0;
    /// Being read for the first time: nothing is counted yet.
    pub(crate) const SEEDING: u32 = 1;
    /// Followed.
    pub(crate) const LIVE: u32 = 2;
    /// Torn down; late frames are still booked.
    pub(crate) const DEAD: u32 = 3;
}

/// One CPU's share of an mm's counters.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Share {
    /// The shares when last seen, pages.
    last: [i32; COUNTERS],
}

/// What a thread is doing that detaches pages.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Task {
    /// Number of the last write section that this thread entered.
    pub(crate) seq: u64,
    /// The address space that loses pages.
    pub(crate) mm: u64,
    /// System call number, or [`TEARDOWN`].
    nr: u64,
    /// Range of linear page indices that belongs to the operation.
    low: u64,
    high: u64,
    /// Resident pages detached so far, and those of them that were anonymous.
    pub(crate) zapped: u64,
    zapped_anon: u64,
    /// Frames freed so far, and those of them that were anonymous.
    pub(crate) freed: u64,
    freed_anon: u64,
    /// The frames freed last while tearing down: first index, index after the last, and how many.
    run_first: u64,
    run_end: u64,
    run_frames: u64,
    /// A [`Path`], raw.
    pub(crate) path: u16,
    /// 0 when idle, [`Task::ACTIVE`] or [`Task::ENDED`].
    state: u16,
    reserved: u32,
}

/// [`Task::nr`] of exec and exit.
const TEARDOWN: u64 = u64::MAX;

impl Task {
    const ACTIVE: u16 = 1;
    /// Returned to userspace, but task work may still free what the call detached.
    const ENDED: u16 = 2;
}

/// Frames that an operation detached and per-CPU batches still hold.
#[derive(Clone, Copy)]
#[repr(C)]
struct Pending {
    mm: u64,
    low: u64,
    high: u64,
    outstanding: i64,
    path: u64,
}

/// What the current system call does to pages, as its registers tell.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    nr: u64,
    path: Path,
    low: u64,
    high: u64,
}

impl Operation {
    /// Tears down a whole address space.
    const fn teardown(path: Path) -> Self {
        Self { nr: TEARDOWN, path, low: 0, high: u64::MAX }
    }

    /// Returns the operation of the system call that the current thread is in, if it is one that
    /// detaches pages by itself.
    #[inline(always)]
    fn current() -> Option<Self> {
        let regs = kernel::user_regs();
        // SAFETY: the verifier knows `regs` as the task's `pt_regs`.
        let (nr, first, second, third) =
            unsafe { ((*regs).orig_rax, (*regs).rdi, (*regs).rsi, (*regs).rdx) };
        let whole = |path| Some(Self { nr, path, low: 0, high: u64::MAX });
        let range = |path| {
            let low = first >> PAGE_SHIFT;
            Some(Self { nr, path, low, high: low + (second >> PAGE_SHIFT) + 1 })
        };
        match nr {
            kernel::nr::MUNMAP => range(Path::Munmap),
            // The old end is not among the arguments: everything above the new one.
            kernel::nr::BRK => {
                Some(Self { nr, path: Path::Brk, low: first >> PAGE_SHIFT, high: u64::MAX })
            }
            kernel::nr::MADVISE => match advice_path(third) {
                Path::Remove => whole(Path::Remove),
                path => range(path),
            },
            kernel::nr::MMAP => range(Path::Overmap),
            kernel::nr::MREMAP if third < second => {
                let low = (first + third) >> PAGE_SHIFT;
                let high = (first + second) >> PAGE_SHIFT;
                Some(Self { nr, path: Path::Mremap, low, high })
            }
            kernel::nr::MREMAP => whole(Path::Mremap),
            kernel::nr::SHMDT => whole(Path::Munmap),
            kernel::nr::FALLOCATE => whole(Path::Remove),
            // SAFETY: as above.
            kernel::nr::PROCESS_MADVISE => whole(advice_path(unsafe { (*regs).r10 })),
            kernel::nr::PROCESS_MRELEASE => whole(Path::Exit),
            _ => None,
        }
    }
}

#[inline(always)]
fn advice_path(advice: u64) -> Path {
    Path::of_advice(advice).unwrap_or(Path::Other)
}

/// Tells whether the current thread is inside `execve`.
#[inline(always)]
pub(crate) fn in_exec() -> bool {
    // SAFETY: the verifier knows the task's `pt_regs`.
    let nr = unsafe { (*kernel::user_regs()).orig_rax };
    nr == kernel::nr::EXECVE || nr == kernel::nr::EXECVEAT
}

/// Tells whether the current thread is inside `fork`, `vfork`, `clone` or `clone3`.
#[inline(always)]
pub(crate) fn in_fork() -> bool {
    // SAFETY: the verifier knows the task's `pt_regs`.
    let nr = unsafe { (*kernel::user_regs()).orig_rax };
    (kernel::nr::CLONE..=kernel::nr::VFORK).contains(&nr) || nr == kernel::nr::CLONE3
}

/// Returns the books of a followed address space that is not torn down.
#[inline(always)]
pub(crate) fn followed(mm: u64) -> Option<*mut Mm> {
    let books = MMS.get_ptr_mut(mm)?;
    // SAFETY: a live map value.
    (unsafe { (*books).state } != Mm::DEAD).then_some(books)
}

/// Begins to follow an address space, unless it is followed. Returns its books, or counts that
/// there is no room.
#[inline(always)]
pub(crate) fn track(mm: u64, state: u32) -> Option<*mut Mm> {
    if let Some(books) = followed(mm) {
        return Some(books);
    }
    let empty = EMPTY_MM.get_ptr_mut(0)?;
    // SAFETY: this CPU's zeroed value; a probe that interrupts us writes the same kind of value and
    // is done before we go on, and only `state` ever differs from zero.
    let empty = unsafe {
        (*empty).state = state;
        &*empty
    };
    let inserted = MMS.insert(mm, empty, 0);
    // Only a new element is zero on the other CPUs as well.
    let _ = SHARES.remove(mm);
    if inserted.is_err() || SHARES.insert(mm, Share::default(), 0).is_err() {
        emit::untracked();
    }
    followed(mm)
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
    unsafe { (*books).state = Mm::DEAD };
    let Some(next) = NEXT_GRAVE.get_ptr_mut(0) else { return };
    // SAFETY: a live map value that is only accessed atomically.
    let grave = unsafe { atomic::add(next, 1) } as u32 % GRAVE_COUNT;
    let Some(grave) = GRAVES.get_ptr_mut(grave) else { return };
    // SAFETY: a live map value; a lost race forgets one later.
    let old = unsafe { grave.replace(mm) };
    if let Some(books) = MMS.get_ptr(old)
        // SAFETY: a live map value.
        && unsafe { (*books).state } == Mm::DEAD
        && old != mm
    {
        let _ = MMS.remove(old);
        let _ = SHARES.remove(old);
    }
}

/// Reads this CPU's share of a living address space; call it once on each CPU, before counting.
#[inline(always)]
pub(crate) fn seed(mm: Typed) -> bool {
    let key = mm.address();
    let Some(books) = track(key, Mm::SEEDING) else { return false };
    // SAFETY: a live map value; nobody else writes while it is being seeded.
    let books = unsafe { &mut *books };
    if books.state != Mm::SEEDING {
        return true;
    }
    for member in 0..COUNTERS {
        if kernel::RSS_HAS_COUNT.load() == 1 {
            // 6.1's verifier does not know the way into an array of atomics.
            let at = mm.address() + u64::from(kernel::MM_RSS.load()) + 8 * member as u64;
            books.shared[member] = kernel::read_at(at);
            books.ledger.base_pages[member] = books.shared[member];
            continue;
        }
        let Some(share) = SHARES.get_ptr_mut(key) else { return false };
        // SAFETY: this CPU's live map value.
        let share = unsafe { &mut *share };
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

/// Reads one percpu counter of an mm: its shared part and this CPU's share
/// (lib/percpu_counter.c, 6.2 to 7.3).
#[inline(always)]
fn counter(mm: Typed, member: u32) -> Option<(i64, i32)> {
    let at = kernel::MM_RSS.load() + member * kernel::PERCPU_SIZE.load();
    let shared = mm.load_at::<i64>(at + kernel::PERCPU_COUNT.load());
    let shares = mm.load_at::<u64>(at + kernel::PERCPU_COUNTERS.load());
    Some((shared, kernel::read_at(shares.wrapping_add(percpu::offset()?))))
}

/// Returns by how many pages a counter of `mm` changed, given that `rss_stat` just fired for it.
///
/// The sum over all calls is exact. Where another CPU folds its share into the shared part at the
/// same moment, a call may be given pages of that CPU, which then reports as many fewer.
#[inline(always)]
pub(crate) fn counter_change(mm: Typed, books: &Mm, member: u32, count: i64) -> i64 {
    let Some(seen) = books.shared.get(member as usize) else { return 0 };
    // SAFETY: a live, aligned map value that is only accessed atomically once it is live.
    let consume = |now| now - unsafe { atomic::swap(core::ptr::from_ref(seen).cast_mut(), now) };
    if kernel::RSS_HAS_COUNT.load() == 1 {
        return consume(count);
    }
    let Some(share) = SHARES.get_ptr_mut(mm.address()) else { return 0 };
    // SAFETY: this CPU's live map value.
    let share = unsafe { &mut *share };
    // The verifier takes constant offsets only.
    let counter = match member {
        0 => counter(mm, 0),
        1 => counter(mm, 1),
        2 => counter(mm, 2),
        _ => counter(mm, 3),
    };
    let Some((shared, local)) = counter else { return 0 };
    let Some(last) = share.last.get_mut(member as usize) else { return 0 };
    let change = i64::from(local - *last);
    *last = local;
    // A share becomes 0 when it is folded into the shared part, seldom otherwise.
    if local != 0 {
        return change;
    }
    change + consume(shared)
}

/// Books a change of `pages` in a counter of a followed address space.
#[inline(always)]
pub(crate) fn book(mm: Typed, books: &Mm, member: u32, pages: i64) {
    let key = mm.address();
    let task = Typed::current();
    let own = task.load::<u64>(&kernel::TASK_MM) == key;
    let operation = if mm.load::<u32>(&kernel::MM_USERS) == 0 {
        Some(Operation::teardown(if in_exec() { Path::Exec } else { Path::Exit }))
    } else if pages > 0 {
        None
    } else if task.load::<u32>(&kernel::TASK_FLAGS) & kernel::PF_MEMALLOC != 0 {
        add_zapped(books, Path::Pressure, member, pages.unsigned_abs());
        return;
    } else if own {
        Operation::current()
    } else {
        // Somebody else's operation on this address space.
        let path = Operation::current().map_or(Path::Other, |operation| operation.path);
        add_zapped(books, path, member, pages.unsigned_abs());
        return;
    };
    match operation {
        Some(operation) if pages < 0 => {
            let pages = pages.unsigned_abs();
            add_zapped(books, operation.path, member, pages);
            let is_swap = member == memtrace_common::Counter::Swap as u32;
            if let Some(task) = begin(key, operation)
                && !is_swap
            {
                task.zapped += pages;
                if member == memtrace_common::Counter::Anon as u32 {
                    task.zapped_anon += pages;
                }
            }
        }
        // A fault: what copy-on-write exchanges cancels out.
        _ => {
            if let Some(total) = books.ledger.in_pages.get(member as usize) {
                add(core::ptr::from_ref(total).cast(), pages as u64);
            }
        }
    }
}

#[inline(always)]
fn add_zapped(books: &Mm, path: Path, member: u32, pages: u64) {
    if let Some(counters) = books.ledger.paths.get(path.index())
        && let Some(total) = counters.zapped_pages.get(member as usize)
    {
        add(total, pages);
    }
}

/// Returns what left a followed address space by a path, given as it stands in a record. (A bounds
/// check, not a table of paths: the verifier must see the limit.)
#[inline(always)]
fn path_counters(mm: u64, path: u64) -> Option<&'static PathCounters> {
    let books = MMS.get_ptr(mm)?;
    // SAFETY: a live map value.
    unsafe { (*books).ledger.paths.get(path as usize) }
}

/// Adds to a counter of the books.
#[inline(always)]
fn add(counter: *const u64, amount: u64) {
    // SAFETY: the callers pass a live, aligned map value that is only written atomically.
    unsafe { atomic::add(counter.cast_mut(), amount) };
}

/// Returns the current thread's entry, made if missing.
#[inline(always)]
pub(crate) fn task() -> Option<&'static mut Task> {
    let tid = kernel::tid();
    if TASKS.get_ptr(tid).is_none() {
        let _ = TASKS.insert(tid, Task::default(), u64::from(BPF_NOEXIST));
    }
    known_task()
}

/// Returns the current thread's entry, if it has one.
#[inline(always)]
pub(crate) fn known_task() -> Option<&'static mut Task> {
    let task = TASKS.get_ptr_mut(kernel::tid())?;
    // SAFETY: a live map value that only this thread writes to.
    Some(unsafe { &mut *task })
}

/// Returns the current thread's entry with `operation` under way on `mm`.
#[inline(always)]
fn begin(mm: u64, operation: Operation) -> Option<&'static mut Task> {
    let task = task()?;
    let Operation { nr, path, low, high } = operation;
    if task.state != Task::ACTIVE || task.nr != nr || task.mm != mm {
        let seq = task.seq;
        *task = Task { seq, mm, nr, low, high, ..Task::default() };
        task.path = path as u16;
        task.state = Task::ACTIVE;
    }
    Some(task)
}

/// Ends the current thread's operation as system call `nr` returns, and returns its figures.
#[inline(always)]
pub(crate) fn end(task: &mut Task, nr: u64) -> Option<(u16, u64, u64)> {
    if task.state != Task::ACTIVE || task.nr != nr {
        return None;
    }
    task.state = Task::ENDED;
    let has_range = task.low != 0 || task.high != u64::MAX;
    if has_range && task.zapped_anon > task.freed_anon {
        remember_pending(task);
    }
    Some((task.path, task.zapped, task.freed))
}

/// Ends the teardown of `mm`, if it is the current thread's.
#[inline(always)]
pub(crate) fn end_teardown(mm: u64) {
    if let Some(task) = known_task()
        && task.nr == TEARDOWN
        && task.mm == mm
        && task.state == Task::ACTIVE
    {
        flush_run(task);
        task.state = Task::ENDED;
    }
}

/// Blocks of one operation whose late frames are recognized.
const PENDING_BLOCKS: u64 = 64;

/// Notes the range in which detached anonymous frames wait in a per-CPU batch.
#[inline(always)]
fn remember_pending(task: &Task) {
    let pending = Pending {
        mm: task.mm,
        low: task.low,
        high: task.high,
        outstanding: (task.zapped_anon - task.freed_anon) as i64,
        path: u64::from(task.path),
    };
    let first = task.low >> BLOCK_SHIFT;
    for block in 0..PENDING_BLOCKS {
        let block = first + block;
        if block << BLOCK_SHIFT >= task.high {
            break;
        }
        if let Some(known) = PENDING.get_ptr_mut(block) {
            // SAFETY: a live map value; a lost race costs the lateness of a few frames.
            let known = unsafe { &mut *known };
            if known.mm == pending.mm && known.path == pending.path && known.outstanding > 0 {
                known.low = known.low.min(pending.low);
                known.high = known.high.max(pending.high);
                known.outstanding += pending.outstanding;
                continue;
            }
        }
        let _ = PENDING.insert(block, pending, 0);
    }
}

/// Books `frames` that the page allocator got back; `index` is their linear page index.
#[inline(always)]
pub(crate) fn book_freed(anon: bool, index: u64, frames: u64) {
    let Some(task) = known_task() else {
        if anon && !detaches_itself() {
            book_late(index, frames);
        }
        return;
    };
    match task.state {
        Task::ACTIVE => {
            let in_range = task.low <= index && index < task.high;
            if anon && !in_range && book_late(index, frames) {
                return;
            }
            let removes = task.path == Path::Remove as u16;
            if task.freed + frames > task.zapped && !removes {
                return;
            }
            task.freed += frames;
            if anon {
                task.freed_anon += frames;
                if task.nr == TEARDOWN {
                    note_run(task, index, frames);
                }
            }
            if let Some(counters) = path_counters(task.mm, u64::from(task.path)) {
                add(&counters.freed_frames, frames);
            }
        }
        // The last reference to shared memory goes in task work, after the call.
        Task::ENDED if !anon => {
            // SAFETY: the verifier knows the task's `pt_regs`.
            let nr = unsafe { (*kernel::user_regs()).orig_rax };
            if (task.nr == nr || task.nr == TEARDOWN) && task.freed + frames <= task.zapped {
                task.freed += frames;
                add_late(task.mm, u64::from(task.path), frames);
            }
        }
        _ => {
            if anon && !detaches_itself() {
                book_late(index, frames);
            }
        }
    }
}

/// Tells whether the current task is giving up pages of its own. What it frees then is not late,
/// even if it shared it with one that gave it up before.
#[inline(always)]
fn detaches_itself() -> bool {
    let exits = Typed::current().load::<u32>(&kernel::TASK_FLAGS) & kernel::PF_EXITING != 0;
    exits || in_exec() || Operation::current().is_some()
}

/// Books frames that came back out of a per-CPU batch. Returns false when no operation waits for
/// them.
#[inline(always)]
fn book_late(index: u64, frames: u64) -> bool {
    let Some(pending) = PENDING.get_ptr_mut(index >> BLOCK_SHIFT) else { return false };
    // SAFETY: a live map value; a lost race costs the lateness of a few frames.
    let pending = unsafe { &mut *pending };
    if index < pending.low || index >= pending.high || pending.outstanding < frames as i64 {
        return false;
    }
    pending.outstanding -= frames as i64;
    add_late(pending.mm, pending.path, frames);
    true
}

#[inline(always)]
fn add_late(mm: u64, path: u64, frames: u64) {
    if let Some(counters) = path_counters(mm, path) {
        add(&counters.late_frames, frames);
    }
}

/// Holes of fewer pages do not end a run of frames.
const RUN_HOLE: u64 = 16;

/// Collects neighbouring frames while an address space is torn down.
#[inline(always)]
fn note_run(task: &mut Task, index: u64, frames: u64) {
    if index < task.run_end || index - task.run_end > RUN_HOLE {
        flush_run(task);
        task.run_first = index;
    }
    task.run_end = index + frames;
    task.run_frames += frames;
}

#[inline(always)]
fn flush_run(task: &mut Task) {
    if task.run_frames > 0 {
        let pages = task.run_end - task.run_first;
        emit::teardown_run(task.mm, task.run_first, pages, task.run_frames);
        task.run_frames = 0;
    }
}

/// Opens a write section of an address space: all changes of its map in it carry this number.
#[inline(always)]
pub(crate) fn open_section(books: *mut Mm) -> u64 {
    // SAFETY: a live map value; the mm's lock is held for writing, so nobody else is here.
    unsafe { atomic::add(&raw mut (*books).ledger.sections, 1) + 1 }
}

/// Makes an address space that fork or exec built a followed one.
#[inline(always)]
pub(crate) fn adopt(mm: u64) {
    if let Some(books) = track(mm, Mm::LIVE) {
        // SAFETY: a live map value, and its process does not run yet.
        unsafe { (*books).state = Mm::LIVE };
    }
}
