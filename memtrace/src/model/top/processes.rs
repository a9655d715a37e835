//! Keeps what is known of each process from one reading to the next.

use std::{collections::HashMap, sync::Arc};

use super::{
    Counting, Course, Done, Id, Looked, Point, ProbeTimes, Process, Reading, Snapshot, Walks,
};
use crate::model::{
    machine::{MachineReport, Row},
    report::ProcessReport,
};

/// What a walk found, or why there was none.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// The process.
    pub id: Id,
    /// When.
    pub at_ns: u64,
    /// CPU time that it took.
    pub cost_ns: u64,
    /// What was found, or why nothing.
    pub result: Result<ProcessReport, String>,
}

/// All processes.
#[derive(Debug, Default)]
pub struct Processes {
    read_ns: u64,
    /// By PID.
    shown: Vec<Process>,
    /// Of those that were walked.
    courses: HashMap<Id, Course>,
    counting: Counting,
    machine: Option<Arc<MachineReport>>,
    walks: Walks,
    probes: Arc<ProbeTimes>,
}

impl Processes {
    /// Takes what was read of every process at one moment; those that are not among it are gone.
    pub fn read(&mut self, time_ns: u64, mut readings: Vec<Reading>) {
        let passed_ns = time_ns.saturating_sub(self.read_ns);
        readings.sort_unstable_by_key(|reading| reading.id);
        let mut shown = Vec::with_capacity(readings.len());
        let mut before = std::mem::take(&mut self.shown).into_iter().peekable();
        for Reading { id, comm, resident, cpu_ns, faults, cgroup } in readings {
            while before.next_if(|process| process.id < id).is_some() {}
            let known = before.next_if(|process| process.id == id);
            let faults_per_s = known
                .as_ref()
                .map(|known| per_second(faults.saturating_sub(known.done.faults), passed_ns));
            let done = Done { cpu_ns, faults, resident: resident.unwrap_or(0) };
            let known = known.unwrap_or_default();
            shown.push(Process { id, comm, cgroup, resident, faults_per_s, done, ..known });
        }
        self.courses.retain(|id, _| find(&shown, *id).is_some());
        (self.shown, self.read_ns) = (shown, time_ns);
    }

    /// Takes what the kernel counted since it was asked before.
    pub fn count(&mut self, passed_ns: u64, counting: Counting, rows: &[Arc<Row>]) {
        let rows: HashMap<Option<u32>, &Arc<Row>> =
            rows.iter().map(|row| (row.tgid, row)).collect();
        for process in &mut self.shown {
            process.left = rows.get(&Some(process.id.tgid)).copied().cloned();
            process.reclaimed_per_s = process
                .left
                .as_ref()
                .map(|row| per_second(row.freed_lately.unwrap_or(row.zapped_lately), passed_ns));
        }
        self.counting = counting;
    }

    /// Takes what left every process since counting began.
    pub fn count_machine(&mut self, machine: MachineReport) {
        self.machine = Some(Arc::new(machine));
    }

    /// Says that nothing is counted, and why.
    pub fn count_nothing(&mut self, why: String) {
        for process in &mut self.shown {
            (process.left, process.reclaimed_per_s) = (None, None);
        }
        self.machine = None;
        self.counting = Counting::Off(why);
    }

    /// Takes how long the probes ran.
    pub fn time_probes(&mut self, times: ProbeTimes) {
        self.probes = Arc::new(times);
    }

    /// Takes what a walk found. A process that is gone meanwhile is forgotten already.
    pub fn look(&mut self, look: Look) {
        let Look { id, at_ns, cost_ns, result } = look;
        self.walks.cost_ns = self.walks.cost_ns.saturating_add(cost_ns);
        self.walks.times += 1;
        self.walks.failed += u64::from(result.is_err());
        let Some(at) = find(&self.shown, id) else { return };
        let process = &mut self.shown[at];
        let course = self.courses.entry(id).or_default();
        let (report, why_not) = match result {
            Ok(report) => {
                course.take(Point::of(at_ns, &report));
                (Some(Arc::new(report)), None)
            }
            Err(why_not) => (None, Some(why_not)),
        };
        let history = course.points();
        let done = process.done;
        process.looked = Some(Looked { at_ns, cost_ns, done, report, why_not, history });
    }

    /// Returns all processes, by PID.
    pub fn all(&self) -> &[Process] {
        &self.shown
    }

    /// Returns what is known now.
    pub fn snapshot(&self, time_ns: u64, interval_ns: u64) -> Snapshot {
        Snapshot {
            time_ns,
            interval_ns,
            processes: self.shown.clone(),
            counting: self.counting.clone(),
            walks: self.walks,
            machine: self.machine.clone(),
            probes: self.probes.clone(),
        }
    }
}

/// Returns where a process is.
fn find(processes: &[Process], id: Id) -> Option<usize> {
    processes.binary_search_by_key(&id, |process| process.id).ok()
}

/// Returns a rate, rounded up: what happened is not shown as 0.
fn per_second(count: u64, passed_ns: u64) -> u64 {
    let rate = u128::from(count) * 1_000_000_000;
    u64::try_from(rate.div_ceil(u128::from(passed_ns.max(1)))).unwrap_or(u64::MAX)
}
