//! Which processes are to be recorded without being asked for: rules about what is known of each. Pure:
//! snapshots in, processes out.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use super::top::{Id, Process, Snapshot};

/// What has to be the case, for how long, and what is done then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is looked at.
    pub figure: Figure,
    /// It has to be above this: bytes, or what happens a second.
    pub above: u64,
    /// For so long.
    pub lasts_ns: u64,
    /// Then the process is recorded for so long.
    pub record_ns: u64,
    /// Names of the processes that it is about; all where none is named.
    pub only: Vec<String>,
}

/// A figure of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// What it freed and still has, bytes, as its last walk found it.
    FreedNotReclaimed,
    /// Resident bytes.
    Resident,
    /// Bytes a second that the kernel gets back of it.
    ReclaimedPerSecond,
    /// Page faults a second.
    FaultsPerSecond,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::FreedNotReclaimed, Self::Resident, Self::ReclaimedPerSecond, Self::FaultsPerSecond];

    /// Returns its name, which is the one in `/api/v1/processes`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FreedNotReclaimed => "freed_not_reclaimed",
            Self::Resident => "resident",
            Self::ReclaimedPerSecond => "reclaimed_per_s",
            Self::FaultsPerSecond => "faults_per_s",
        }
    }

    fn of(self, process: &Process) -> Option<u64> {
        match self {
            Self::FreedNotReclaimed => process.freed_not_reclaimed(),
            Self::Resident => process.resident,
            Self::ReclaimedPerSecond => process.reclaimed_per_s,
            Self::FaultsPerSecond => process.faults_per_s,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.figure.name(), self.above)
    }
}

impl Rule {
    fn is_met(&self, process: &Process) -> bool {
        let is_about = self.only.is_empty() || self.only.contains(&process.comm);
        is_about && self.figure.of(process).is_some_and(|value| value > self.above)
    }
}

/// A process and the rule that is met, by its place.
type Key = (usize, Id);

/// Rules, and since when each is met.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// Since when.
    met: HashMap<Key, u64>,
    /// What was done about: not again before the rule was not met in between.
    done: HashSet<Key>,
}

impl Rules {
    /// Follows other rules from now on.
    pub fn set(&mut self, rules: Vec<Rule>) {
        if rules != self.rules {
            *self = Self { rules, ..Self::default() };
        }
    }

    /// Takes what is known now, and returns which processes are to be recorded by which rule; again each
    /// time, until it is [`done`](Self::done).
    pub fn due(&mut self, snapshot: &Snapshot) -> Vec<(Id, &Rule)> {
        let now = snapshot.time_ns;
        let mut met = HashMap::new();
        for (at, rule) in self.rules.iter().enumerate() {
            for process in snapshot.processes.iter().filter(|process| rule.is_met(process)) {
                let key = (at, process.id);
                met.insert(key, self.met.get(&key).copied().unwrap_or(now));
            }
        }
        self.done.retain(|key| met.contains_key(key));
        self.met = met;
        let is_due = |(&(at, id), &since_ns): (&Key, &u64)| {
            let has_lasted = now.saturating_sub(since_ns) >= self.rules[at].lasts_ns;
            let is_due = has_lasted && !self.done.contains(&(at, id));
            is_due.then_some((at, id))
        };
        let mut due: Vec<Key> = self.met.iter().filter_map(is_due).collect();
        due.sort_unstable();
        due.into_iter().map(|(at, id)| (id, &self.rules[at])).collect()
    }

    /// Notes that a process is being recorded, by whichever rule: one recording is enough for all.
    pub fn done(&mut self, id: Id) {
        self.done.extend(self.met.keys().filter(|(_, met)| *met == id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NONE: [u32; 0] = [];

    fn rule(above: u64, only: &[&str]) -> Rule {
        Rule {
            figure: Figure::Resident,
            above,
            lasts_ns: 60 * SECOND,
            record_ns: 30 * SECOND,
            only: only.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn at(second: u64, resident: &[(u32, u64)]) -> Snapshot {
        let process = |&(tgid, resident): &(u32, u64)| Process {
            id: Id { tgid, start_ns: 1 },
            comm: format!("p{tgid}"),
            resident: Some(resident),
            ..Process::default()
        };
        let processes = resident.iter().map(process).collect();
        Snapshot { time_ns: second * SECOND, processes, ..Snapshot::default() }
    }

    fn due(rules: &mut Rules, snapshot: &Snapshot) -> Vec<u32> {
        rules.due(snapshot).into_iter().map(|(id, _)| id.tgid).collect()
    }

    #[test]
    fn a_rule_has_to_be_met_all_the_time() {
        let mut rules = Rules::default();
        rules.set(vec![rule(100, &[])]);
        assert_eq!(due(&mut rules, &at(0, &[(1, 101), (2, 101), (3, 100)])), NONE);
        assert_eq!(due(&mut rules, &at(30, &[(1, 101), (2, 99), (3, 100)])), NONE);
        assert_eq!(due(&mut rules, &at(59, &[(1, 200), (2, 101), (3, 100)])), NONE);
        assert_eq!(due(&mut rules, &at(60, &[(1, 200), (2, 101), (3, 100)])), [1]);
        assert_eq!(due(&mut rules, &at(119, &[(1, 200), (2, 101), (3, 100)])), [1, 2]);
    }

    #[test]
    fn what_was_done_is_done_again_only_after_it_was_not_met() {
        let mut rules = Rules::default();
        rules.set(vec![rule(100, &[]), rule(50, &[])]);
        due(&mut rules, &at(0, &[(1, 200)]));
        assert_eq!(due(&mut rules, &at(60, &[(1, 200)])), [1, 1], "by two rules");
        rules.done(Id { tgid: 1, start_ns: 1 });
        assert_eq!(due(&mut rules, &at(70, &[(1, 200)])), NONE);
        assert_eq!(due(&mut rules, &at(80, &[(1, 60)])), NONE);
        assert_eq!(due(&mut rules, &at(90, &[(1, 200)])), NONE);
        assert_eq!(due(&mut rules, &at(150, &[(1, 200)])), [1], "only the one that was not met");
    }

    #[test]
    fn a_rule_is_about_the_processes_that_it_names() {
        let mut rules = Rules::default();
        rules.set(vec![rule(100, &["p2"])]);
        due(&mut rules, &at(0, &[(1, 200), (2, 200)]));
        assert_eq!(due(&mut rules, &at(60, &[(1, 200), (2, 200)])), [2]);
    }

    #[test]
    fn what_is_not_known_meets_no_rule() {
        let mut rules = Rules::default();
        let freed = Rule { figure: Figure::FreedNotReclaimed, above: 0, ..rule(0, &[]) };
        rules.set(vec![Rule { lasts_ns: 0, ..freed }]);
        assert_eq!(due(&mut rules, &at(0, &[(1, 200)])), NONE);
    }

    #[test]
    fn a_process_that_ends_is_forgotten() {
        let mut rules = Rules::default();
        rules.set(vec![rule(100, &[])]);
        due(&mut rules, &at(0, &[(1, 200)]));
        due(&mut rules, &at(60, &[]));
        assert!(rules.met.is_empty() && rules.done.is_empty());
    }

    #[test]
    fn the_same_rules_go_on_when_they_are_read_again() {
        let mut rules = Rules::default();
        rules.set(vec![rule(100, &[])]);
        due(&mut rules, &at(0, &[(1, 200)]));
        rules.set(vec![rule(100, &[])]);
        assert_eq!(due(&mut rules, &at(60, &[(1, 200)])), [1]);
        rules.set(vec![rule(101, &[])]);
        assert_eq!(due(&mut rules, &at(70, &[(1, 200)])), NONE);
    }
}
