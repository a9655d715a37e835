use std::sync::LazyLock;

use memtrace_common::{Ledger, PATHS, Path, PathCounters, Sum};

use super::*;
use crate::model::region_map::PAGE;

static CGROUPS: LazyLock<HashMap<u64, String>> =
    LazyLock::new(|| HashMap::from([(1, "/".to_owned()), (9, "/a.slice".to_owned())]));

fn owner(comm: &str, cgroup: u64, tgid: u32) -> Owner {
    let mut owner = Owner { cgroup, tgid, ..Owner::default() };
    owner.comm[..comm.len()].copy_from_slice(comm.as_bytes());
    owner
}

fn paths(zapped: u64, freed: u64, late: u64) -> [PathCounters; PATHS] {
    let mut paths = [PathCounters::default(); PATHS];
    paths[Path::Munmap.index()] = PathCounters {
        // Entries of swap are no pages.
        zapped_pages: [0, zapped, 7, 0],
        freed_frames: freed,
        late_frames: late,
    };
    paths
}

fn take(reading: &mut Reading, owner: Owner, ended: bool, zapped: u64, freed: u64) {
    let mut ledger = Ledger { paths: paths(zapped, freed, 0), ..Ledger::default() };
    ledger.in_pages = [0, zapped as i64 + 5, 0, 0];
    let mut operations = [0; PATHS];
    operations[Path::Munmap.index()] = 2;
    if ended {
        reading.take_ended(owner, &Sum { spaces: 1, paths: ledger.paths, operations });
    } else {
        reading.take_living(owner, &ledger, &operations);
    }
}

fn surroundings(evidence: Evidence, top: usize) -> MachineSurroundings<'static> {
    let window = MachineWindow {
        evidence,
        start_ns: 1,
        interval_ns: 2,
        end_ns: 3,
        untracked: 0,
        complete: true,
    };
    MachineSurroundings { host: Host::default(), window, top: Top::of_each(top), cgroups: &CGROUPS }
}

#[test]
fn what_ended_counts_for_its_program_and_cgroup_and_not_for_a_process() {
    let sum = Sum { spaces: 3, paths: paths(100, 60, 1), operations: [1; PATHS] };
    let mut reading = Reading::default();
    reading.take_ended(owner("sh", 1, 0), &sum);
    take(&mut reading, owner("sh", 9, 7), false, 10, 8);
    take(&mut reading, owner("sh", 9, 7), true, 4, 4);
    take(&mut reading, owner("cat", 1, 8), false, 20, 20);
    let report = machine_report(&reading, &Reading::default(), surroundings(Evidence::Frames, 10));
    let name = |row: &Arc<Row>| (row.tgid, row.comm.clone(), row.cgroup.clone());
    let found: Vec<_> = report.processes.iter().map(name).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        found,
        [(Some(8), some("cat"), some("/")), (Some(7), some("sh"), some("/a.slice")),]
    );
    let sh = &report.programs[0];
    assert_eq!((name(sh), sh.living, sh.ended), ((None, some("sh"), None), 1, 4));
    let pages = |pages: u64| pages * PAGE;
    assert_eq!(
        sh.total,
        Left {
            operations: 2 + 2 + PATHS as u64,
            zapped: pages(114),
            freed: Some(pages(73)),
            late: Some(pages(1)),
            kept: Some(pages(41)),
        }
    );
    assert_eq!(sh.resident, pages(5));
    let found: Vec<_> =
        report.cgroups.iter().map(|row| (row.cgroup.clone(), row.total.zapped)).collect();
    assert_eq!(found, [(some("/"), pages(120)), (some("/a.slice"), pages(14))]);
    assert_eq!((report.all.living, report.all.ended, report.all.total.zapped), (2, 4, pages(134)));
    assert_eq!(report.all.by_path.keys().count(), PATHS, "operations alone make a path");
}

#[test]
fn lately_is_what_changed_since_the_reading_before() {
    let at = |sh: u64, cat: u64| {
        let mut reading = Reading::default();
        take(&mut reading, owner("sh", 1, 7), false, sh, sh);
        take(&mut reading, owner("cat", 1, 8), false, cat, cat);
        reading
    };
    let report = machine_report(&at(100, 30), &at(99, 10), surroundings(Evidence::Rss, 1));
    let [first] = report.processes.try_into().expect("one row");
    assert_eq!((first.tgid, first.zapped_lately), (Some(8), 20 * PAGE));
    assert_eq!((first.freed_lately, first.total.freed, first.total.kept), (None, None, None));
    assert_eq!(first.total.zapped, 30 * PAGE);
    // The number was used again.
    let report = machine_report(&at(1, 1), &at(99, 10), surroundings(Evidence::Frames, 1));
    assert_eq!(report.all.freed_lately, Some(0));
    let nothing = Reading::default();
    let of_each = surroundings(Evidence::Frames, 9);
    let surroundings_of = |top| MachineSurroundings { top, ..of_each.clone() };
    let few = Top { processes: 1, programs: 0, cgroups: 9 };
    let report = machine_report(&at(1, 1), &nothing, surroundings_of(few));
    let rows = [report.processes, report.programs, report.cgroups].map(|rows| rows.len());
    assert_eq!(rows, [1, 0, 1]);
    let report = machine_report(&nothing, &nothing, surroundings(Evidence::Frames, 1));
    assert_eq!((report.all, report.processes.len()), (Row::default(), 0));
}
