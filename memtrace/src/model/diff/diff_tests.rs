use super::*;
use crate::model::report::{
    AllocatorReport, ArenaReport, Finding, FreedNotReclaimed, Host, Memory, PathReport,
    ProbeReport, ProcessReport, RegionReport, Report, Window,
};

const MIB: u64 = 1 << 20;

fn report(processes: Vec<ProcessReport>) -> Report {
    Report {
        schema: crate::model::report::SCHEMA,
        host: Host::default(),
        window: Window { end_ns: 1, complete: true, ..Window::default() },
        processes,
        stacks: None,
    }
}

/// Of a process that was walked.
fn process(tgid: u32, resident: u64, free: u64) -> ProcessReport {
    ProcessReport {
        tgid,
        start_time: u64::from(tgid) + 1,
        comm: "server".into(),
        exe: Some("/bin/server".into()),
        state: "running",
        memory: Memory {
            mapped: Some(4 * resident),
            resident: Some(resident),
            live: Some(resident - free),
            freed_not_reclaimed: FreedNotReclaimed {
                total: Some(free),
                allocator: Some(free),
                lazy_free: Some(0),
            },
            ..Memory::default()
        },
        ..ProcessReport::default()
    }
}

fn compare(before: &Report, after: &Report, limits: &[Limit]) -> Diff {
    let [first, second] = [before, after].map(|report| Kept::of(report).expect("it is a report"));
    let [before, after] =
        [("a", &first), ("b", &second)].map(|(name, report)| Named { name, report });
    diff(before, after, limits)
}

fn one(before: ProcessReport, after: ProcessReport) -> ProcessDiff {
    let mut diff = compare(&report(vec![before]), &report(vec![after]), &[]);
    assert_eq!(diff.processes.len(), 1, "{diff:?}");
    diff.processes.remove(0)
}

#[test]
fn a_change_has_a_sign_and_stops_at_the_largest() {
    assert_eq!(Change::new(Some(3), Some(5)).change, Some(2));
    assert_eq!(Change::new(Some(5), Some(3)).change, Some(-2));
    assert_eq!(Change::new(Some(0), Some(u64::MAX)).change, Some(i64::MAX));
    assert_eq!(Change::new(Some(u64::MAX), Some(0)).change, Some(-i64::MAX));
}

#[test]
fn an_unknown_figure_has_no_change() {
    assert_eq!(Change::new(None, Some(5)).change, None);
    assert_eq!(Change::new(Some(5), None).change, None);
    let mut exited = process(2, 8 * MIB, 0);
    exited.memory.freed_not_reclaimed = FreedNotReclaimed::default();
    let diff = one(process(1, 8 * MIB, MIB), exited);
    assert_eq!(diff.memory.freed_not_reclaimed, Change::new(Some(MIB), None));
    assert_eq!(diff.memory.resident.change, Some(0));
    assert_eq!(diff.memory.swapped, Change::default());
}

#[test]
fn the_sum_is_not_known_where_that_of_one_process_is_not() {
    let mut dark = process(2, MIB, 0);
    dark.memory.live = None;
    let before = report(vec![process(1, MIB, 0), process(2, MIB, 0)]);
    let after = report(vec![process(1, 3 * MIB, 0), dark]);
    let all = compare(&before, &after, &[]).all;
    assert_eq!(all.resident, Change::new(Some(2 * MIB), Some(4 * MIB)));
    assert_eq!(all.live, Change::new(Some(2 * MIB), None));
    let nobody = compare(&report(vec![]), &after, &[]).all;
    assert_eq!(nobody.resident, Change::new(None, Some(4 * MIB)));
}

#[test]
fn a_limit_is_of_growth_and_unknown_is_not_held() {
    let mut dark = process(2, 30 * MIB, 0);
    dark.memory.live = None;
    let limit = |class, allowed| Limit { class, allowed };
    let limits = [
        limit(Class::Resident, 20 * MIB),
        limit(Class::Resident, 20 * MIB - 1),
        limit(Class::FreedNotReclaimed, 0),
        limit(Class::Live, u64::MAX),
    ];
    let (before, after) = (report(vec![process(1, 10 * MIB, MIB)]), report(vec![dark]));
    let states: Vec<_> =
        compare(&before, &after, &limits).limits.iter().map(|limit| limit.state).collect();
    assert_eq!(states, ["held", "exceeded", "held", "unknown"]);
}

#[test]
fn processes_are_matched_by_identity_then_by_program_then_by_name() {
    let named = |tgid, comm: &str, exe: Option<&str>| {
        let exe = exe.map(str::to_owned);
        ProcessReport { comm: comm.into(), exe, ..process(tgid, MIB, 0) }
    };
    let before = report(vec![
        named(1, "worker", Some("/bin/a")),
        named(2, "worker", Some("/bin/b")),
        named(3, "python3", Some("/venv/1/python3")),
        named(4, "gone", None),
    ]);
    let after = report(vec![
        named(7, "new", None),
        named(6, "python3", Some("/venv/2/python3")),
        named(5, "worker", Some("/bin/b")),
        named(1, "renamed", Some("/bin/a")),
    ]);
    let diff = compare(&before, &after, &[]);
    let mut pairs: Vec<_> = diff
        .processes
        .iter()
        .map(|process| {
            let tgid = |who: &Option<Who>| who.as_ref().map(|who| who.tgid);
            (tgid(&process.before), tgid(&process.after), process.matched_by)
        })
        .collect();
    pairs.sort_unstable();
    assert_eq!(
        pairs,
        [
            (None, Some(7), None),
            (Some(1), Some(1), Some("process")),
            (Some(2), Some(5), Some("exe")),
            (Some(3), Some(6), Some("comm")),
            (Some(4), None, None),
        ]
    );
}

#[test]
fn one_process_in_each_is_the_same_program() {
    let renamed = ProcessReport { comm: "other".into(), exe: None, ..process(2, MIB, 0) };
    assert_eq!(one(process(1, MIB, 0), renamed).matched_by, Some("only"));
}

#[test]
fn a_path_that_nothing_took_is_0_where_it_was_looked_for() {
    let path = PathReport { calls: 2, freed: Some(MIB), ..PathReport::default() };
    let mut left = process(1, MIB, 0);
    left.reclaimed.by_path.insert("munmap", path);
    let mut traced = report(vec![process(2, MIB, 0)]);
    let state = "attached";
    traced.window.probes = vec![ProbeReport { name: "x".into(), hook: None, state }];
    let paths = |after: &Report| {
        let mut before = report(vec![left.clone()]);
        before.window = traced.window.clone();
        compare(&before, after, &[]).processes[0].paths["munmap"]
    };
    assert_eq!(paths(&traced).freed, Change::new(Some(MIB), Some(0)));
    assert_eq!(paths(&traced).calls, Change::new(Some(2), Some(0)));
    let mut coarse = traced.clone();
    coarse.window.evidence = Evidence::Rss;
    assert_eq!(paths(&coarse).freed, Change::new(Some(MIB), None));
    assert_eq!(paths(&coarse).zapped, Change::new(None, Some(0)));
    // One look tells of no path.
    assert_eq!(paths(&report(vec![process(2, MIB, 0)])).calls, Change::new(Some(2), None));
}

#[test]
fn a_finding_comes_and_goes_where_it_was_looked_for() {
    let with = |process: ProcessReport, id| {
        let findings = vec![Finding { id, bytes: MIB, ..Finding::default() }];
        ProcessReport { findings, ..process }
    };
    let walked = || process(1, MIB, 0);
    let unwalked = || {
        let mut unwalked = walked();
        unwalked.memory.freed_not_reclaimed.allocator = None;
        unwalked
    };
    let state = |before, after| one(before, after).findings[0].state;
    assert_eq!(state(with(walked(), "live"), walked()), "went");
    assert_eq!(state(walked(), with(walked(), "live")), "came");
    assert_eq!(state(with(walked(), "live"), with(walked(), "live")), "stayed");
    assert_eq!(state(with(walked(), "live"), unwalked()), "unknown");
    let partly = ProcessReport { unwalked: vec!["why".into()], ..walked() };
    assert_eq!(state(partly, with(walked(), "live")), "unknown");
}

fn glibc(frees: &[(&str, u64)]) -> AllocatorReport {
    let arena = |&(address, free): &(&str, u64)| ArenaReport {
        address: address.into(),
        system: 2 * free,
        free,
        free_resident: Some(free),
        ..ArenaReport::default()
    };
    let free = frees.iter().map(|(_, free)| free).sum();
    AllocatorReport {
        name: "glibc",
        version: Some("2.36".into()),
        evidence: "walked",
        system: 2 * free,
        free: [("bins", free)].into(),
        free_resident: Some(free),
        arenas: frees.iter().map(arena).collect(),
        ..AllocatorReport::default()
    }
}

#[test]
fn arenas_are_matched_by_address_in_one_process_and_by_order_in_two() {
    let with = |tgid, frees: &[(&str, u64)]| {
        let allocators = vec![glibc(frees)];
        ProcessReport { allocators, ..process(tgid, MIB, 0) }
    };
    let frees = |diff: ProcessDiff| -> Vec<[Option<u64>; 2]> {
        let arenas = diff.allocators[0].arenas.iter();
        arenas.map(|arena| [arena.free.before, arena.free.after]).collect()
    };
    let before: &[(&str, u64)] = &[("0x1", 10), ("0x2", 20)];
    let after: &[(&str, u64)] = &[("0x2", 5), ("0x3", 7)];
    assert_eq!(
        frees(one(with(1, before), with(1, after))),
        [[Some(10), Some(0)], [Some(20), Some(5)], [Some(0), Some(7)]]
    );
    assert_eq!(
        frees(one(with(1, before), with(2, &after[..1]))),
        [[Some(10), Some(5)], [Some(20), Some(0)]]
    );
}

#[test]
fn an_allocator_that_is_not_there_holds_nothing_if_it_was_looked_for() {
    let with = ProcessReport { allocators: vec![glibc(&[("0x1", 10)])], ..process(1, MIB, 0) };
    let diff = one(with.clone(), process(2, MIB, 0));
    assert_eq!(diff.allocators[0].free, Change::new(Some(10), Some(0)));
    assert_eq!(diff.allocators[0].free_by_class["bins"], Change::new(Some(10), Some(0)));
    let mut exited = process(2, MIB, 0);
    exited.memory.freed_not_reclaimed.allocator = None;
    assert_eq!(one(with, exited).allocators[0].free, Change::new(Some(10), None));
}

fn region(start: &str, kind: &'static str, name: Option<&str>, resident: u64) -> RegionReport {
    RegionReport {
        start: start.into(),
        kind,
        name: name.map(str::to_owned),
        mapped: 8 * MIB,
        resident: Some(resident),
        ..RegionReport::default()
    }
}

#[test]
fn regions_are_matched_by_name_or_by_where_they_begin() {
    let before = vec![
        region("0x1000", "heap", Some("[heap]"), 3 * MIB),
        region("0x2000", "anon", None, MIB),
        region("0x3000", "file", Some("/usr/lib/libc.so.6"), MIB),
        region("0x4000", "file", Some("/usr/lib/libc.so.6"), MIB),
    ];
    let after = vec![
        region("0x9000", "heap", Some("[heap]"), 5 * MIB),
        region("0x2000", "anon", None, MIB),
        region("0x7000", "anon", None, 4 * MIB),
        region("0x3000", "file", Some("libc.so.6"), MIB),
    ];
    let rows = |tgid| {
        let with = |tgid, regions: &[RegionReport]| ProcessReport {
            regions: regions.to_vec(),
            ..process(tgid, MIB, 0)
        };
        let diff = one(with(1, &before), with(tgid, &after));
        let row = |region: &RegionDiff| {
            let name = region.name.clone().or(region.start.clone()).unwrap_or_default();
            (name, region.count.change, region.resident.before, region.resident.after)
        };
        diff.regions.iter().map(row).collect::<Vec<_>>()
    };
    let libc = ("/usr/lib/libc.so.6".into(), Some(-1), Some(2 * MIB), Some(MIB));
    let heap = ("[heap]".into(), Some(0), Some(3 * MIB), Some(5 * MIB));
    assert_eq!(
        rows(1),
        [
            ("0x7000".into(), Some(1), Some(0), Some(4 * MIB)),
            heap.clone(),
            libc.clone(),
            ("0x2000".into(), Some(0), Some(MIB), Some(MIB)),
        ]
    );
    // In another process addresses mean nothing.
    assert_eq!(rows(2), [(String::new(), Some(1), Some(MIB), Some(5 * MIB)), heap, libc]);
}

#[test]
fn a_region_of_which_nobody_knows_what_is_resident_has_no_sum() {
    let dark = RegionReport { resident: None, ..region("0x2000", "file", Some("x"), 0) };
    let with = |tgid, regions| ProcessReport { regions, ..process(tgid, MIB, 0) };
    let light = region("0x1000", "file", Some("x"), MIB);
    let diff = one(with(1, vec![light.clone(), dark]), with(2, vec![light]));
    assert_eq!(diff.regions[0].resident, Change::new(None, Some(MIB)));
    let mut unmapped = process(3, MIB, 0);
    unmapped.memory.mapped = None;
    let diff = one(with(1, vec![region("0x1", "heap", None, MIB)]), unmapped);
    assert_eq!(diff.regions[0].count, Change::new(Some(1), None));
}

#[test]
fn what_a_newer_report_has_more_is_passed_over_and_another_form_is_refused() {
    let json = |schema: &str| {
        let mut value = serde_json::to_value(report(vec![process(1, MIB, 0)])).expect("JSON");
        value["schema"] = schema.into();
        value["surprise"] = 1.into();
        value["processes"][0]["memory"]["surprise"] = 1.into();
        value.to_string()
    };
    for schema in ["memtrace.report/1", "memtrace.report/1.7"] {
        assert!(Kept::decode(json(schema).as_bytes()).is_ok(), "{schema}");
    }
    let why = |json: &str| Kept::decode(json.as_bytes()).expect_err("it is refused").to_string();
    assert_eq!(
        why(&json("memtrace.report/2")),
        "it is of the form \"memtrace.report/2\", and this memtrace knows \"memtrace.report/1\" only"
    );
    assert_eq!(why(&json("memtrace.ledger/1")), "it is no report, but \"memtrace.ledger/1\"");
    // Another form may have another shape.
    assert!(why("{\"schema\":\"memtrace.report/2\"}").starts_with("it is of the form"));
    for broken in ["", "{}", "{\"schema\":1}", "{\"schema\":\"memtrace.report/1\"}", "{", "[]"] {
        assert!(why(broken).starts_with("it is no JSON report of memtrace: "), "{broken}");
    }
}
