use std::sync::Arc;

use super::*;
use crate::model::{
    machine::MachineReport,
    report::{FreedNotReclaimed, Memory, ProcessReport},
    top::{Counting, Looked},
};

const LIMITS: Limits = Limits { processes: 1, cgroups: 1 };

fn row(tgid: Option<u32>, freed: u64) -> Row {
    let left = Left { operations: 1, zapped: freed, freed: Some(freed), ..Left::default() };
    Row { tgid, by_path: [("munmap", left)].into(), ..Row::default() }
}

/// A process with what it holds free, and what left it.
fn process(tgid: u32, free: Option<u64>, freed: u64, cgroup: &str) -> Process {
    let report = free.map(|free| {
        let freed_not_reclaimed =
            FreedNotReclaimed { total: Some(free), allocator: Some(free), lazy_free: Some(0) };
        let memory = Memory { live: Some(7), freed_not_reclaimed, ..Memory::default() };
        Arc::new(ProcessReport { memory, ..ProcessReport::default() })
    });
    Process {
        id: Id { tgid, start_ns: 1 },
        cgroup: Some(cgroup.into()),
        resident: Some(100),
        left: Some(Arc::new(row(Some(tgid), freed))),
        looked: Some(Looked { report, ..Looked::default() }),
        ..Process::default()
    }
}

fn snapshot(processes: Vec<Process>, all: u64, cgroups: &[(&str, u64)]) -> Snapshot {
    let rows = cgroups
        .iter()
        .map(|(path, freed)| Row { cgroup: Some((*path).to_owned()), ..row(None, *freed) });
    let machine = MachineReport {
        schema: "",
        host: Default::default(),
        window: crate::model::machine::MachineWindow {
            evidence: Default::default(),
            start_ns: 0,
            interval_ns: 0,
            end_ns: 0,
            untracked: 0,
            complete: true,
        },
        all: row(None, all),
        processes: Vec::new(),
        programs: Vec::new(),
        cgroups: rows.map(Arc::new).collect(),
    };
    Snapshot {
        processes,
        counting: Counting::Starting,
        machine: Some(Arc::new(machine)),
        ..Snapshot::default()
    }
}

fn freed(figures: &Figures) -> u64 {
    figures.left.get("munmap").and_then(|sums| sums.freed).unwrap_or(0)
}

#[test]
fn those_that_hold_most_are_told_by_name_and_the_others_as_one() {
    let processes = vec![
        process(1, Some(10), 5, "/a"),
        process(2, Some(90), 0, "/docker/x"),
        process(3, None, 0, "/a"),
    ];
    let fleet = Teller::new(LIMITS).tell(&snapshot(processes, 5, &[("/a", 5)]));
    let named: Vec<u32> = fleet.processes.iter().map(|named| named.id.tgid).collect();
    // The second by what it holds free, the first by size (all are of one) and by what it gave back.
    assert_eq!(named, [1, 2]);
    assert_eq!((fleet.others.processes, fleet.others.walked, fleet.others.resident), (1, 0, 100));
    assert_eq!((fleet.all.processes, fleet.all.walked), (3, 2));
    assert_eq!((fleet.all.live, fleet.all.allocator, fleet.all.resident), (14, 100, 300));
    let [(path, cgroup)] = fleet.cgroups.as_slice() else { panic!("{:?}", fleet.cgroups) };
    assert_eq!((path.as_str(), cgroup.allocator, cgroup.processes), ("/docker/x", 90, 1));
    assert_eq!((fleet.other_cgroups.allocator, fleet.other_cgroups.processes), (10, 2));
}

#[test]
fn what_counts_up_never_falls_whoever_comes_and_goes() {
    let mut teller = Teller::new(LIMITS);
    let mut before = (0, 0);
    // The first is told by name, then the second, then both have ended.
    for (processes, all, expected) in [
        (vec![process(1, Some(9), 50, "/a"), process(2, None, 7, "/b")], 60, 60),
        (vec![process(1, Some(9), 80, "/a"), process(2, None, 9, "/b")], 95, 65),
        (vec![process(1, Some(0), 85, "/a"), process(2, Some(9), 20, "/b")], 120, 85),
        (vec![process(2, Some(9), 25, "/b")], 130, 90),
        (vec![], 140, 100),
    ] {
        let mut processes = processes;
        for process in &mut processes {
            // Its size decides as well.
            process.resident = Some(if process.freed_not_reclaimed() == Some(9) { 100 } else { 0 });
        }
        let fleet = teller.tell(&snapshot(processes, all, &[]));
        let now = (freed(&fleet.all), freed(&fleet.others));
        assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} {now:?}");
        assert_eq!(now, (all, expected));
        before = now;
    }
}

#[test]
fn a_program_that_is_executed_counts_from_its_beginning() {
    let mut teller = Teller::new(LIMITS);
    teller.tell(&snapshot(vec![process(1, None, 50, "/a")], 50, &[]));
    let fleet = teller.tell(&snapshot(vec![process(1, None, 3, "/a")], 53, &[]));
    assert_eq!((freed(&fleet.processes[0].figures), freed(&fleet.others)), (3, 50));
}

#[test]
fn the_figures_are_bounded_for_any_number_of_processes() {
    let mut teller = Teller::new(Limits { processes: 5, cgroups: 3 });
    for round in 0..50 {
        let processes: Vec<Process> = (0..400)
            .map(|at| process(round * 400 + at, Some(u64::from(at)), 1, &format!("/c{}", at % 90)))
            .collect();
        let fleet = teller.tell(&snapshot(processes, 400, &[]));
        assert!(fleet.processes.len() <= 15 && fleet.cgroups.len() == 3);
        assert!(teller.processes.named.len() <= 15 && teller.cgroups.named.len() <= 3);
        assert_eq!(fleet.all.processes, 400);
    }
}
