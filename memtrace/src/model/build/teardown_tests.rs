//! Where memory was resident that came back at the end.

use memtrace_common::TeardownRun;

use super::*;

pub(super) fn run(first: u64, pages: u64, frames: u64) -> Event {
    Event::TeardownRun(TeardownRun { header: header(), first, pages, frames })
}

/// Resident pages of each region, by its first page, after these runs.
pub(super) fn at_teardown(regions: &[Region], runs: &[Event]) -> BTreeMap<u64, Option<u64>> {
    let events = [runs, &exited(Ledger::default())].concat();
    let page = |address: &str| {
        u64::from_str_radix(address.trim_start_matches("0x"), 16).expect("hexadecimal") / PAGE
    };
    let regions = only(&model(regions, &events)).regions;
    regions.iter().map(|row| (page(&row.start), row.resident.map(|bytes| bytes / PAGE))).collect()
}

#[test]
fn frames_that_came_back_at_the_teardown_were_in_the_region_of_their_index() {
    let regions = [anon(10..20), anon(30..40)];
    let found = at_teardown(&regions, &[run(10, 3, 3), run(15, 5, 4), run(30, 10, 10)]);
    assert_eq!(found, BTreeMap::from([(10, Some(7)), (30, Some(10))]));
}

#[test]
fn a_run_across_two_regions_fills_the_first_before_the_second() {
    let found = at_teardown(&[anon(10..20), anon(20..40)], &[run(18, 8, 6)]);
    assert_eq!(found, BTreeMap::from([(10, Some(2)), (20, Some(4))]));
}

#[test]
fn a_run_outside_of_every_region_is_nobodys() {
    let found = at_teardown(&[anon(10..20)], &[run(0, 5, 5), run(25, 5, 5)]);
    assert_eq!(found, BTreeMap::from([(10, Some(0))]));
}

#[test]
fn a_region_that_was_moved_is_found_by_its_index() {
    let moved = Region { pgoff: 10, ..anon(100..110) };
    let found = at_teardown(&[moved], &[run(12, 4, 4)]);
    assert_eq!(found, BTreeMap::from([(100, Some(4))]));
}

#[test]
fn how_much_of_a_file_was_resident_at_the_exit_is_not_known() {
    let found = at_teardown(&[file(0..10, memtrace_common::Backing::File)], &[run(0, 5, 5)]);
    assert_eq!(found, BTreeMap::from([(0, None)]));
}

#[test]
fn regions_come_with_the_most_resident_first() {
    let regions = [anon(0..5), anon(10..20), anon(30..90)];
    let events = [&[run(0, 4, 4), run(10, 2, 2)][..], &exited(Ledger::default())].concat();
    let rows = only(&model(&regions, &events)).regions;
    let starts: Vec<&str> = rows.iter().map(|row| row.start.as_str()).collect();
    assert_eq!(starts, ["0x0", "0xa000", "0x1e000"]);
}

#[test]
fn frames_of_a_file_are_not_in_the_vdso_though_both_begin_at_0() {
    // Its pages are numbered from 0, as are those of a private file that were copied.
    let vdso = Region { pgoff: 0, flags: flag::READ | flag::EXEC, ..anon(50..52) };
    let mut begun = exec((0, 0));
    if let Event::Exec(exec) = &mut begun {
        exec.vdso = 50 * PAGE;
    }
    let found = at_teardown(&[vdso], &[begun, run(0, 9, 9)]);
    assert_eq!(found, BTreeMap::from([(50, Some(0))]));
}
