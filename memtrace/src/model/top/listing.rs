//! Every process in short, as the daemon tells it and others read it: `/api/v1/processes`.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Counting, Done, Id, Looked, Point, Process, Snapshot};
use crate::model::{
    machine::{Left, Row},
    names::{Name, interned, interned_keys},
    report::{Evidence, FreedNotReclaimed, Memory, ProcessReport},
};

/// Every process in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// Name and version of this layout.
    #[serde(deserialize_with = "interned")]
    pub schema: Name,
    /// When it was read, `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// Whether it is counted what leaves processes.
    pub counting: State,
    /// By PID.
    pub processes: Vec<Short>,
}

/// [`Listing::schema`] of this build.
const SCHEMA: Name = "memtrace.processes/1";

/// Whether it is counted what leaves processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// The probes are being attached.
    Starting,
    /// It is.
    On {
        /// What the figures rest on.
        evidence: Evidence,
        /// Address spaces that could not be counted since the table was full.
        untracked: u64,
    },
    /// It is not.
    Off {
        /// Why.
        why: String,
    },
}

/// A process in short; what is not known is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Short {
    /// What users call its PID.
    pub tgid: u32,
    /// When it started, `CLOCK_BOOTTIME`.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
    /// Path of its cgroup.
    pub cgroup: Option<String>,
    /// Resident bytes.
    pub resident: Option<u64>,
    /// Page faults a second.
    pub faults_per_s: Option<u64>,
    /// Bytes a second that the kernel gets back.
    pub reclaimed_per_s: Option<u64>,
    /// When it was walked.
    pub looked_ns: Option<u64>,
    /// Why it could not be.
    pub not_looked: Option<String>,
    /// Resident and not known to be free.
    pub live: Option<u64>,
    /// Given up and still there.
    pub freed_not_reclaimed: Option<FreedNotReclaimed>,
    /// What left it since counting began, by path.
    #[serde(deserialize_with = "left")]
    pub left: Option<BTreeMap<Name, Left>>,
}

fn left<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<BTreeMap<Name, Left>>, D::Error> {
    #[derive(Deserialize)]
    struct ByPath(#[serde(deserialize_with = "interned_keys")] BTreeMap<Name, Left>);
    Ok(Option::<ByPath>::deserialize(from)?.map(|ByPath(left)| left))
}

impl Listing {
    /// Returns what is told of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let counting = match &snapshot.counting {
            Counting::Starting => State::Starting,
            &Counting::On { evidence, untracked } => State::On { evidence, untracked },
            Counting::Off(why) => State::Off { why: why.clone() },
        };
        let processes = snapshot.processes.iter().map(Short::of).collect();
        Self { schema: SCHEMA, time_ns: snapshot.time_ns, counting, processes }
    }

    /// Returns the snapshot of which this tells.
    pub fn snapshot(self, interval_ns: u64) -> Snapshot {
        let counting = match self.counting {
            State::Starting => Counting::Starting,
            State::On { evidence, untracked } => Counting::On { evidence, untracked },
            State::Off { why } => Counting::Off(why),
        };
        let processes = self.processes.into_iter().map(Short::process).collect();
        Snapshot { time_ns: self.time_ns, interval_ns, processes, counting, ..Snapshot::default() }
    }
}

impl Short {
    fn of(process: &Process) -> Self {
        let memory = process.report().map(|report| &report.memory);
        Self {
            tgid: process.id.tgid,
            start_time: process.id.start_ns,
            comm: process.comm.clone(),
            cgroup: process.cgroup.as_deref().map(str::to_owned),
            resident: process.resident,
            faults_per_s: process.faults_per_s,
            reclaimed_per_s: process.reclaimed_per_s,
            looked_ns: process.looked.as_ref().map(|looked| looked.at_ns),
            not_looked: process.looked.as_ref().and_then(|looked| looked.why_not.clone()),
            live: memory.and_then(|memory| memory.live),
            freed_not_reclaimed: memory.map(|memory| memory.freed_not_reclaimed.clone()),
            left: process.left.as_ref().map(|row| row.by_path.clone()),
        }
    }

    /// Returns the process, of whose walk the sums alone are known.
    fn process(self) -> Process {
        let Self { tgid, comm, resident, live, not_looked, .. } = self;
        let report = self.freed_not_reclaimed.map(|freed_not_reclaimed| {
            let memory = Memory { resident, live, freed_not_reclaimed, ..Memory::default() };
            Arc::new(ProcessReport { tgid, comm: comm.clone(), memory, ..ProcessReport::default() })
        });
        let looked = self.looked_ns.map(|at_ns| {
            let history = report.iter().filter_map(|report| Point::of(at_ns, report)).collect();
            Looked { at_ns, report, why_not: not_looked, history, ..Looked::default() }
        });
        let left = self.left.map(|by_path| Row { tgid: Some(tgid), by_path, ..Row::default() });
        Process {
            id: Id { tgid, start_ns: self.start_time },
            comm,
            cgroup: self.cgroup.map(Arc::from),
            resident,
            faults_per_s: self.faults_per_s,
            reclaimed_per_s: self.reclaimed_per_s,
            done: Done { resident: resident.unwrap_or(0), ..Done::default() },
            left: left.map(Arc::new),
            looked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(counting: Counting) -> Snapshot {
        let freed_not_reclaimed =
            FreedNotReclaimed { total: Some(30), allocator: Some(20), lazy_free: Some(10) };
        let memory = Memory { live: Some(70), freed_not_reclaimed, ..Memory::default() };
        let report = ProcessReport { memory, ..ProcessReport::default() };
        let left = Left { operations: 1, zapped: 4096, freed: Some(4096), ..Left::default() };
        let row = Row { tgid: Some(1), by_path: [("munmap", left)].into(), ..Row::default() };
        let walked = Process {
            id: Id { tgid: 1, start_ns: 5 },
            comm: "one".to_owned(),
            cgroup: Some("/a".into()),
            resident: Some(100),
            faults_per_s: Some(3),
            reclaimed_per_s: Some(9),
            left: Some(row.into()),
            looked: Some(Looked { at_ns: 8, report: Some(report.into()), ..Looked::default() }),
            ..Process::default()
        };
        let why_not = Some("it may not".to_owned());
        let denied = Process {
            id: Id { tgid: 2, start_ns: 6 },
            looked: Some(Looked { at_ns: 8, why_not, ..Looked::default() }),
            ..Process::default()
        };
        let new = Process { id: Id { tgid: 3, start_ns: 7 }, ..Process::default() };
        let processes = vec![walked, denied, new];
        Snapshot { time_ns: 9, processes, counting, ..Snapshot::default() }
    }

    #[test]
    fn what_is_read_is_what_was_told() {
        for counting in [
            Counting::Starting,
            Counting::On { evidence: Evidence::Rss, untracked: 4 },
            Counting::Off("no right".to_owned()),
        ] {
            let told = Listing::of(&snapshot(counting.clone()));
            let text = serde_json::to_string(&told).expect("JSON");
            let read: Listing = serde_json::from_str(&text).expect("a listing");
            assert_eq!(read, told);
            let again = read.snapshot(1);
            assert_eq!((again.time_ns, &again.counting), (9, &counting));
            assert_eq!(Listing::of(&again), told);
            let point = Point { at_ns: 8, live: 70, free: 20, lazy_free: 10 };
            assert_eq!(again.processes[0].looked.as_ref().map(|l| l.history[0]), Some(point));
        }
    }

    #[test]
    fn what_a_newer_daemon_tells_is_read() {
        let text = r#"{"schema":"memtrace.processes/1","time_ns":1,"counting":{"state":"starting"},
            "processes":[{"tgid":7,"new":1}],"more":[]}"#;
        let read: Listing = serde_json::from_str(text).expect("a listing");
        assert_eq!(read.processes, [Short { tgid: 7, ..Short::default() }]);
    }
}
