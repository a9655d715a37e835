//! The kernel's books as they are kept from one reading to the next: most processes have only one or two
//! paths by which anything left, and there may be thousands of them.

use memtrace_common::{COUNTERS, Counter, Ledger, Owner, PATHS, Path, PathCounters, Sum};

use super::Reading;

/// What left, by path. A path that nothing took is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByPath(Vec<(Path, LeftPages)>);

/// What left by a path, or by all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftPages {
    /// Operations that detached pages.
    pub operations: u64,
    /// Pages detached.
    pub zapped_pages: u64,
    /// Frames that the page allocator got back, late ones included.
    pub freed_frames: u64,
    /// Of them, those that came back after the operation.
    pub late_frames: u64,
}

impl LeftPages {
    /// Adds what left elsewhere.
    pub const fn add(&mut self, other: Self) {
        self.operations = self.operations.saturating_add(other.operations);
        self.zapped_pages = self.zapped_pages.saturating_add(other.zapped_pages);
        self.freed_frames = self.freed_frames.saturating_add(other.freed_frames);
        self.late_frames = self.late_frames.saturating_add(other.late_frames);
    }
}

impl ByPath {
    /// Takes what the kernel counted.
    pub fn new(paths: &[PathCounters; PATHS], operations: &[u64; PATHS]) -> Self {
        let gone = Path::ALL.into_iter().map(|path| {
            let counters = &paths[path.index()];
            let gone = LeftPages {
                operations: operations[path.index()],
                zapped_pages: counters.resident_pages(),
                freed_frames: counters.all_freed_frames(),
                late_frames: counters.late_frames,
            };
            (path, gone)
        });
        Self(gone.filter(|(_, gone)| *gone != LeftPages::default()).collect())
    }

    /// Adds what left elsewhere.
    pub fn add(&mut self, other: &Self) {
        for &(path, more) in &other.0 {
            match self.0.iter_mut().find(|(known, _)| *known == path) {
                Some((_, gone)) => gone.add(more),
                None => self.0.push((path, more)),
            }
        }
    }

    /// Returns what left by each path.
    pub fn iter(&self) -> impl Iterator<Item = (Path, LeftPages)> {
        self.0.iter().copied()
    }

    /// Returns what left by any path.
    pub fn total(&self) -> LeftPages {
        let mut total = LeftPages::default();
        self.0.iter().for_each(|(_, gone)| total.add(*gone));
        total
    }
}

/// An address space that lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Whose it is.
    pub owner: Owner,
    /// Pages that are there by its books.
    pub resident_pages: u64,
    /// What left it.
    pub left: ByPath,
}

/// Address spaces that ended, together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many they were.
    pub spaces: u64,
    /// What left them.
    pub left: ByPath,
}

impl Ended {
    /// Takes a sum that the kernel made.
    pub(super) fn take(&mut self, sum: &Sum) {
        let left = ByPath::new(&sum.paths, &sum.operations);
        self.add(&Self { spaces: sum.spaces, left });
    }

    /// Adds what ended elsewhere.
    pub(super) fn add(&mut self, other: &Self) {
        self.spaces = self.spaces.saturating_add(other.spaces);
        self.left.add(&other.left);
    }
}

impl Reading {
    /// Takes the books of an address space that lives.
    pub fn take_living(&mut self, owner: Owner, books: &Ledger, operations: &[u64; PATHS]) {
        let present: [i64; COUNTERS] = books.present_pages();
        let resident = [Counter::File, Counter::Anon, Counter::Shmem];
        let pages: i64 = resident.iter().map(|&counter| present[counter as usize]).sum();
        let resident_pages = u64::try_from(pages).unwrap_or(0);
        let left = ByPath::new(&books.paths, operations);
        self.spaces.push(Space { owner, resident_pages, left });
    }

    /// Takes the books of address spaces that were torn down: of one, or of several of a program.
    pub fn take_ended(&mut self, owner: Owner, sum: &Sum) {
        if sum.spaces > 0 {
            // What ended has no number any more.
            self.ended.entry(Owner { tgid: 0, ..owner }).or_default().take(sum);
        }
    }
}
