//! The books of every process of the machine.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use aya::maps::{HashMap, Map, MapError, Queue};
use memtrace_common::{Owner, Sum};

use super::{
    attach::{Probes, Wire},
    iter::Scope,
    look::{Mm, on_each_cpu, read_iter},
};
use crate::model::machine::Reading;

impl Probes {
    /// Reads what every process of the machine has. Call it before anything is counted: what changes
    /// in between is booked with the next change.
    pub(super) fn seed_machine(&mut self) -> Result<()> {
        let fd = self.program_fd("seed_iter")?;
        on_each_cpu(&self.cpus, || read_iter(fd.as_fd(), Scope::Machine).map(drop))?;
        let map = self.bpf.map_mut("SUMS").context("the object has no map SUMS")?;
        let mut sums: Sums<_> = HashMap::try_from(map)?;
        sums.insert(Wire(Owner::default()), Wire(Sum::default()), 0)
            .context("cannot prepare the sums")?;
        // Those that began or ended in between were not seen from each CPU. Whoever lives is found
        // again by what it does.
        for slot in self.slots()? {
            let Mm { mm, state, .. } = self.books_at(slot)?;
            if mm != 0 && state == Mm::SEEDING {
                self.give_back(mm, slot).context("cannot tidy the table of address spaces")?;
            }
        }
        Ok(())
    }

    /// Has an address space found again, whose books nobody keeps yet.
    fn give_back(&mut self, mm: u64, slot: u32) -> Result<()> {
        let map = self.bpf.map_mut("MMS").context("the object has no map MMS")?;
        HashMap::<_, u64, u32>::try_from(map)?.remove(&mm)?;
        let map = self.bpf.map_mut("FREE_SLOTS").context("the object has no map FREE_SLOTS")?;
        Ok(Queue::<_, u32>::try_from(map)?.push(slot, 0)?)
    }

    /// Reads the books of every address space, and the sums of those that ended.
    pub fn machine(&self) -> Result<Reading> {
        let mut reading = Reading::default();
        for slot in self.slots()? {
            let Mm { mm, state, owner, ledger, operations, .. } = self.books_at(slot)?;
            if mm != 0 && state != Mm::SEEDING {
                if state == Mm::DEAD {
                    let one = Sum { spaces: 1, paths: ledger.paths, operations };
                    reading.take_ended(owner, &one);
                } else {
                    reading.take_living(owner, &ledger, &operations);
                }
            }
        }
        let map = self.bpf.map("SUMS").context("the object has no map SUMS")?;
        let sums: Sums<_> = HashMap::try_from(map)?;
        for entry in sums.iter().take(MOST_ENTRIES) {
            let (Wire(owner), Wire(sum)) = entry.context("cannot read the sums")?;
            reading.take_ended(owner, &sum);
        }
        reading.untracked = self.stats()?.untracked;
        Ok(reading)
    }

    /// Returns for how many programs and cgroups the table of those that ended has room.
    pub fn sums_room(&self) -> Result<usize> {
        let map = self.bpf.map("SUMS").context("the object has no map SUMS")?;
        let Map::HashMap(data) = map else { bail!("SUMS is no hash table") };
        Ok(data.info()?.max_entries() as usize)
    }

    /// Takes the sum of a program and cgroup out of the table. What ends at this very moment may be lost:
    /// take only what does not grow.
    pub fn take_sum(&mut self, owner: Owner) -> Result<Option<Sum>> {
        let map = self.bpf.map_mut("SUMS").context("the object has no map SUMS")?;
        let mut sums: Sums<_> = HashMap::try_from(map)?;
        let Wire(sum) = match sums.get(&Wire(owner), 0) {
            Ok(sum) => sum,
            // It is an address space that is not in the table yet.
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(error).context("cannot read a sum"),
        };
        sums.remove(&Wire(owner)).context("cannot take out a sum")?;
        Ok(Some(sum))
    }
}

/// What left address spaces that ended, by program and cgroup.
type Sums<T> = HashMap<T, Wire<Owner>, Wire<Sum>>;

/// A listing that starts over again and again, since what it came to was just removed, ends here.
const MOST_ENTRIES: usize = 65_536;
