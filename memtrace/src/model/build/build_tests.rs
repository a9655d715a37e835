#[path = "pages_tests.rs"]
mod pages;
#[path = "teardown_tests.rs"]
mod teardown;

use std::collections::BTreeMap;

use memtrace_common::{
    COUNTERS, Call, Event, Exec, Exit, Header, MmEnd, PATHS, Path, PathCounters, Region, Syscall,
};
use proptest::prelude::*;

use self::teardown::{at_teardown, run};
use super::*;
use crate::model::{
    change::path_name,
    fact::Fact,
    region_map::flag,
    report::{Faults, KeptByReason, PathReport, Reclaimed, Report, ZeroedByKind},
    report::{FreedNotReclaimed, Memory, ResidentByKind},
};

const TGID: u32 = 42;
const MM: u64 = 0x1000;

fn header() -> Header {
    Header { mm: MM, tgid: TGID, tid: TGID, ..Header::default() }
}

fn surroundings(stats: ProbeStats) -> Surroundings {
    let host = Host { page_size: PAGE, ..Host::default() };
    Surroundings { host, start_ns: 1, end_ns: 2, stats, missed: 0, probes: Vec::new() }
}

/// The report of a model of one process, or more, without what was read of them.
fn unread(model: &Model) -> Report {
    report(model, surroundings(ProbeStats::default()), &HashMap::new())
}

fn read(model: &Model, residency: Residency) -> ProcessReport {
    let residency = HashMap::from([(TGID, residency)]);
    let report = report(model, surroundings(ProbeStats::default()), &residency);
    report.processes.into_iter().next().expect("one process")
}

fn only(model: &Model) -> ProcessReport {
    let [process] = unread(model).processes.try_into().expect("one process");
    process
}

fn exec(layout: (u64, u64)) -> Event {
    let (start_brk, brk) = layout;
    Event::Exec(Exec {
        header: header(),
        start_ns: 0,
        start_brk,
        brk,
        start_stack: 0,
        vdso: 0,
        minor_faults: 0,
        major_faults: 0,
        path: [0; 96],
    })
}

fn anon(pages: std::ops::Range<u64>) -> Region {
    let (start, end) = (pages.start * PAGE, pages.end * PAGE);
    let flags = flag::READ | flag::WRITE;
    Region { header: header(), start, end, pgoff: pages.start, flags, ..Region::default() }
}

fn file(pages: std::ops::Range<u64>, backing: memtrace_common::Backing) -> Region {
    Region { inode: 7, dev: 1, pgoff: 0, backing: backing as u16, ..anon(pages) }
}

fn model(regions: &[Region], events: &[Event]) -> Model {
    let mut model = Model::default();
    for &region in regions {
        model.apply(&Event::MapRegion(region));
    }
    model.apply(&exec((0, 0)));
    for event in events {
        model.apply(event);
    }
    model
}

fn exited(ledger: Ledger) -> [Event; 2] {
    let exit = Exit { header: header(), exit_code: 0, ..Exit::default() };
    [Event::Exit(exit), Event::MmEnd(MmEnd { header: header(), ledger })]
}

/// Builds a ledger from what came in and what left.
fn ledger(
    base: [i64; COUNTERS],
    in_pages: [i64; COUNTERS],
    left: &[(Path, PathCounters)],
) -> Ledger {
    let mut ledger = Ledger { base_pages: base, in_pages, ..Ledger::default() };
    for &(path, counters) in left {
        ledger.paths[path.index()] = counters;
    }
    ledger
}

const fn left(zapped_pages: [u64; COUNTERS], freed_frames: u64, late_frames: u64) -> PathCounters {
    PathCounters { zapped_pages, freed_frames, late_frames }
}

#[test]
fn an_exited_process_had_resident_what_its_teardown_detached() {
    let teardown = left([1, 20, 300, 4000], 0, 0);
    let ledger = ledger([0; 4], [1, 20, 300, 4000], &[(Path::Exit, teardown)]);
    let process = only(&model(&[anon(0..5000)], &exited(ledger)));
    let Memory {
        mapped, resident, resident_by_kind, freed_not_reclaimed, swapped, reserved, ..
    } = process.memory;
    assert_eq!(mapped, Some(5000 * PAGE));
    assert_eq!(resident, Some(4021 * PAGE));
    assert_eq!(reserved, Some((5000 - 4021 - 300) * PAGE));
    let ResidentByKind { anon, file, shmem } = resident_by_kind;
    assert_eq!([file, anon, shmem], [Some(PAGE), Some(20 * PAGE), Some(4000 * PAGE)]);
    assert_eq!(swapped, Some(300 * PAGE));
    assert_eq!(freed_not_reclaimed, FreedNotReclaimed::default());
}

#[test]
fn what_was_not_measured_is_null() {
    // It runs, but its page tables could not be read.
    let process = only(&model(&[anon(0..4)], &[]));
    assert_eq!(process.state, "unknown");
    assert_eq!(process.exit_code, None);
    assert_eq!(process.memory, Memory { mapped: Some(4 * PAGE), ..Memory::default() });
    assert_eq!(
        process.faults,
        Faults {
            zeroed: Some(0),
            zeroed_by_kind: ZeroedByKind { anon: Some(0), huge: Some(0), shmem: Some(0) },
            copied: Some(0),
            ..Faults::default()
        }
    );
    let Balance { r#in, out, resident, unexplained } = process.balance;
    assert_eq!((r#in, out, resident, unexplained), (Some(0), Some(0), None, None));
    let [region] = process.regions.try_into().expect("one region");
    assert_eq!((region.resident, region.live, region.lazy_free), (None, None, None));
    assert_eq!(region.mapped, 4 * PAGE);
}

#[test]
fn a_process_whose_map_was_never_seen_has_no_size() {
    let process = only(&model(&[], &[]));
    assert_eq!(process.memory.mapped, None);
    assert_eq!(process.memory.reserved, None);
}

#[test]
fn a_process_that_was_never_seen_to_begin_has_nothing() {
    let mut model = Model::default();
    model.learn(&Fact::Expected { tgid: TGID });
    let process = only(&model);
    assert_eq!(process.memory, Memory::default());
    assert_eq!(process.balance, Balance::default());
    assert!(process.regions.is_empty());
}

/// Reads `resident` of which `anon` is anonymous, in one region.
fn residency(pages: std::ops::Range<u64>, resident: u64, anon: u64, lazy_free: u64) -> Residency {
    let read = RegionResidency {
        end: pages.end * PAGE,
        resident: resident * PAGE,
        anon: anon * PAGE,
        swapped: PAGE,
        lazy_free: lazy_free * PAGE,
        cold: None,
        cells: None,
        name: Some("[x]".to_owned()),
    };
    let regions = HashMap::from([(pages.start * PAGE, read.clone())]);
    Residency { regions, total: read, ..Residency::default() }
}

#[test]
fn what_was_read_of_a_running_process_is_what_it_holds() {
    let process = read(&model(&[anon(0..10)], &[]), residency(0..10, 6, 5, 2));
    assert_eq!(process.state, "running");
    let Memory { resident, resident_by_kind, live, reserved, swapped, freed_not_reclaimed, .. } =
        process.memory;
    let ResidentByKind { anon, file, shmem } = resident_by_kind;
    assert_eq!([anon, file, shmem], [Some(5 * PAGE), Some(PAGE), Some(0)]);
    assert_eq!((resident, live), (Some(6 * PAGE), Some(4 * PAGE)));
    assert_eq!((reserved, swapped), (Some(3 * PAGE), Some(PAGE)));
    assert_eq!(freed_not_reclaimed.lazy_free, Some(2 * PAGE));
    assert_eq!(freed_not_reclaimed.total, None);
    let [region] = process.regions.try_into().expect("one region");
    assert_eq!((region.resident, region.live), (Some(6 * PAGE), Some(4 * PAGE)));
    assert_eq!(region.name.as_deref(), Some("[x]"));
}

#[test]
fn pages_of_tmpfs_are_told_from_those_of_files() {
    let shared = file(0..10, memtrace_common::Backing::Shmem);
    // A private mapping of tmpfs has anonymous copies too.
    let process = read(&model(&[shared], &[]), residency(0..10, 6, 2, 0));
    let ResidentByKind { anon, file, shmem } = process.memory.resident_by_kind;
    assert_eq!([anon, file, shmem], [Some(2 * PAGE), Some(0), Some(4 * PAGE)]);
}

#[test]
fn what_was_read_of_another_extent_is_not_taken_for_this_region() {
    let process = read(&model(&[anon(0..10)], &[]), residency(0..11, 6, 6, 0));
    assert_eq!(process.regions[0].resident, None);
}

#[test]
fn what_was_read_before_the_exit_is_not_taken_for_what_was_there_at_it() {
    let model = model(&[anon(0..10)], &exited(Ledger::default()));
    let process = read(&model, residency(0..10, 6, 6, 0));
    assert_eq!((process.state, process.memory.resident), ("exited", Some(0)));
}

#[test]
fn what_a_path_did_not_free_is_kept_elsewhere() {
    let paths = [
        (Path::Munmap, left([5, 0, 0, 0], 3, 1)),
        // Frames of another mm's that came back here are more than was detached.
        (Path::DontNeed, left([0, 2, 0, 0], 4, 0)),
        // Swap entries are no frames.
        (Path::Brk, left([0, 0, 9, 0], 0, 0)),
    ];
    let model = model(&[anon(0..10)], &exited(ledger([0; 4], [0; 4], &paths)));
    let Reclaimed { total, by_path, .. } = only(&model).reclaimed;
    let figures = |path: &str| {
        let PathReport { zapped, freed, late, kept_elsewhere, .. } = by_path[path];
        [zapped, freed, late, kept_elsewhere].map(|bytes| bytes.expect("counted") / PAGE)
    };
    assert_eq!(figures("munmap"), [5, 4, 1, 1]);
    assert_eq!(figures("dont_need"), [2, 4, 0, 0]);
    assert!(!by_path.contains_key("brk"), "nothing resident left by it");
    assert_eq!(total, Some(8 * PAGE));
}

#[test]
fn a_path_that_detached_nothing_is_there_when_it_was_called() {
    let args = [0, 4 * PAGE, 8, 0, 0, 0];
    let syscall = Syscall::Madvise as u16;
    let call = Call { header: header(), args, syscall, path: Path::NONE, ..Call::default() };
    let by_path = only(&model(&[anon(0..10)], &[Event::Call(call)])).reclaimed.by_path;
    let [zapped, freed, late, kept_elsewhere] = [Some(0); 4];
    let (calls, requested) = (1, Some(4 * PAGE));
    let kept_by_reason = Some(KeptByReason::default());
    let expected =
        PathReport { calls, requested, zapped, freed, late, kept_elsewhere, kept_by_reason };
    assert_eq!(by_path, BTreeMap::from([("free", expected)]));
}

#[test]
fn a_window_in_which_something_was_lost_is_not_complete() {
    let complete = |dropped, untracked| {
        let stats = ProbeStats { emitted: 9, dropped, untracked, ..ProbeStats::default() };
        let window = report(&Model::default(), surroundings(stats), &HashMap::new()).window;
        assert_eq!((window.emitted, window.dropped), (9, dropped));
        window.complete
    };
    assert_eq!([complete(0, 0), complete(1, 0), complete(0, 1)], [true, false, false]);
}

fn counters() -> impl Strategy<Value = PathCounters> {
    let pages = 0..1_u64 << 20;
    (prop::array::uniform4(pages.clone()), pages.clone(), pages)
        .prop_map(|(zapped, freed, late)| left(zapped, freed, late))
}

fn any_ledger() -> impl Strategy<Value = Ledger> {
    let pages = || prop::array::uniform4(-(1_i64 << 20)..1 << 24);
    (pages(), pages(), prop::collection::vec(counters(), PATHS)).prop_map(
        |(base, in_pages, all)| {
            let paths: Vec<(Path, PathCounters)> = Path::ALL.into_iter().zip(all).collect();
            ledger(base, in_pages, &paths)
        },
    )
}

proptest! {
    #[test]
    fn what_came_in_is_resident_or_went_out_or_is_unexplained(
        first in any_ledger(),
        second in any_ledger(),
        resident in prop::option::of(0..1_u64 << 30),
    ) {
        // A process that executed once: its two address spaces balance together.
        let mut model = model(&[anon(0..10)], &[]);
        model.apply(&Event::MmEnd(MmEnd { header: header(), ledger: first }));
        model.apply(&exec((0, 0)));
        let process = match resident {
            Some(pages) => {
                let space = model.space_at(MM).expect("it lives");
                let (ledger, afterlife) = (Box::new(second), Box::default());
                model.learn(&Fact::Books { space, ledger, afterlife });
                read(&model, residency(0..10, pages, 0, 0))
            }
            None => {
                for event in exited(second) {
                    model.apply(&event);
                }
                only(&model)
            }
        };
        let Balance { r#in, out, resident: still, unexplained } = process.balance;
        let [r#in, out, still, unexplained] =
            [r#in, out, still, unexplained].map(|figure| figure.expect("known"));
        prop_assert_eq!(r#in, out + still + unexplained);
        let counted = [Counter::File, Counter::Anon, Counter::Shmem].map(|counter| {
            let pages = |ledger: &Ledger| {
                ledger.base_pages[counter as usize] + ledger.in_pages[counter as usize]
            };
            pages(&first) + pages(&second)
        });
        prop_assert_eq!(r#in, counted.iter().sum::<i64>() * PAGE as i64);
        prop_assert_eq!(still, resident.unwrap_or(0) as i64 * PAGE as i64);

        let Reclaimed { total, by_path, .. } = process.reclaimed;
        prop_assert_eq!(total, by_path.values().map(|path| path.freed).sum());
        prop_assert_eq!(Some(out as u64), by_path.values().map(|path| path.zapped).sum());
        for path in by_path.values() {
            prop_assert!(path.late <= path.freed);
            let kept = path.zapped.zip(path.freed).map(|(out, freed)| out.saturating_sub(freed));
            prop_assert_eq!(path.kept_elsewhere, kept);
        }
        prop_assert_eq!(total, model.reclaimed_bytes());
    }

    #[test]
    fn a_region_never_has_more_resident_than_it_is_large(
        bounds in prop::collection::btree_set(0..64_u64, 2..10),
        runs in prop::collection::vec((0..64_u64, 1..20_u64, 0..20_u64), 0..10),
    ) {
        let bounds: Vec<u64> = bounds.into_iter().collect();
        let regions: Vec<Region> =
            bounds.chunks_exact(2).map(|pair| anon(pair[0]..pair[1])).collect();
        // The runs of one teardown do not overlap: each frame comes back once.
        let mut free = 0;
        let mut disjoint = Vec::new();
        for (gap, pages, frames) in runs {
            disjoint.push(run(free + gap, pages, frames.min(pages)));
            free += gap + pages;
        }
        let found = at_teardown(&regions, &disjoint);
        prop_assert_eq!(found.len(), regions.len());
        for region in regions {
            let pages = (region.end - region.start) / PAGE;
            let resident = found[&(region.start / PAGE)].expect("anonymous");
            prop_assert!(resident <= pages, "{resident} of {pages} pages");
        }
    }
}
