//! Makes the rows of the report: the books summed by process, program and cgroup.

use std::{cmp::Reverse, collections::HashMap, hash::Hash, sync::Arc};

use memtrace_common::Owner;

use super::{
    ByPath, Left, LeftPages, MachineReport, MachineSurroundings, Reading, Row, SCHEMA, Top,
};
use crate::model::{change::path_name, region_map::PAGE, report::Evidence, text};

/// The books of one process, program or cgroup.
#[derive(Clone, Default)]
struct Books {
    owner: Owner,
    living: u64,
    ended: u64,
    resident_pages: u64,
    left: ByPath,
    /// What left by the reading before, by any path.
    before: LeftPages,
}

/// Makes the report of a reading; what happened lately is what changed since the one `before`.
pub fn machine_report(
    reading: &Reading,
    before: &Reading,
    surroundings: MachineSurroundings<'_>,
) -> MachineReport {
    let MachineSurroundings { host, window, top, cgroups } = surroundings;
    let view = View { reading, before, evidence: window.evidence };
    let Top { processes, programs, cgroups: most_cgroups } = top;
    let cgroup = |owner: &Owner| cgroups.get(&owner.cgroup).cloned();
    let all = view.rows(1, |_, _| Some(()), |_| Row::default());
    MachineReport {
        schema: SCHEMA,
        host,
        all: all.into_iter().next().map(Arc::unwrap_or_clone).unwrap_or_default(),
        processes: view.processes(processes, cgroup),
        programs: view.rows(
            programs,
            |owner, _| Some(owner.comm),
            |owner| Row { comm: comm(owner), ..Row::default() },
        ),
        cgroups: view.rows(
            most_cgroups,
            |owner, _| Some(owner.cgroup),
            |owner| Row { cgroup: cgroup(owner), ..Row::default() },
        ),
        window,
    }
}

/// Makes the rows of all processes that live, without their cgroups.
pub fn process_rows(reading: &Reading, before: &Reading, evidence: Evidence) -> Vec<Arc<Row>> {
    View { reading, before, evidence }.processes(usize::MAX, |_| None)
}

/// Two readings, and how rows are made of them.
struct View<'a> {
    reading: &'a Reading,
    before: &'a Reading,
    evidence: Evidence,
}

impl View<'_> {
    /// Returns the rows of processes.
    fn processes(&self, most: usize, cgroup: impl Fn(&Owner) -> Option<String>) -> Vec<Arc<Row>> {
        self.rows(
            most,
            |owner, ended| (!ended && owner.tgid != 0).then_some(owner.tgid),
            |owner| Row {
                tgid: Some(owner.tgid),
                comm: comm(owner),
                cgroup: cgroup(owner),
                ..Row::default()
            },
        )
    }

    /// Returns so many rows at most by a key, which is of whose it is and whether it ended (what has none is left
    /// out): those that freed most lately first, then those that ever did. `name` names them.
    fn rows<K: Hash + Eq>(
        &self,
        most: usize,
        key: impl Fn(&Owner, bool) -> Option<K>,
        name: impl Fn(&Owner) -> Row,
    ) -> Vec<Arc<Row>> {
        if most == 0 {
            return Vec::new();
        }
        let mut books: Vec<Books> = self.sums(key);
        let counts_frames = self.evidence == Evidence::Frames;
        books.sort_by_cached_key(|books| {
            let (total, before) = (books.left.total(), books.before);
            let of =
                |gone: LeftPages| if counts_frames { gone.freed_frames } else { gone.zapped_pages };
            // A number that was used again may have less.
            let lately = of(total).saturating_sub(of(before));
            Reverse((lately, of(total), books.resident_pages, books.owner.tgid))
        });
        books.truncate(most);
        let named = |books| Arc::new(self.row(&books, name(&books.owner)));
        books.into_iter().map(named).collect()
    }

    /// Sums both readings by a key.
    fn sums<K: Hash + Eq>(&self, key: impl Fn(&Owner, bool) -> Option<K>) -> Vec<Books> {
        let mut books: Vec<Books> = Vec::new();
        let mut places: HashMap<K, usize> = HashMap::new();
        let mut place = |books: &mut Vec<Books>, owner: &Owner, ended| {
            let place = *places.entry(key(owner, ended)?).or_insert(books.len());
            if place == books.len() {
                books.push(Books::default());
            }
            books[place].owner = *owner;
            Some(place)
        };
        for space in &self.reading.spaces {
            if let Some(at) = place(&mut books, &space.owner, false) {
                let books = &mut books[at];
                books.living += 1;
                books.resident_pages = books.resident_pages.saturating_add(space.resident_pages);
                books.left.add(&space.left);
            }
        }
        for (owner, ended) in &self.reading.ended {
            if let Some(at) = place(&mut books, owner, true) {
                books[at].ended = books[at].ended.saturating_add(ended.spaces);
                books[at].left.add(&ended.left);
            }
        }
        let living = self.before.spaces.iter().map(|space| (&space.owner, false, &space.left));
        let ended = self.before.ended.iter().map(|(owner, ended)| (owner, true, &ended.left));
        for (owner, ended, left) in living.chain(ended) {
            let place = key(owner, ended).and_then(|key| places.get(&key));
            if let Some(&at) = place {
                books[at].before.add(left.total());
            }
        }
        books
    }

    /// Makes a row; `named` says of whom it is.
    fn row(&self, books: &Books, named: Row) -> Row {
        let counted = |frames: u64| self.evidence.knows(Evidence::Frames, bytes(frames));
        let left = |gone: LeftPages| Left {
            operations: gone.operations,
            zapped: bytes(gone.zapped_pages),
            freed: counted(gone.freed_frames),
            late: counted(gone.late_frames),
            kept: counted(gone.zapped_pages.saturating_sub(gone.freed_frames)),
        };
        let (total, before) = (books.left.total(), books.before);
        Row {
            living: books.living,
            ended: books.ended,
            resident: bytes(books.resident_pages),
            zapped_lately: bytes(total.zapped_pages.saturating_sub(before.zapped_pages)),
            freed_lately: counted(total.freed_frames.saturating_sub(before.freed_frames)),
            total: left(total),
            by_path: books.left.iter().map(|(path, gone)| (path_name(path), left(gone))).collect(),
            ..named
        }
    }
}

fn comm(owner: &Owner) -> Option<String> {
    Some(text(&owner.comm)).filter(|comm| !comm.is_empty())
}

const fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE)
}
