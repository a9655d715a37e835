//! Makes the rows of the report: the books summed by process, program and cgroup.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use memtrace_common::{COUNTERS, Counter, Owner, PATHS, Path, PathCounters};

use super::{Left, MachineReport, MachineSurroundings, Reading, Row, SCHEMA, Space};
use crate::model::{change::path_name, region_map::PAGE, report::Evidence, text};

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
    surroundings: MachineSurroundings<'_>,
) -> MachineReport {
    let MachineSurroundings { host, window, top, cgroups } = surroundings;
    let view = View { reading, before, evidence: window.evidence, top };
    let cgroup = |owner: &Owner| cgroups.get(&owner.cgroup).cloned();
    let programs = view.rows(|owner, _| Some(owner.comm));
    let by_cgroup = view.rows(|owner, _| Some(owner.cgroup));
    let all = view.rows(|_, _| Some(()));
    MachineReport {
        schema: SCHEMA,
        host,
        window,
        all: all.into_iter().next().map(|(_, row)| row).unwrap_or_default(),
        processes: view
            .processes()
            .map(|(owner, row)| Row { cgroup: cgroup(&owner), ..row })
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

/// Makes the rows of all processes that live, without their cgroups.
pub fn process_rows(reading: &Reading, before: &Reading, evidence: Evidence) -> Vec<Row> {
    let view = View { reading, before, evidence, top: usize::MAX };
    view.processes().map(|(_, row)| row).collect()
}

/// Two readings, and how rows are made of them.
struct View<'a> {
    reading: &'a Reading,
    before: &'a Reading,
    evidence: Evidence,
    top: usize,
}

impl View<'_> {
    /// Returns the rows of processes.
    fn processes(&self) -> impl Iterator<Item = (Owner, Row)> {
        // What ended has no number any more.
        let rows = self.rows(|owner, ended| (!ended && owner.tgid != 0).then_some(owner.tgid));
        rows.into_iter()
            .map(|(owner, row)| (owner, Row { tgid: Some(owner.tgid), comm: comm(&owner), ..row }))
    }

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

fn comm(owner: &Owner) -> Option<String> {
    Some(text(&owner.comm)).filter(|comm| !comm.is_empty())
}

const fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE)
}
