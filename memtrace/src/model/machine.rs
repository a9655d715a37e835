//! The whole machine: what left every process, by process, program and cgroup. Pure: readings of the
//! kernel's books in, a report out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use memtrace_common::{COUNTERS, Counter, Ledger, Owner, PATHS, Path, PathCounters, Sum};
use serde::Serialize;

use super::{
    change::path_name,
    region_map::PAGE,
    report::{Evidence, Host},
    text,
};

/// What the kernel's books say at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Address spaces that live, or ended lately.
    pub spaces: Vec<Space>,
    /// Those that ended before, by program and cgroup.
    pub ended: HashMap<Owner, Sum>,
    /// Address spaces that could not be counted since the table was full.
    pub untracked: u64,
}

/// One address space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Whose it is.
    pub owner: Owner,
    /// It was torn down.
    pub ended: bool,
    /// Its books.
    pub ledger: Ledger,
    /// Operations that detached pages, by [`Path`].
    pub operations: [u64; PATHS],
}

/// What left every process of the machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MachineReport {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Where it was measured.
    pub host: Host,
    /// When, and how completely.
    pub window: MachineWindow,
    /// The sum of all.
    pub all: Row,
    /// Living processes, those that freed most in the last interval first.
    pub processes: Vec<Row>,
    /// Programs, by name: what lives and what ended.
    pub programs: Vec<Row>,
    /// Cgroups: what lives and what ended.
    pub cgroups: Vec<Row>,
}

/// [`MachineReport::schema`] of this build.
pub const SCHEMA: &str = "memtrace.ledger/1";

/// The time in which was counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineWindow {
    /// What the figures rest on.
    pub evidence: Evidence,
    /// When counting began, `CLOCK_BOOTTIME`.
    pub start_ns: u64,
    /// When the interval began.
    pub interval_ns: u64,
    /// When the interval ended.
    pub end_ns: u64,
    /// Address spaces that could not be counted since the table was full.
    pub untracked: u64,
    /// Every address space was counted.
    pub complete: bool,
}

/// What left a process, or several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Process id; only of a process.
    pub tgid: Option<u32>,
    /// Name of the process or program; `None` for what is summed over several.
    pub comm: Option<String>,
    /// Path of the cgroup; `None` when it is not known, or there are several.
    pub cgroup: Option<String>,
    /// Address spaces that live.
    pub living: u64,
    /// Address spaces that ended, by exec or exit.
    pub ended: u64,
    /// Resident in those that live, bytes, to a few pages a CPU.
    pub resident: u64,
    /// Bytes detached since the last reading.
    pub zapped_lately: u64,
    /// Bytes that the page allocator got back since the last reading; `None` when not counted.
    pub freed_lately: Option<u64>,
    /// What left since counting began.
    pub total: Left,
    /// The same by path; a path that nothing took is absent.
    pub by_path: BTreeMap<&'static str, Left>,
}

/// What left, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Operations that detached pages. Reclaim is not counted in operations.
    pub operations: u64,
    /// Detached.
    pub zapped: u64,
    /// Freed, late ones included; like the next two `None` when frames are not counted.
    pub freed: Option<u64>,
    /// Of `freed`, what came back after the operation.
    pub late: Option<u64>,
    /// Detached and not freed.
    pub kept: Option<u64>,
}

/// What a report of the machine needs beside the readings.
#[derive(Clone, Debug)]
pub struct MachineSurroundings {
    /// The machine.
    pub host: Host,
    /// When, and how completely.
    pub window: MachineWindow,
    /// So many rows of each kind at most.
    pub top: usize,
    /// Paths of cgroups, by number.
    pub cgroups: HashMap<u64, String>,
}

/// The books of one process, program or cgroup.
#[derive(Clone, Default)]
struct Books {
    owner: Owner,
    living: u64,
    ended: u64,
    resident_pages: u64,
    paths: [PathCounters; PATHS],
    operations: [u64; PATHS],
}

impl Books {
    fn add(&mut self, paths: &[PathCounters; PATHS], operations: &[u64; PATHS]) {
        for (sum, more) in self.paths.iter_mut().zip(paths) {
            sum.add(more);
        }
        for (sum, more) in self.operations.iter_mut().zip(operations) {
            *sum = sum.saturating_add(*more);
        }
    }

    fn add_space(&mut self, space: &Space) {
        self.add(&space.ledger.paths, &space.operations);
        self.living += u64::from(!space.ended);
        self.ended += u64::from(space.ended);
        if !space.ended {
            let present: [i64; COUNTERS] = space.ledger.present_pages();
            let resident = [Counter::File, Counter::Anon, Counter::Shmem];
            let pages: i64 = resident.iter().map(|&counter| present[counter as usize]).sum();
            let pages = u64::try_from(pages).unwrap_or(0);
            self.resident_pages = self.resident_pages.saturating_add(pages);
        }
    }

    /// Returns the pages detached and the frames freed, by any path.
    fn totals(&self) -> (u64, u64) {
        let zapped = self.paths.iter().map(PathCounters::resident_pages);
        let freed = self.paths.iter().map(PathCounters::all_freed_frames);
        (zapped.fold(0, u64::saturating_add), freed.fold(0, u64::saturating_add))
    }
}

/// Sums of a reading by a key; what `key` gives none for is left out.
fn sums<K: Hash + Eq>(
    reading: &Reading,
    key: impl Fn(&Owner, bool) -> Option<K>,
) -> HashMap<K, Books> {
    let mut sums: HashMap<K, Books> = HashMap::new();
    let mut of = |owner: &Owner, ended: bool, add: &dyn Fn(&mut Books)| {
        if let Some(key) = key(owner, ended) {
            let books = sums.entry(key).or_default();
            books.owner = *owner;
            add(books);
        }
    };
    for space in &reading.spaces {
        of(&space.owner, space.ended, &|books| books.add_space(space));
    }
    for (owner, sum) in &reading.ended {
        if sum.spaces > 0 {
            of(owner, true, &|books| {
                books.add(&sum.paths, &sum.operations);
                books.ended = books.ended.saturating_add(sum.spaces);
            });
        }
    }
    sums
}

/// Makes the report of a reading; what happened lately is what changed since the one `before`.
pub fn machine_report(
    reading: &Reading,
    before: &Reading,
    surroundings: MachineSurroundings,
) -> MachineReport {
    let MachineSurroundings { host, window, top, cgroups } = surroundings;
    let view = View { reading, before, evidence: window.evidence, top };
    let comm = |owner: &Owner| Some(text(&owner.comm)).filter(|comm| !comm.is_empty());
    let cgroup = |owner: &Owner| cgroups.get(&owner.cgroup).cloned();
    // What ended has no number any more.
    let processes = view.rows(|owner, ended| (!ended && owner.tgid != 0).then_some(owner.tgid));
    let programs = view.rows(|owner, _| Some(owner.comm));
    let by_cgroup = view.rows(|owner, _| Some(owner.cgroup));
    let all = view.rows(|_, _| Some(()));
    MachineReport {
        schema: SCHEMA,
        host,
        window,
        all: all.into_iter().next().map(|(_, row)| row).unwrap_or_default(),
        processes: processes
            .into_iter()
            .map(|(owner, row)| Row {
                tgid: Some(owner.tgid),
                comm: comm(&owner),
                cgroup: cgroup(&owner),
                ..row
            })
            .collect(),
        programs: programs
            .into_iter()
            .map(|(owner, row)| Row { comm: comm(&owner), ..row })
            .collect(),
        cgroups: by_cgroup
            .into_iter()
            .map(|(owner, row)| Row { cgroup: cgroup(&owner), ..row })
            .collect(),
    }
}

/// Two readings, and how rows are made of them.
struct View<'a> {
    reading: &'a Reading,
    before: &'a Reading,
    evidence: Evidence,
    top: usize,
}

impl View<'_> {
    /// Returns the rows by a key, those that freed most lately first, then those that ever did.
    fn rows<K: Hash + Eq>(&self, key: impl Fn(&Owner, bool) -> Option<K>) -> Vec<(Owner, Row)> {
        let mut before = sums(self.before, &key);
        let mut rows: Vec<(Owner, Row)> = sums(self.reading, &key)
            .into_iter()
            .map(|(key, books)| {
                let before = before.remove(&key).unwrap_or_default();
                (books.owner, self.row(&books, &before))
            })
            .collect();
        rows.sort_by_key(|(owner, row)| {
            let (lately, ever) = (row.freed_lately.unwrap_or(row.zapped_lately), row.total);
            let ever = ever.freed.unwrap_or(ever.zapped);
            Reverse((lately, ever, row.resident, owner.tgid))
        });
        rows.truncate(self.top);
        rows
    }

    fn row(&self, books: &Books, before: &Books) -> Row {
        let counted = |frames: u64| self.evidence.knows(Evidence::Frames, bytes(frames));
        let left = |operations, zapped: u64, freed: u64, late| Left {
            operations,
            zapped: bytes(zapped),
            freed: counted(freed),
            late: counted(late),
            kept: counted(zapped.saturating_sub(freed)),
        };
        let mut total = [0; 4];
        let mut by_path = BTreeMap::new();
        for path in Path::ALL {
            let counters = &books.paths[path.index()];
            let operations = books.operations[path.index()];
            let (zapped, freed) = (counters.resident_pages(), counters.all_freed_frames());
            let figures = [operations, zapped, freed, counters.late_frames];
            if figures == [0; 4] {
                continue;
            }
            by_path.insert(path_name(path), left(operations, zapped, freed, counters.late_frames));
            for (sum, figure) in total.iter_mut().zip(figures) {
                *sum = figure.saturating_add(*sum);
            }
        }
        let [operations, zapped, freed, late] = total;
        let (zapped_before, freed_before) = before.totals();
        Row {
            tgid: None,
            comm: None,
            cgroup: None,
            living: books.living,
            ended: books.ended,
            resident: bytes(books.resident_pages),
            // A number that was used again may have less.
            zapped_lately: bytes(zapped.saturating_sub(zapped_before)),
            freed_lately: counted(freed.saturating_sub(freed_before)),
            total: left(operations, zapped, freed, late),
            by_path,
        }
    }
}

const fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(comm: &str, cgroup: u64, tgid: u32) -> Owner {
        let mut owner = Owner { cgroup, tgid, ..Owner::default() };
        owner.comm[..comm.len()].copy_from_slice(comm.as_bytes());
        owner
    }

    fn paths(zapped: u64, freed: u64, late: u64) -> [PathCounters; PATHS] {
        let mut paths = [PathCounters::default(); PATHS];
        paths[Path::Munmap.index()] = PathCounters {
            // Entries of swap are no pages.
            zapped_pages: [0, zapped, 7, 0],
            freed_frames: freed,
            late_frames: late,
        };
        paths
    }

    fn space(owner: Owner, ended: bool, zapped: u64, freed: u64) -> Space {
        let mut ledger = Ledger { paths: paths(zapped, freed, 0), ..Ledger::default() };
        ledger.in_pages = [0, zapped as i64 + 5, 0, 0];
        let mut operations = [0; PATHS];
        operations[Path::Munmap.index()] = 2;
        Space { owner, ended, ledger, operations }
    }

    fn surroundings(evidence: Evidence, top: usize) -> MachineSurroundings {
        let window = MachineWindow {
            evidence,
            start_ns: 1,
            interval_ns: 2,
            end_ns: 3,
            untracked: 0,
            complete: true,
        };
        let cgroups = HashMap::from([(1, "/".to_owned()), (9, "/a.slice".to_owned())]);
        MachineSurroundings { host: Host::default(), window, top, cgroups }
    }

    #[test]
    fn what_ended_counts_for_its_program_and_cgroup_and_not_for_a_process() {
        let sum = Sum { spaces: 3, paths: paths(100, 60, 1), operations: [1; PATHS] };
        let reading = Reading {
            spaces: vec![
                space(owner("sh", 9, 7), false, 10, 8),
                space(owner("sh", 9, 7), true, 4, 4),
                space(owner("cat", 1, 8), false, 20, 20),
            ],
            ended: HashMap::from([(owner("sh", 1, 0), sum)]),
            untracked: 0,
        };
        let report =
            machine_report(&reading, &Reading::default(), surroundings(Evidence::Frames, 10));
        let name = |row: &Row| (row.tgid, row.comm.clone(), row.cgroup.clone());
        let found: Vec<_> = report.processes.iter().map(name).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [(Some(8), some("cat"), some("/")), (Some(7), some("sh"), some("/a.slice")),]
        );
        let sh = &report.programs[0];
        assert_eq!((name(sh), sh.living, sh.ended), ((None, some("sh"), None), 1, 4));
        let pages = |pages: u64| pages * PAGE;
        assert_eq!(
            sh.total,
            Left {
                operations: 2 + 2 + PATHS as u64,
                zapped: pages(114),
                freed: Some(pages(73)),
                late: Some(pages(1)),
                kept: Some(pages(41)),
            }
        );
        assert_eq!(sh.resident, pages(5));
        let found: Vec<_> =
            report.cgroups.iter().map(|row| (row.cgroup.clone(), row.total.zapped)).collect();
        assert_eq!(found, [(some("/"), pages(120)), (some("/a.slice"), pages(14))]);
        assert_eq!(
            (report.all.living, report.all.ended, report.all.total.zapped),
            (2, 4, pages(134))
        );
        assert_eq!(report.all.by_path.keys().count(), PATHS, "operations alone make a path");
    }

    #[test]
    fn lately_is_what_changed_since_the_reading_before() {
        let at = |sh: u64, cat: u64| Reading {
            spaces: vec![
                space(owner("sh", 1, 7), false, sh, sh),
                space(owner("cat", 1, 8), false, cat, cat),
            ],
            ..Reading::default()
        };
        let report = machine_report(&at(100, 30), &at(99, 10), surroundings(Evidence::Rss, 1));
        let [first] = report.processes.try_into().expect("one row");
        assert_eq!((first.tgid, first.zapped_lately), (Some(8), 20 * PAGE));
        assert_eq!((first.freed_lately, first.total.freed, first.total.kept), (None, None, None));
        assert_eq!(first.total.zapped, 30 * PAGE);
        // The number was used again.
        let report = machine_report(&at(1, 1), &at(99, 10), surroundings(Evidence::Frames, 1));
        assert_eq!(report.all.freed_lately, Some(0));
        let nothing = Reading::default();
        let report = machine_report(&nothing, &nothing, surroundings(Evidence::Frames, 1));
        assert_eq!((report.all, report.processes.len()), (Row::default(), 0));
    }
}
