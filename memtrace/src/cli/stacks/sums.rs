//! Who gives pages up and who has page faults: the probes sum it by address space and call stack, for
//! every process that is traced; here the stacks get their names.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use memtrace_common::stacks::Origin;

use crate::{
    follow::Follower,
    model::{
        Model, SpaceId,
        build::stack_sums::{faulted_by, reclaimed_by},
        change::{Change, What},
        process::Process,
        report::{Frame, ProcessStacks},
        space::RegionKind,
    },
    source::{code::Code, loaded_files::loaded_files, symbols::Symbols},
};

/// What is summed.
pub(super) struct Sums {
    reclaimed: bool,
    faults: bool,
    /// Has the files of all processes, and no code.
    files: Code,
    /// Programs of which the files are known.
    programs: HashSet<PathBuf>,
    spaces: HashMap<SpaceId, Seen>,
    /// Which address space had an `mm_struct`, and since when, by its address.
    origins: HashMap<u64, Vec<(u64, SpaceId)>>,
}

/// Code of an address space.
struct Seen {
    code: Code,
    first: Instant,
    last: Instant,
}

/// How often the code of an address space is looked at that is not new any more.
const LOOK: Duration = Duration::from_secs(1);
/// How old it is when it is looked at for the second time; each time it waits twice as long.
const SECOND_LOOK: Duration = Duration::from_millis(10);
/// Address spaces whose code is looked at; of more, what the region map tells is known.
const MOST_SPACES: usize = 4_096;

impl Sums {
    pub(super) fn new(reclaimed: bool, faults: bool) -> Self {
        Self {
            reclaimed,
            faults,
            files: Code::default(),
            programs: HashSet::new(),
            spaces: HashMap::new(),
            origins: HashMap::new(),
        }
    }

    /// Notes a process that runs already.
    pub(super) fn seed(&mut self, model: &Model, tgid: u32) {
        if let Some(space) = model.process(tgid).and_then(Process::space)
            && let Some(mm) = model.mm(space)
        {
            self.begin(space, mm, 0);
            self.look(tgid, space);
        }
    }

    /// Keeps the files that a program will load.
    pub(super) fn expect(&mut self, program: &Path) {
        if self.programs.len() < MOST_SPACES && self.programs.insert(program.to_owned()) {
            self.files.expect(&loaded_files(program));
        }
    }

    /// Notes address spaces as they begin.
    pub(super) fn note(&mut self, model: &Model, change: &Change) {
        let tgid = match change.what {
            What::Exec { .. } => change.tgid,
            What::Fork { child, followed: true } => child,
            _ => return,
        };
        let Some(process) = model.process(tgid) else { return };
        if let Some(space) = process.space()
            && let Some(mm) = model.mm(space)
        {
            self.begin(space, mm, change.time_ns);
        }
        if let (What::Exec { .. }, Some(exe)) = (&change.what, &process.exe) {
            self.expect(Path::new(exe));
        }
    }

    fn begin(&mut self, space: SpaceId, mm: u64, time_ns: u64) {
        let had = self.origins.entry(mm).or_default();
        // `CLONE_VM` makes another process of the same one.
        if had.last().is_none_or(|&(_, last)| last != space) {
            had.push((time_ns, space));
        }
    }

    /// Looks at what the traced processes have loaded.
    pub(super) fn turn(&mut self, model: &Model) {
        let due: Vec<(u32, SpaceId)> = model
            .living()
            .filter_map(|process| Some((process.tgid, process.space()?)))
            .filter(|(_, space)| self.spaces.get(space).is_none_or(Seen::is_due))
            .collect();
        for (tgid, space) in due {
            self.look(tgid, space);
        }
    }

    fn look(&mut self, tgid: u32, space: SpaceId) {
        if self.spaces.len() >= MOST_SPACES && !self.spaces.contains_key(&space) {
            return;
        }
        let seen = self.seen(space);
        seen.last = Instant::now();
        // Its end is in the ring buffer.
        let _ = seen.code.look(tgid);
    }

    fn seen(&mut self, space: SpaceId) -> &mut Seen {
        let now = Instant::now();
        let new = || Seen { code: self.files.of_another(), first: now, last: now };
        self.spaces.entry(space).or_insert_with(new)
    }

    /// Returns what each process did, those that did nothing left out.
    pub(super) fn read(&mut self, follower: &Follower) -> Result<Vec<ProcessStacks>> {
        let (probes, model) = (follower.probes(), follower.model());
        let living: Vec<(u32, SpaceId)> =
            model.living().filter_map(|process| Some((process.tgid, process.space()?))).collect();
        for (tgid, space) in living {
            self.look(tgid, space);
        }
        let stacks = probes.call_stacks()?;
        let (reclaimers, faulters) = (probes.reclaimers()?, probes.faulters()?);
        // Address spaces by the number that the probes gave them.
        let mut spaces: HashMap<u64, SpaceId> = HashMap::new();
        let origins = reclaimers.iter().map(|(of, sum)| (of.space, sum.origin));
        for (number, origin) in
            origins.chain(faulters.iter().map(|(of, sum)| (of.space, sum.origin)))
        {
            if let Some(space) = self.at(origin) {
                spaces.entry(number).or_insert(space);
            }
        }
        let mut used: HashMap<u64, HashSet<u64>> = HashMap::new();
        let keys = reclaimers.iter().map(|(of, _)| (of.space, of.stack));
        for (number, stack) in keys.chain(faulters.iter().map(|(of, _)| (of.space, of.stack))) {
            used.entry(number).or_default().insert(stack);
        }
        let symbols = Symbols::default();
        let mut names: HashMap<(u64, u64), Vec<Frame>> = HashMap::new();
        for (&number, keys) in &used {
            let Some(&space) = spaces.get(&number) else { continue };
            let known: Vec<(u64, &[u64])> = keys
                .iter()
                .filter_map(|key| Some((*key, stacks.get(key)?.frames.as_slice())))
                .collect();
            let code = self.code(model, space);
            let named = symbols.name(code, known.iter().map(|(_, frames)| *frames));
            names.extend(known.iter().map(|(key, _)| (number, *key)).zip(named));
        }
        let frames =
            |number: u64, stack: u64| names.get(&(number, stack)).cloned().unwrap_or_default();
        let owners: HashMap<u64, usize> = spaces
            .iter()
            .filter_map(|(&number, &space)| Some((number, owner(model, space)?)))
            .collect();
        let mut sums: BTreeMap<usize, (Vec<_>, Vec<_>)> = BTreeMap::new();
        for row in reclaimers {
            if let Some(&at) = owners.get(&row.0.space) {
                sums.entry(at).or_default().0.push(row);
            }
        }
        for row in faulters {
            if let Some(&at) = owners.get(&row.0.space) {
                sums.entry(at).or_default().1.push(row);
            }
        }
        let summed = |(at, (gave_up, faulted)): (usize, (Vec<_>, Vec<_>))| ProcessStacks {
            tgid: model.processes()[at].tgid,
            reclaimed_by: self.reclaimed.then(|| reclaimed_by(model.evidence(), &gave_up, frames)),
            faulted_by: self.faults.then(|| faulted_by(&faulted, frames)),
            ..ProcessStacks::default()
        };
        Ok(sums.into_iter().map(summed).collect())
    }

    /// Returns the address space that had an `mm_struct` at a time.
    fn at(&self, origin: Origin) -> Option<SpaceId> {
        let had = self.origins.get(&origin.mm)?;
        let then = had.iter().rev().find(|&&(since_ns, _)| since_ns <= origin.time_ns);
        then.map(|&(_, space)| space)
    }

    /// Returns the code of an address space, with what its region map tells of it.
    fn code(&mut self, model: &Model, space: SpaceId) -> &Code {
        let seen = self.seen(space);
        let name = |vma: &_| model.region_name(vma, RegionKind::File).map(str::to_owned);
        seen.code.add(model.space(space).regions.iter(), name);
        &seen.code
    }
}

/// Returns the process, by its place, in whose report an address space is: the first that had it.
fn owner(model: &Model, space: SpaceId) -> Option<usize> {
    model.processes().iter().position(|process| process.spaces.contains(&space))
}

impl Seen {
    fn is_due(&self) -> bool {
        let age = self.last.duration_since(self.first).max(SECOND_LOOK / 2);
        self.last.elapsed() >= age.min(LOOK)
    }
}
