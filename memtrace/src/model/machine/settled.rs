//! What ended long ago. The kernel's table has room for so many programs and cgroups; a machine that runs for
//! months has more of them.

use std::collections::{HashMap, HashSet};

use memtrace_common::{Owner, Sum};

use super::{Ended, Reading};

/// Sums that are kept by program and cgroup.
const MOST: usize = 8_192;

/// Sums that were taken out of the kernel's table, since they did not grow any more.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    ended: HashMap<Owner, Ended>,
    /// How many had ended by the reading before.
    before: HashMap<Owner, u64>,
}

impl Settled {
    /// Returns which sums of the kernel's table, which has room for `room` of them, may be taken out:
    /// when it is half full, those that did not grow since the reading before.
    pub fn due(&mut self, ended: &HashMap<Owner, Ended>, room: usize) -> Vec<Owner> {
        if ended.len() <= room / 2 {
            self.before = HashMap::new();
            return Vec::new();
        }
        let is_due = |(owner, ended): &(&Owner, &Ended)| {
            // What finds no room needs a place.
            **owner != Owner::default() && self.before.get(owner) == Some(&ended.spaces)
        };
        let due = ended.iter().filter(is_due).map(|(owner, _)| *owner).collect();
        self.before = ended.iter().map(|(owner, ended)| (*owner, ended.spaces)).collect();
        due
    }

    /// Takes a sum that was in the kernel's table.
    pub fn take(&mut self, owner: Owner, sum: &Sum) {
        self.ended.entry(owner).or_default().take(sum);
    }

    /// Adds what was taken to a reading of the kernel's table.
    pub fn add_to(&self, reading: &mut Reading) {
        for (owner, ended) in &self.ended {
            reading.ended.entry(*owner).or_default().add(ended);
        }
    }

    /// Tells whether there are more sums than are kept one by one.
    pub fn is_full(&self) -> bool {
        self.ended.len() > MOST
    }

    /// Returns the cgroups of its sums.
    pub fn cgroups(&self) -> HashSet<u64> {
        self.ended.keys().map(|owner| owner.cgroup).collect()
    }

    /// Makes room: what ended in cgroups that are not there any more is of no cgroup from now on; if that is
    /// not enough, programs of which few ended have no name any more.
    pub fn make_room(&mut self, is_there: impl Fn(u64) -> bool) {
        self.rename(|owner| {
            let cgroup = if is_there(owner.cgroup) { owner.cgroup } else { 0 };
            Owner { cgroup, ..owner }
        });
        if self.is_full() {
            let mut owners: Vec<Owner> = self.ended.keys().copied().collect();
            owners.sort_unstable_by_key(|owner| (self.ended[owner].spaces, owner.comm));
            owners.truncate(owners.len() - MOST / 2);
            let few: HashSet<Owner> = owners.into_iter().collect();
            self.rename(|owner| match few.contains(&owner) {
                true => Owner { comm: [0; 16], ..owner },
                false => owner,
            });
        }
    }

    /// Sums anew by other names.
    fn rename(&mut self, name: impl Fn(Owner) -> Owner) {
        for (owner, ended) in std::mem::take(&mut self.ended) {
            self.ended.entry(name(owner)).or_default().add(&ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(comm: u32, cgroup: u64) -> Owner {
        let mut owner = Owner { cgroup, ..Owner::default() };
        owner.comm[..4].copy_from_slice(&comm.to_le_bytes());
        owner
    }

    fn reading(spaces: impl IntoIterator<Item = (Owner, u64)>) -> Reading {
        let mut reading = Reading::default();
        for (owner, spaces) in spaces {
            reading.take_ended(owner, &Sum { spaces, ..Sum::default() });
        }
        reading
    }

    fn ended(settled: &Settled) -> u64 {
        settled.ended.values().map(|ended| ended.spaces).sum()
    }

    #[test]
    fn what_did_not_grow_leaves_a_table_that_is_half_full() {
        let mut settled = Settled::default();
        let table =
            |growing| reading([(owner(1, 1), 5), (owner(2, 1), growing), (Owner::default(), 1)]);
        assert_eq!(settled.due(&table(1).ended, 6), []);
        assert_eq!(settled.due(&table(1).ended, 6), [], "it is not half full");
        assert_eq!(settled.due(&table(1).ended, 5), [], "nobody knows what grows");
        assert_eq!(settled.due(&table(2).ended, 5), [owner(1, 1)]);
        settled.take(owner(1, 1), &Sum { spaces: 5, ..Sum::default() });
        let mut later = reading([(owner(1, 1), 2), (owner(2, 1), 2)]);
        settled.add_to(&mut later);
        assert_eq!(later, reading([(owner(1, 1), 7), (owner(2, 1), 2)]));
    }

    #[test]
    fn cgroups_that_are_gone_make_room_first() {
        let mut settled = Settled::default();
        for number in 0..=MOST as u64 {
            settled.take(owner(number as u32 % 3, number), &Sum { spaces: 2, ..Sum::default() });
        }
        assert!(settled.is_full());
        assert_eq!(settled.cgroups().len(), MOST + 1);
        settled.make_room(|cgroup| cgroup < 10);
        // Those of ten cgroups, and three programs of none, of which one is in cgroup 0 already.
        assert_eq!(settled.ended.len(), 10 + 3 - 1);
        assert_eq!(ended(&settled), 2 * (MOST as u64 + 1));
    }

    #[test]
    fn programs_of_which_few_ended_lose_their_name_last() {
        let mut settled = Settled::default();
        for number in 0..=MOST as u32 {
            // Many are alike.
            let spaces = u64::from(number / 5_000) + 1;
            settled
                .take(owner(number + 1, u64::from(number % 2)), &Sum { spaces, ..Sum::default() });
        }
        let before = ended(&settled);
        settled.make_room(|_| true);
        assert_eq!(ended(&settled), before);
        assert!(settled.ended.contains_key(&owner(MOST as u32 + 1, 0)));
        assert!(!settled.ended.contains_key(&owner(1, 0)));
        let unnamed = [Owner::default(), Owner { cgroup: 1, ..Owner::default() }];
        assert!(unnamed.iter().all(|owner| settled.ended.contains_key(owner)));
        assert_eq!(settled.ended.len(), MOST / 2 + unnamed.len());
    }
}
