//! What the programs of an evidence level may ask of the kernel.
//!
//! `--evidence args` takes the arguments of calls and nothing else, and runs on every kernel that has
//! a ring buffer (5.8). Its programs therefore do without what is newer: atomic operations that
//! return a value (5.12), the typed current task (5.11), its registers (5.15).

use aya_ebpf::{helpers::generated::bpf_get_current_task, macros::map, maps::HashMap};
use memtrace_common::Record;

use crate::{
    books, emit,
    kernel::{self, Typed},
    stacks::Entry,
};

/// A level of evidence, as far as it decides how a probe does its work.
pub(crate) trait Evidence {
    /// Returns the current task's address space.
    fn current_mm() -> u64;

    /// Follows an address space that fork or exec built for a task.
    fn adopt(mm: u64, task: Typed);

    /// Notes that a fork made `child` of `parent`, which may be the same.
    fn born(parent: u64, child: u64);

    /// Tells whether an address space is followed.
    fn follows(mm: u64) -> bool;

    /// Returns the number of an address space that is followed and runs: no other one has had it.
    fn number(mm: u64) -> Option<u64>;

    /// Returns where the system call was made that the current task is in, as far as programs may see
    /// it.
    fn entry() -> Entry;

    /// Writes a record that `fill` makes, or counts it as dropped.
    fn emit_with<R: Record + 'static>(fill: impl FnOnce(*mut R));

    /// Writes `record`, or counts it as dropped.
    #[inline(always)]
    fn emit<R: Record + 'static>(record: R) {
        Self::emit_with(emit::whole(record));
    }
}

/// `--evidence rss` and `frames`: pages are counted, in the books of each address space.
pub(crate) enum Counted {}

impl Evidence for Counted {
    #[inline(always)]
    fn current_mm() -> u64 {
        Typed::current().load(&kernel::TASK_MM)
    }

    #[inline(always)]
    fn adopt(mm: u64, task: Typed) {
        books::adopt(mm);
        if kernel::MACHINE.load() == 1 {
            books::own(mm, task);
        }
    }

    #[inline(always)]
    fn born(parent: u64, child: u64) {
        if parent != child {
            books::born(parent, child);
        }
    }

    #[inline(always)]
    fn follows(mm: u64) -> bool {
        books::followed(mm).is_some()
    }

    #[inline(always)]
    fn number(mm: u64) -> Option<u64> {
        let books = books::followed(mm)?;
        // SAFETY: a live map value.
        unsafe { (*books).running() }
    }

    #[inline(always)]
    fn entry() -> Entry {
        // SAFETY: the verifier knows the task's `pt_regs`.
        unsafe { Entry::by_call(kernel::user_regs()) }
    }

    #[inline(always)]
    fn emit_with<R: Record + 'static>(fill: impl FnOnce(*mut R)) {
        emit::emit_with(fill);
    }
}

/// `--evidence args`: nothing is counted.
pub(crate) enum Args {}

/// Address spaces that are followed without books, and since when, which numbers them.
#[map]
static SPACES: HashMap<u64, u64> = HashMap::with_max_entries(8_192, 0);

impl Evidence for Args {
    #[inline(always)]
    fn current_mm() -> u64 {
        // SAFETY: the helper takes no argument and always returns a task.
        kernel::read(unsafe { bpf_get_current_task() }, &kernel::TASK_MM)
    }

    #[inline(always)]
    fn adopt(mm: u64, _task: Typed) {
        Self::follow(mm);
    }

    #[inline(always)]
    fn born(_parent: u64, _child: u64) {}

    #[inline(always)]
    fn follows(mm: u64) -> bool {
        SPACES.get_ptr(mm).is_some()
    }

    #[inline(always)]
    fn number(mm: u64) -> Option<u64> {
        // SAFETY: a copy of a value that is written whole.
        unsafe { SPACES.get(mm) }.copied()
    }

    #[inline(always)]
    fn entry() -> Entry {
        Entry::UNKNOWN
    }

    #[inline(always)]
    fn emit_with<R: Record + 'static>(fill: impl FnOnce(*mut R)) {
        emit::emit_unnumbered(fill);
    }
}

impl Args {
    /// Begins to follow an address space, or counts that there is no room.
    #[inline(always)]
    pub(crate) fn follow(mm: u64) -> bool {
        let inserted = SPACES.insert(mm, kernel::now_ns(), 0).is_ok();
        if !inserted {
            emit::untracked();
        }
        inserted
    }

    /// Ends the life of an address space.
    #[inline(always)]
    pub(crate) fn bury(mm: u64) {
        let _ = SPACES.remove(mm);
    }
}
