//! The whole machine (`memtrace ledger`): every address space is followed from the first page that
//! comes or goes, nothing is sent, and those that ended are summed up.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap},
};
use memtrace_common::{COUNTERS, Owner, PATHS, PathCounters, Sum, control::NO_FIELD};

use super::{Mm, add, entry, followed, operation::Task, pages, spaces::find, take};
use crate::kernel::{self, Typed};

/// What left address spaces that ended, by program and cgroup. Userspace adds [`REST`].
#[map]
static SUMS: HashMap<Owner, Sum> = HashMap::with_max_entries(4_096, 0);

/// For what finds no room.
const REST: Owner = Owner { comm: [0; 16], cgroup: 0, tgid: 0, reserved: 0 };

/// A zeroed [`Sum`], too large for the stack.
#[map]
static NO_SUM: Array<Sum> = Array::with_max_entries(1, 0);

/// Begins to follow an address space of which an event came first: fork or exec builds it, or it was
/// not there when the others were looked at. Pages that it has are not seen coming.
#[inline(always)]
pub(crate) fn discover(mm: Typed) -> Option<*mut Mm> {
    let books = take(mm.address(), Mm::LIVE)?;
    if kernel::RSS_HAS_COUNT.load() == 0 {
        for member in 0..COUNTERS {
            if let Some((shared, _)) = pages::counter(mm, member as u32) {
                // SAFETY: a live map value; a lost race costs what another CPU saw just now.
                unsafe {
                    (*books).shared[member] = shared;
                    (*books).ledger.base_pages[member] = shared;
                }
            }
        }
    }
    let task = Typed::current();
    if task.load::<u64>(&kernel::TASK_MM) == mm.address() {
        own(mm.address(), task);
    }
    Some(books)
}

/// Notes whose an address space is.
#[inline(always)]
pub(crate) fn own(mm: u64, task: Typed) {
    let Some(books) = followed(mm) else { return };
    let leader: u64 = task.load(&kernel::TASK_LEADER);
    let set: u64 = kernel::read(task.address(), &kernel::TASK_CGROUPS);
    let cgroup: u64 = if kernel::SET_STATE.load() == NO_FIELD {
        kernel::read(set, &kernel::SET_CGROUP)
    } else {
        kernel::read(kernel::read(set, &kernel::SET_STATE), &kernel::STATE_CGROUP)
    };
    let node: u64 = kernel::read(cgroup, &kernel::CGROUP_NODE);
    let owner = Owner {
        comm: kernel::read(leader, &kernel::TASK_COMM),
        cgroup: kernel::read(node, &kernel::NODE_ID),
        tgid: task.load(&kernel::TASK_TGID),
        reserved: 0,
    };
    // SAFETY: a live map value; nobody depends on it but for its name.
    unsafe { (*books).owner = owner };
}

/// Counts an operation that detached pages.
#[inline(always)]
pub(super) fn count(task: &Task) {
    if kernel::MACHINE.load() == 0 || task.zapped == 0 {
        return;
    }
    let Some(books) = find(task.mm) else { return };
    // SAFETY: a live map value that is only written atomically.
    if let Some(total) = unsafe { &(*books).operations }.get(usize::from(task.path)) {
        add(total, 1);
    }
}

/// 64-bit counters of all paths.
const WORDS: usize = PATHS * size_of::<PathCounters>() / size_of::<u64>();

/// Adds the books of an address space that ended to those of its program and cgroup.
#[inline(always)]
pub(super) fn fold(books: &Mm) {
    if kernel::MACHINE.load() == 0 {
        return;
    }
    let key = Owner { tgid: 0, ..books.owner };
    let insert = |none: &Sum| _ = SUMS.insert(key, none, u64::from(BPF_NOEXIST));
    let known = entry(&NO_SUM, || SUMS.get_ptr_mut(key), insert);
    let Some(sum) = known.or_else(|| SUMS.get_ptr_mut(REST)) else { return };
    // SAFETY: a live map value that is only written atomically.
    let sum = unsafe { &*sum };
    add(&sum.spaces, 1);
    let from: *const u64 = (&raw const books.ledger.paths).cast();
    let to: *const u64 = (&raw const sum.paths).cast();
    for word in 0..WORDS {
        // SAFETY: both are arrays of so many 64-bit counters.
        unsafe { add(to.wrapping_add(word), *from.add(word)) };
    }
    for path in 0..PATHS {
        add(&sum.operations[path], books.operations[path]);
    }
}
