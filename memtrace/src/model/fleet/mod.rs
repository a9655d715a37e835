//! What is told of a whole machine for as long as it runs: the processes and cgroups that matter most by
//! name, the others as one. Pure: snapshots in, figures out.
//!
//! However many processes come and go, the number of figures is bounded. What counts up never counts down,
//! not when a process leaves those that are told by name, nor when it ends: a process that executes another
//! program alone begins again at 0.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    machine::{Left, Row},
    top::{Id, Process, Snapshot},
};

/// How many are told by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processes, by each of: what they hold freed, resident size, what they gave back lately.
    pub processes: usize,
    /// Cgroups, by resident size.
    pub cgroups: usize,
}

/// What is told of a machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// When, `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// All of it.
    pub all: Figures,
    /// Processes that matter.
    pub processes: Vec<Named>,
    /// All other processes.
    pub others: Figures,
    /// Cgroups that matter, by path.
    pub cgroups: Vec<(String, Figures)>,
    /// All other cgroups.
    pub other_cgroups: Figures,
}

/// A process that is told by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Named {
    /// Which one.
    pub id: Id,
    /// Its name.
    pub comm: String,
    /// Path of its cgroup, when it is known.
    pub cgroup: Option<Arc<str>>,
    /// What is known of it.
    pub figures: Figures,
}

/// Figures of a process, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Processes that live.
    pub processes: u64,
    /// Of them, those whose heaps were walked: the next three are about these.
    pub walked: u64,
    /// Resident and not known to be free, bytes.
    pub live: u64,
    /// Freed and kept by allocators, bytes.
    pub allocator: u64,
    /// `MADV_FREE`d and not yet taken, bytes.
    pub lazy_free: u64,
    /// Resident bytes.
    pub resident: u64,
    /// What left since counting began, by path.
    pub left: BTreeMap<&'static str, Sums>,
}

/// What left by one path since counting began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Operations.
    pub operations: u64,
    /// Bytes detached.
    pub zapped: u64,
    /// Bytes that the page allocator got back; `None` where frames are not counted.
    pub freed: Option<u64>,
}

/// Makes the figures of one snapshot after the other.
#[derive(Debug)]
pub struct Teller {
    limits: Limits,
    processes: Counts<Id>,
    cgroups: Counts<String>,
    all: BTreeMap<&'static str, Sums>,
}

/// What those who are told by name, and the others, have counted.
#[derive(Debug)]
struct Counts<K> {
    /// As last told, of those that are told by name.
    named: HashMap<K, BTreeMap<&'static str, Sums>>,
    /// Of all others.
    others: BTreeMap<&'static str, Sums>,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { named: HashMap::new(), others: BTreeMap::new() }
    }
}

impl Teller {
    /// Nothing was told yet.
    pub fn new(limits: Limits) -> Self {
        let (processes, cgroups) = (Counts::default(), Counts::default());
        Self { limits, processes, cgroups, all: BTreeMap::new() }
    }

    /// Tells more or fewer by name from now on.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes what is known now.
    pub fn tell(&mut self, snapshot: &Snapshot) -> Fleet {
        let Snapshot { time_ns, processes, machine, .. } = snapshot;
        let sums = machine.as_ref().map(|machine| left(&machine.all)).unwrap_or_default();
        let grown = grown(&self.all, &sums);
        raise(&mut self.all, &grown);

        let chosen = choose(processes, self.limits.processes);
        let mut all = Figures { left: self.all.clone(), ..Figures::default() };
        let mut others = Figures::default();
        let (mut named, mut counted) = (Vec::new(), HashMap::new());
        for process in processes {
            let held = Figures::held(process);
            all.add_held(&held);
            if !chosen.contains(&process.id) {
                others.add_held(&held);
                continue;
            }
            let cgroup = process.cgroup.clone();
            let left = process.left.as_deref().map(left).unwrap_or_default();
            let figures = Figures { left, ..held };
            counted.insert(process.id, figures.left.clone());
            let comm = process.comm.clone();
            named.push(Named { id: process.id, comm, cgroup, figures });
        }
        others.left = self.processes.others(&grown, counted);

        let (cgroups, other_cgroups) = self.cgroups(snapshot, &grown);
        let (time_ns, processes) = (*time_ns, named);
        let mut fleet = Fleet { time_ns, all, processes, others, cgroups, other_cgroups };
        if machine.is_none() {
            // A sum that does not go on looks as if nothing left any more.
            let sums = [&mut fleet.all, &mut fleet.others, &mut fleet.other_cgroups];
            sums.into_iter().for_each(|figures| figures.left.clear());
        }
        fleet
    }

    fn cgroups(
        &mut self,
        snapshot: &Snapshot,
        grown: &BTreeMap<&'static str, Sums>,
    ) -> (Vec<(String, Figures)>, Figures) {
        let mut sums: HashMap<&str, Figures> = HashMap::new();
        for process in &snapshot.processes {
            if let Some(path) = process.cgroup.as_deref() {
                sums.entry(path).or_default().add_held(&Figures::held(process));
            }
        }
        for row in snapshot.machine.iter().flat_map(|machine| &machine.cgroups) {
            if let Some(path) = row.cgroup.as_deref() {
                sums.entry(path).or_default().left = left(row);
            }
        }
        let mut sorted: Vec<(&str, Figures)> = sums.into_iter().collect();
        sorted.sort_by_key(|(path, figures)| {
            (Reverse((figures.allocator + figures.lazy_free, figures.resident)), *path)
        });
        let rest = sorted.split_off(sorted.len().min(self.limits.cgroups));
        let mut others = Figures::default();
        rest.iter().for_each(|(_, figures)| others.add_held(figures));
        let counted =
            sorted.iter().map(|(path, figures)| ((*path).to_owned(), figures.left.clone()));
        others.left = self.cgroups.others(grown, counted.collect());
        (sorted.into_iter().map(|(path, figures)| (path.to_owned(), figures)).collect(), others)
    }
}

impl<K: std::hash::Hash + Eq> Counts<K> {
    /// Takes what everything together has grown by, and what those have that are told by name now.
    /// Returns what the others have: whatever of the growth is not that of somebody who was told before.
    fn others(
        &mut self,
        grown: &BTreeMap<&'static str, Sums>,
        named: HashMap<K, BTreeMap<&'static str, Sums>>,
    ) -> BTreeMap<&'static str, Sums> {
        let mut rest = grown.clone();
        for (key, left) in &named {
            let Some(before) = self.named.get(key) else { continue };
            for (path, more) in self::grown(before, left) {
                if let Some(rest) = rest.get_mut(path) {
                    *rest = rest.minus(more);
                }
            }
        }
        raise(&mut self.others, &rest);
        self.named = named;
        self.others.clone()
    }
}

impl Figures {
    /// What a process holds, without what left it.
    fn held(process: &Process) -> Self {
        let memory = process.report().map(|report| &report.memory);
        let freed = memory.map(|memory| &memory.freed_not_reclaimed);
        let known = |bytes: Option<Option<u64>>| bytes.flatten().unwrap_or(0);
        Self {
            processes: 1,
            walked: u64::from(memory.is_some()),
            live: known(memory.map(|memory| memory.live)),
            allocator: known(freed.map(|freed| freed.allocator)),
            lazy_free: known(freed.map(|freed| freed.lazy_free)),
            resident: process.resident.unwrap_or(0),
            left: BTreeMap::new(),
        }
    }

    /// Adds what others hold.
    fn add_held(&mut self, other: &Self) {
        let Self { processes, walked, live, allocator, lazy_free, resident, left: _ } = self;
        for (sum, more) in [
            (processes, other.processes),
            (walked, other.walked),
            (live, other.live),
            (allocator, other.allocator),
            (lazy_free, other.lazy_free),
            (resident, other.resident),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

impl Sums {
    fn minus(self, other: Self) -> Self {
        Self {
            operations: self.operations.saturating_sub(other.operations),
            zapped: self.zapped.saturating_sub(other.zapped),
            freed: self.freed.map(|freed| freed.saturating_sub(other.freed.unwrap_or(0))),
        }
    }

    fn plus(self, other: Self) -> Self {
        // What is not counted any more has no sum.
        let freed = self.freed.zip(other.freed).map(|(one, other)| one.saturating_add(other));
        Self {
            operations: self.operations.saturating_add(other.operations),
            zapped: self.zapped.saturating_add(other.zapped),
            freed,
        }
    }
}

/// Returns the processes that are told by name.
fn choose(processes: &[Process], most: usize) -> HashSet<Id> {
    let by: [fn(&Process) -> u64; 3] = [
        |process| process.freed_not_reclaimed().unwrap_or(0),
        |process| process.resident.unwrap_or(0),
        |process| process.reclaimed_per_s.unwrap_or(0),
    ];
    let mut chosen = HashSet::new();
    for figure in by {
        let ranked = processes.iter().map(|process| (Reverse(figure(process)), process.id));
        let mut ranked: Vec<_> = ranked.collect();
        if most < ranked.len() {
            ranked.select_nth_unstable(most);
        }
        chosen.extend(ranked.iter().take(most).map(|(_, id)| *id));
    }
    chosen
}

fn left(row: &Row) -> BTreeMap<&'static str, Sums> {
    let sums =
        |left: &Left| Sums { operations: left.operations, zapped: left.zapped, freed: left.freed };
    row.by_path.iter().map(|(&path, left)| (path, sums(left))).collect()
}

/// Returns by what figures have grown.
fn grown(
    before: &BTreeMap<&'static str, Sums>,
    now: &BTreeMap<&'static str, Sums>,
) -> BTreeMap<&'static str, Sums> {
    let growth = |path: &&'static str, sums: &Sums| {
        let before = before.get(*path).copied().unwrap_or_default();
        // A process that executed another program begins anew.
        let is_anew = sums.operations < before.operations || sums.zapped < before.zapped;
        if is_anew { *sums } else { sums.minus(before) }
    };
    now.iter().map(|(path, sums)| (*path, growth(path, sums))).collect()
}

fn raise(sums: &mut BTreeMap<&'static str, Sums>, by: &BTreeMap<&'static str, Sums>) {
    for (path, more) in by {
        let none = Sums { freed: more.freed.map(|_| 0), ..Sums::default() };
        let sum = sums.entry(path).or_insert(none);
        *sum = sum.plus(*more);
    }
}

#[cfg(test)]
mod tests;
