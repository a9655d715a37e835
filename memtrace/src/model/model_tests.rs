#[path = "stale_tests.rs"]
mod stale;
#[path = "told_tests.rs"]
mod told;

use memtrace_common::{
    Delays, Exec, Exit, Fault, FileName, Fork, Header, Ledger, MmEnd, PathCounters, TaskSeed,
    TeardownRun,
};

use super::*;
use crate::model::{
    build::{Surroundings, report},
    fact::Fact,
    life::{CLONE_VM, KEPT_REGION_MAPS, WATCHED_ENDS},
    report::{Host, ProcessReport},
    space::{Afterlife, Layout},
};
use region_map::{Backing, PAGE, flag};

fn books(space: SpaceId, ledger: Ledger, afterlife: Afterlife) -> Fact {
    Fact::Books { space, ledger: Box::new(ledger), afterlife: Box::new(afterlife) }
}

const MM: u64 = 0xffff_8880_0000_1000;
const OTHER_MM: u64 = 0xffff_8880_0000_2000;

fn header(tgid: u32, mm: u64) -> Header {
    Header { time_ns: 1_000, mm, tgid, tid: tgid, ..Header::default() }
}

fn exec(tgid: u32, mm: u64, path: &str) -> Event {
    let mut name = [0; 96];
    name[..path.len()].copy_from_slice(path.as_bytes());
    Event::Exec(Exec {
        header: header(tgid, mm),
        start_ns: 500,
        start_brk: 100 * PAGE,
        brk: 100 * PAGE,
        start_stack: 0,
        vdso: 0,
        minor_faults: 10,
        major_faults: 1,
        path: name,
    })
}

fn region(mm: u64, pages: std::ops::Range<u64>, seq: u64) -> Region {
    let (start, end) = (pages.start * PAGE, pages.end * PAGE);
    let flags = flag::READ | flag::WRITE;
    Region {
        header: header(1, mm),
        seq,
        start,
        end,
        pgoff: pages.start,
        flags,
        ..Region::default()
    }
}

fn map(mm: u64, pages: std::ops::Range<u64>, seq: u64) -> Event {
    Event::MapRegion(region(mm, pages, seq))
}

fn fork(parent: u32, child: u32, child_mm: u64, clone_flags: u64) -> Fork {
    Fork {
        header: header(parent, child_mm),
        parent_mm: MM,
        clone_flags,
        child_tgid: child,
        followed: 1,
        child_start_ns: 700,
    }
}

fn exit(tgid: u32, mm: u64, exit_code: u32) -> Event {
    let header = header(tgid, mm);
    Event::Exit(Exit { header, minor_faults: 30, major_faults: 1, exit_code, reserved: 0 })
}

fn mm_end(mm: u64, path: Path, pages: u64) -> Event {
    let mut ledger = Ledger::default();
    ledger.in_pages[0] = pages as i64;
    ledger.paths[path.index()].zapped_pages[0] = pages;
    Event::MmEnd(MmEnd { header: header(1, mm), ledger })
}

fn model(events: &[Event]) -> Model {
    let mut model = Model::default();
    for event in events {
        model.apply(event);
    }
    model
}

fn processes(model: &Model) -> Vec<ProcessReport> {
    let host = Host { page_size: PAGE, ..Host::default() };
    let stats = memtrace_common::ProbeStats::default();
    let surroundings =
        Surroundings { host, start_ns: 0, end_ns: 1, stats, missed: 0, probes: Vec::new() };
    report(model, surroundings, &HashMap::new()).processes
}

/// First page of each region, and the first one after it, of the address space that a process has
/// or had last.
fn regions(model: &Model, at: usize) -> Vec<(u64, u64)> {
    let id = model.processes()[at].space().expect("it has one");
    let regions = model.space(id).regions.iter();
    regions.map(|vma| (vma.range.start / PAGE, vma.range.end / PAGE)).collect()
}

/// The `mm_struct`s of the address spaces that have not ended.
fn mms(model: &Model) -> Vec<u64> {
    model.by_mm.keys().copied().collect()
}

fn space_of(model: &Model, at: usize) -> SpaceId {
    model.processes()[at].space().expect("it has one")
}

#[test]
fn exec_takes_the_address_space_that_was_built_before_it() {
    let model = model(&[map(MM, 5..9, 1), exec(1, MM, "/usr/bin/cat")]);
    assert_eq!(regions(&model, 0), [(5, 9)]);
    let [process] = processes(&model).try_into().expect("one");
    assert_eq!((process.tgid, process.start_time), (1, 500));
    assert_eq!(process.comm, "cat");
    assert_eq!(process.exe.as_deref(), Some("/usr/bin/cat"));
}

#[test]
fn a_name_is_what_the_kernel_would_call_it() {
    let model = model(&[exec(1, MM, "a-name-of-more-than-15-bytes"), exec(2, OTHER_MM, "x/")]);
    assert_eq!(model.processes()[0].comm, "a-name-of-more-");
    assert_eq!(model.processes()[1].comm, "");
}

#[test]
fn exec_begins_a_new_address_space_and_keeps_the_books_of_the_old_one() {
    let mut model = model(&[map(MM, 0..4, 1), exec(1, MM, "sh")]);
    for event in [map(OTHER_MM, 5..9, 1), mm_end(MM, Path::Exec, 3), exec(1, OTHER_MM, "/bin/cat")]
    {
        model.apply(&event);
    }
    assert_eq!(model.processes().len(), 1);
    assert_eq!(regions(&model, 0), [(5, 9)]);
    let [process] = processes(&model).try_into().expect("one");
    let exec = &process.reclaimed.by_path["exec"];
    assert_eq!((exec.calls, exec.requested, exec.zapped), (1, Some(4 * PAGE), Some(3 * PAGE)));
    assert_eq!(process.comm, "cat");
}

#[test]
fn faults_are_counted_from_the_first_exec_on() {
    let Event::Exec(second) = exec(1, OTHER_MM, "cat") else { unreachable!() };
    let second = Event::Exec(Exec { minor_faults: 25, ..second });
    let model = model(&[exec(1, MM, "sh"), second, exit(1, OTHER_MM, 0)]);
    assert_eq!(model.processes()[0].faults.in_window(), Some((20, 0)));
}

#[test]
fn a_process_that_was_expected_is_not_there_twice() {
    let mut model = Model::default();
    model.learn(&Fact::Expected { tgid: 1 });
    model.apply(&map(MM, 0..4, 1));
    model.apply(&exec(1, MM, "sh"));
    assert_eq!(model.processes().len(), 1);
    assert_eq!(model.processes()[0].start_ns, 500);
}

#[test]
fn exec_by_a_thread_that_is_not_the_leader_is_its_process_exec() {
    let mut model = model(&[map(MM, 0..4, 1), exec(1, MM, "sh")]);
    model.apply(&map(OTHER_MM, 5..9, 1));
    let Event::Exec(mut event) = exec(1, OTHER_MM, "cat") else { unreachable!() };
    // The kernel gives the thread the leader's id before it tells of the exec; a probe that reads
    // it earlier still names the process.
    event.header.tid = 77;
    let change = model.apply(&Event::Exec(event)).expect("a line");
    assert_eq!((change.tgid, change.tid), (1, 77));
    assert_eq!(model.processes().len(), 1);
    assert_eq!(model.living().map(|process| process.tgid).collect::<Vec<_>>(), [1]);
    assert_eq!(model.processes()[0].spaces.len(), 2);
}

#[test]
fn an_exit_ends_a_process_and_its_address_space_ends_later() {
    let mut model = model(&[map(MM, 0..4, 1), exec(1, MM, "sh")]);
    assert_eq!(model.living_mms(), [(1, MM)]);
    let change = model.apply(&exit(1, MM, 7 << 8)).expect("a line");
    assert_eq!(change.what, What::Exit { code: 7 });
    assert_eq!(model.living_mms(), []);
    assert_eq!(model.living().count(), 0);
    assert_eq!(mms(&model), [MM]);
    let change = model.apply(&mm_end(MM, Path::Exit, 2)).expect("a line");
    assert_eq!(change.what, What::MmEnd { zapped: Some(2 * PAGE), freed: Some(0) });
    assert!(mms(&model).is_empty());
    let [process] = processes(&model).try_into().expect("one");
    assert_eq!((process.state, process.exit_code), ("exited", Some(7)));
    assert_eq!(process.memory.mapped, Some(4 * PAGE));
    assert_eq!(process.memory.resident, Some(2 * PAGE));
}

#[test]
fn an_address_space_may_end_before_the_exit_is_told() {
    let model =
        model(&[map(MM, 0..4, 1), exec(1, MM, "sh"), mm_end(MM, Path::Exit, 2), exit(1, 0, 9)]);
    let [process] = processes(&model).try_into().expect("one");
    assert_eq!((process.exit_code, process.memory.mapped), (Some(137), Some(4 * PAGE)));
}

#[test]
fn what_happens_to_processes_that_are_not_known_is_passed_over() {
    let mut model = Model::default();
    assert_eq!(model.apply(&exit(9, MM, 0)), None);
    assert_eq!(model.apply(&mm_end(MM, Path::Exit, 1)), None);
    assert_eq!(model.processes().len(), 0);
    let unknown_call = Call { header: header(9, MM), syscall: 999, ..Call::default() };
    assert_eq!(model.apply(&Event::Call(unknown_call)), None);
}

#[test]
fn fork_gives_the_child_its_parents_name_layout_and_a_map_of_its_own() {
    let mut model = model(&[map(MM, 0..4, 1), exec(1, MM, "/bin/sh")]);
    // The kernel copies the regions before it tells of the fork.
    model.apply(&map(OTHER_MM, 0..4, 1));
    model.apply(&Event::Fork(fork(1, 2, OTHER_MM, 0)));
    model.apply(&map(OTHER_MM, 8..9, 2));
    assert_eq!(regions(&model, 0), [(0, 4)]);
    assert_eq!(regions(&model, 1), [(0, 4), (8, 9)]);
    let child = &model.processes()[1];
    assert_eq!((child.tgid, child.start_ns), (2, 700));
    assert_eq!((child.comm.as_str(), child.exe.as_deref()), ("sh", Some("/bin/sh")));
    assert_eq!(model.space(space_of(&model, 1)).layout, model.space(space_of(&model, 0)).layout);
    assert_ne!(model.space(space_of(&model, 1)).layout, Layout::default());
}

#[test]
fn a_child_that_is_not_followed_is_a_line_and_nothing_more() {
    let mut model = model(&[exec(1, MM, "sh")]);
    let mut event = fork(1, 2, OTHER_MM, 0);
    event.followed = 0;
    let change = model.apply(&Event::Fork(event)).expect("a line");
    assert_eq!(change.what, What::Fork { child: 2, followed: false });
    assert_eq!(model.processes().len(), 1);
    assert_eq!(mms(&model), [MM]);
}

#[test]
fn clone_vm_shares_one_address_space_whose_books_are_the_first_owners() {
    let mut model = model(&[map(MM, 0..4, 1), exec(1, MM, "sh")]);
    model.apply(&Event::Fork(fork(1, 2, MM, CLONE_VM)));
    // Whoever of the two maps, both have it.
    model.apply(&map(MM, 8..9, 2));
    assert_eq!(space_of(&model, 0), space_of(&model, 1));
    assert_eq!(regions(&model, 1), [(0, 4), (8, 9)]);
    for event in [exit(1, MM, 0), exit(2, MM, 0), mm_end(MM, Path::Exit, 3)] {
        model.apply(&event);
    }
    let [first, second] = processes(&model).try_into().expect("two");
    assert_eq!(first.reclaimed.by_path["exit"].zapped, Some(3 * PAGE));
    assert!(second.reclaimed.by_path.is_empty());
    assert_eq!((second.balance.r#in, second.balance.unexplained), (None, None));
    assert_eq!(first.regions.len(), 2);
}

#[test]
fn a_vfork_child_that_executes_leaves_its_parents_address_space_alone() {
    let mut model = model(&[map(MM, 0..4, 1), exec(1, MM, "sh")]);
    const CLONE_VFORK: u64 = 0x4000;
    model.apply(&Event::Fork(fork(1, 2, MM, CLONE_VM | CLONE_VFORK)));
    for event in [
        map(OTHER_MM, 5..9, 1),
        exec(2, OTHER_MM, "cat"),
        exit(2, OTHER_MM, 0),
        mm_end(OTHER_MM, Path::Exit, 2),
    ] {
        model.apply(&event);
    }
    assert_eq!(mms(&model), [MM]);
    let [parent, child] = processes(&model).try_into().expect("two");
    assert!(parent.reclaimed.by_path.is_empty());
    assert_eq!(parent.memory.mapped, Some(4 * PAGE));
    assert_eq!(child.reclaimed.by_path["exit"].zapped, Some(2 * PAGE));
    assert_eq!(child.memory.mapped, Some(4 * PAGE));
    assert_eq!(child.comm, "cat");
}

#[test]
fn the_address_of_an_mm_that_ended_may_be_another_mms() {
    let mut model = model(&[map(MM, 0..4, 1), exec(1, MM, "sh"), exit(1, MM, 0)]);
    model.apply(&mm_end(MM, Path::Exit, 2));
    model.apply(&map(MM, 7..8, 1));
    model.apply(&exec(2, MM, "cat"));
    assert_eq!(regions(&model, 0), [(0, 4)]);
    assert_eq!(regions(&model, 1), [(7, 8)]);
    let mut ledger = Ledger::default();
    ledger.in_pages[0] = 5;
    let space = model.space_at(MM).expect("it lives");
    model.learn(&books(space, ledger, Afterlife::default()));
    assert_eq!(model.space(space_of(&model, 1)).ledger, ledger);
    assert_ne!(model.space(space_of(&model, 0)).ledger, ledger);
    // Of two that ended at one address only the later is still in the kernel's table.
    model.apply(&mm_end(MM, Path::Exit, 1));
    assert_eq!(model.ended(), [(MM, space_of(&model, 1))]);
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let model = model(&[exec(1, MM, "sh"), exit(1, MM, 0), exec(1, OTHER_MM, "cat")]);
    assert_eq!(model.processes().len(), 2);
    assert_eq!(model.living().map(|process| process.comm.as_str()).collect::<Vec<_>>(), ["cat"]);
}

#[test]
fn frames_that_come_late_are_booked_on_the_address_space_that_ended() {
    let mut model = model(&[map(MM, 0..4, 1), exec(1, MM, "sh"), exit(1, MM, 0)]);
    model.apply(&mm_end(MM, Path::Exit, 2));
    let [(mm, id)] = model.ended().try_into().expect("one");
    assert_eq!(mm, MM);
    let mut ledger = model.space(id).ledger;
    ledger.paths[Path::Exit.index()].late_frames = 2;
    let mut delays = Delays { max_ns: 5_000, ..Delays::default() };
    delays.frames[Delays::bucket(5_000)] = 2;
    let afterlife = Afterlife { delays: Some(delays), remanence: None };
    model.learn(&books(id, ledger, afterlife));
    assert_eq!(model.reclaimed_bytes(), Some(2 * PAGE));
    let reclaimed = &processes(&model)[0].reclaimed;
    let delay = reclaimed.late_delay.expect("two came late");
    assert_eq!((delay.p50_ns, delay.p99_ns, delay.max_ns), (5_000, 5_000, 5_000));
    let exit = &reclaimed.by_path["exit"];
    assert_eq!(
        (exit.freed, exit.late, exit.kept_elsewhere),
        (Some(2 * PAGE), Some(2 * PAGE), Some(0))
    );
}

#[test]
fn only_so_many_ended_address_spaces_are_watched() {
    let mut model = Model::default();
    for mm in 0..2 * WATCHED_ENDS as u64 {
        model.apply(&map(mm, 0..1, 1));
        model.apply(&mm_end(mm, Path::Exit, 1));
    }
    let ended = model.ended();
    assert_eq!(ended.len(), WATCHED_ENDS);
    assert_eq!(ended[0].0, WATCHED_ENDS as u64);
}

#[test]
fn a_seed_adds_a_process_once() {
    let seed = TaskSeed {
        header: header(1, MM),
        start_ns: 500,
        start_brk: 1,
        brk: 2,
        start_stack: 3,
        vdso: 4,
        rss_pages: [0; 4],
        tracked: 1,
    };
    // Its first change may be seen before it is.
    let model = model(&[map(MM, 0..4, 5), Event::TaskSeed(seed), Event::TaskSeed(seed)]);
    assert_eq!(model.processes().len(), 1);
    assert_eq!(regions(&model, 0), [(0, 4)]);
    let layout = Layout { start_brk: 1, brk: 2, start_stack: 3, vdso: 4 };
    assert_eq!(model.space(space_of(&model, 0)).layout, layout);
}
