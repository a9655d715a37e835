use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn call(time_ns: u64, path: &'static str, bytes: u64) -> Change {
    let what = What::Call {
        call: "munmap",
        start: 0,
        requested: bytes,
        detail: String::new(),
        ret: 0,
        path: Some(path),
        zapped: Some(bytes),
        freed: Some(bytes / 2),
        duration_ns: None,
    };
    Change { time_ns, tgid: 1, tid: 1, what }
}

fn memory(time_ns: u64, resident: u64, free_resident: Option<u64>) -> Change {
    let what = What::Memory {
        resident: Some(resident),
        live: free_resident.map(|free| resident - free),
        free_resident,
        lazy_free: None,
        trimmable: None,
        regions: vec![],
    };
    Change { time_ns, tgid: 1, tid: 1, what }
}

fn told(changes: &[Change]) -> History {
    let mut history = History::new();
    changes.iter().for_each(|change| history.apply(change));
    history
}

fn sums(history: &History) -> BTreeMap<&'static str, LeftBy> {
    let mut sum = Left::default();
    for (_, left) in history.processes()[0].left.iter() {
        sum.merge(left.clone());
    }
    sum.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn thinning_keeps_every_sum_and_the_order_does_not_matter(
        calls in prop::collection::vec((0..u64::MAX, 0..3_usize, 0..1_u64 << 40), 1..3000),
        spread in 20..64_u32,
    ) {
        let paths = ["munmap", "brk", "dont_need"];
        let mut changes: Vec<Change> = calls
            .iter()
            .map(|&(time, path, bytes)| call(time >> (64 - spread), paths[path], bytes))
            .collect();
        let history = told(&changes);
        let found = sums(&history);
        for path in paths {
            let of_path = changes.iter().filter_map(|change| match change.what {
                What::Call { path: Some(p), requested, .. } if p == path => Some(requested),
                _ => None,
            });
            let (mut calls, mut requested, mut freed) = (0, 0, 0);
            of_path.for_each(|bytes| {
                calls += 1;
                requested += bytes;
                freed += bytes / 2;
            });
            let expected = (calls > 0).then_some(LeftBy {
                calls, requested, zapped: Some(requested), freed: Some(freed),
            });
            prop_assert_eq!(found.get(path).copied(), expected);
        }
        prop_assert!(history.processes()[0].left.len() <= Series::<Left>::CAPACITY);
        changes.reverse();
        prop_assert_eq!(told(&changes), history);
    }

    #[test]
    fn thinning_keeps_the_peak(samples in prop::collection::vec((0..1_u64 << 50, 0..u64::MAX), 1..4000)) {
        let mut changes: Vec<Change> =
            samples.iter().map(|&(time, bytes)| memory(time, bytes, None)).collect();
        let history = told(&changes);
        let resident = &history.processes()[0].resident;
        prop_assert!(resident.len() <= Series::<Resident>::CAPACITY);
        let peak = resident.iter().map(|(_, at)| at.bytes).max();
        prop_assert_eq!(peak, samples.iter().map(|&(_, bytes)| bytes).max());
        changes.reverse();
        prop_assert_eq!(told(&changes), history);
    }
}

#[test]
fn an_unknown_figure_makes_the_sum_of_its_step_unknown() {
    let mut unknown = call(1, "munmap", 10);
    if let What::Call { freed, .. } = &mut unknown.what {
        *freed = None;
    }
    let found = sums(&told(&[call(0, "munmap", 10), unknown]));
    assert_eq!(found["munmap"].zapped, Some(20));
    assert_eq!(found["munmap"].freed, None);
}

#[test]
fn the_end_of_an_address_space_is_by_exec_or_by_exit() {
    let at = |time_ns, what| Change { time_ns, tgid: 1, tid: 1, what };
    let end = || What::MmEnd { zapped: Some(8192), freed: Some(4096) };
    let exec = || What::Exec { path: "/bin/true".into() };
    let history = told(&[at(1, exec()), at(2, end()), at(3, What::Exit { code: 0 }), at(4, end())]);
    let found = sums(&history);
    assert_eq!(found["exec"].zapped, Some(8192));
    assert_eq!(found["exit"].freed, Some(4096));
    assert_eq!(history.processes()[0].exited_ns(), Some(3));
}

#[test]
fn what_was_walked_is_kept_apart_from_what_was_only_resident() {
    let history = told(&[memory(0, 100, None), memory(1 << 30, 90, Some(40))]);
    let process = &history.processes()[0];
    assert_eq!((process.resident.len(), process.classes.len()), (2, 1));
    let (_, classes) = process.classes.iter().next().expect("there is one");
    assert_eq!(classes.live, Some(50));
    assert_eq!(classes.lazy_free, None);
}

#[test]
fn a_flood_of_processes_and_marks_takes_no_more_room() {
    let mut history = History::new();
    for tgid in 0..1000 {
        for time_ns in 0..100 {
            let what = What::Exec { path: "x".into() };
            history.apply(&Change { time_ns, tgid, tid: tgid, what });
        }
        history.apply(&Change { time_ns: 100, tgid, tid: tgid, what: What::Exit { code: 0 } });
    }
    assert_eq!(history.processes().len(), History::PROCESSES);
    assert_eq!(history.untold(), 101 * (1000 - History::PROCESSES as u64));
    let process = history.process(0).expect("the first is there");
    assert_eq!(process.marks.len(), History::MARKS + 1);
    assert_eq!(process.untold_marks, 36);
    assert_eq!(process.exited_ns(), Some(100));
}
