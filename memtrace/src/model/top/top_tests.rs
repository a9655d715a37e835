use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

fn id(tgid: u32) -> Id {
    Id { tgid, start_ns: 1 }
}

fn reading(tgid: u32, resident: u64, faults: u64) -> Reading {
    let (comm, resident) = (format!("p{tgid}"), Some(resident));
    Reading { id: id(tgid), comm, resident, cpu_ns: 0, faults, cgroup: None }
}

fn look(tgid: u32, at_ns: u64, cost_ns: u64) -> Look {
    Look { id: id(tgid), at_ns, cost_ns, result: Ok(ProcessReport::default()) }
}

fn process(processes: &Processes, tgid: u32) -> &Process {
    processes.all().iter().find(|process| process.id == id(tgid)).expect("it is there")
}

#[test]
fn a_rate_is_what_changed_in_the_time_between_two_readings() {
    let mut processes = Processes::default();
    processes.read(0, vec![reading(1, 0, 100)]);
    assert_eq!(process(&processes, 1).faults_per_s, None);
    processes.read(2 * SECOND, vec![reading(1, 0, 300), reading(2, 0, 7)]);
    assert_eq!(process(&processes, 1).faults_per_s, Some(100));
    assert_eq!(process(&processes, 2).faults_per_s, None);
    // One in a long time is not none.
    processes.read(12 * SECOND, vec![reading(1, 0, 301), reading(2, 0, 7)]);
    assert_eq!(process(&processes, 1).faults_per_s, Some(1));
    assert_eq!(process(&processes, 2).faults_per_s, Some(0));
}

#[test]
fn a_pid_that_is_given_out_again_is_another_process() {
    let mut processes = Processes::default();
    processes.read(0, vec![reading(1, 0, 100)]);
    processes.look(look(1, 0, 0));
    let mut other = reading(1, 0, 0);
    other.id.start_ns = 2;
    processes.read(SECOND, vec![other]);
    let [process] = processes.all() else { panic!("{:?}", processes.all()) };
    assert_eq!((process.faults_per_s, &process.looked), (None, &None));
    // What was found meanwhile of the one that ended is nobody's.
    processes.look(look(1, SECOND, 0));
    assert_eq!(processes.all()[0].looked, None);
}

#[test]
fn what_is_not_counted_is_not_0() {
    let mut processes = Processes::default();
    processes.read(0, vec![reading(1, 0, 0), reading(2, 0, 0)]);
    let row =
        Row { tgid: Some(1), freed_lately: Some(4096), zapped_lately: 8192, ..Row::default() };
    processes.count(SECOND / 2, Counting::default(), &[Arc::new(row)]);
    assert_eq!(process(&processes, 1).reclaimed_per_s, Some(8192));
    assert_eq!(process(&processes, 2).reclaimed_per_s, None);
}

#[test]
fn a_failed_walk_keeps_what_was_found_before() {
    let mut processes = Processes::default();
    processes.read(0, vec![reading(1, 0, 0)]);
    let mut found = ProcessReport::default();
    found.memory.live = Some(5);
    processes.look(Look { result: Ok(found), ..look(1, 1, 0) });
    processes.look(Look { result: Err("no".into()), ..look(1, 2, 0) });
    let looked = process(&processes, 1).looked.as_ref().expect("it was walked");
    assert_eq!(looked.why_not.as_deref(), Some("no"));
    assert_eq!(looked.history.len(), 1);
}

#[test]
fn what_is_largest_is_walked_first_and_what_did_nothing_not_again() {
    let mut processes = Processes::default();
    let read = vec![reading(1, 10, 0), reading(2, 30, 0), reading(3, 20, 0)];
    processes.read(0, read.clone());
    let (budget, wish) = (Budget::new(4000), Wish::default());
    for (now, tgid) in (0..).zip([2, 3, 1]) {
        assert_eq!(budget.next(processes.all(), wish, now), Some(id(tgid)));
        processes.look(look(tgid, now, 0));
    }
    processes.read(SECOND, read);
    assert_eq!(budget.next(processes.all(), wish, SECOND), None);
    let grown = vec![reading(1, 10, 1), reading(2, 31, 0), reading(3, 64 << 20, 0)];
    processes.read(2 * SECOND, grown);
    assert_eq!(budget.next(processes.all(), wish, 2 * SECOND), Some(id(3)));
    processes.look(look(3, 2 * SECOND, 0));
    // Of those that changed little, the one that was walked longest ago.
    assert_eq!(budget.next(processes.all(), wish, 2 * SECOND), Some(id(2)));
}

#[test]
fn walks_take_their_share_and_no_more() {
    let mut processes = Processes::default();
    processes.read(0, vec![reading(1, 0, 0)]);
    let mut budget = Budget::new(4000);
    budget.spend(SECOND);
    assert_eq!(budget.next(processes.all(), Wish::default(), 0), None);
    let mut passed = 0;
    while budget.next(processes.all(), Wish::default(), passed).is_none() {
        budget.earn(SECOND);
        passed += SECOND;
    }
    // 4 ms a second, less what the first walks may take.
    assert_eq!(passed, 176 * SECOND);
    // Hours without a walk do not buy hours of walks.
    budget.earn(u64::MAX);
    budget.spend(60 * MS);
    assert_eq!(budget.next(processes.all(), Wish::default(), passed), None);
}

#[test]
fn what_is_looked_at_closely_is_walked_and_then_rests() {
    let mut processes = Processes::default();
    processes.read(0, vec![reading(1, 50, 0), reading(2, 10, 0)]);
    let wish = Wish { opened: Some(id(2)), ..Wish::default() };
    let mut budget = Budget::new(4000);
    budget.spend(u64::MAX);
    assert_eq!(budget.next(processes.all(), wish, 0), Some(id(2)));
    processes.look(look(2, 0, 10 * MS));
    assert_eq!(budget.next(processes.all(), wish, 189 * MS), None);
    assert_eq!(budget.next(processes.all(), wish, 190 * MS), Some(id(2)));
    let paused = Wish { paused: true, ..wish };
    assert_eq!(budget.next(processes.all(), paused, SECOND), None);
}
