//! What call stacks gave up and how often they faulted, by process: the probes summed it by address
//! space.

use std::{cmp::Reverse, collections::HashMap};

use memtrace_common::{
    Path,
    stacks::{Faulted, Faulter, Reclaimed, Reclaimer},
};

use super::bytes;
use crate::model::{
    change::path_name,
    report::{Evidence, FaultedBy, Frame, ReclaimedBy},
};

/// Returns what the call stacks of one process gave up, the most bytes first. `frames` returns those of
/// a stack in an address space.
pub fn reclaimed_by(
    evidence: Evidence,
    sums: &[(Reclaimer, Reclaimed)],
    frames: impl Fn(u64, u64) -> Vec<Frame>,
) -> Vec<ReclaimedBy> {
    let mut rows: HashMap<(&str, Vec<Frame>), Reclaimed> = HashMap::new();
    for (Reclaimer { space, stack, path }, sum) in sums {
        let known = u16::try_from(*path).ok().and_then(Path::from_raw);
        let name = known.map_or(path_name(Path::Other), path_name);
        let row = rows.entry((name, frames(*space, *stack))).or_default();
        row.calls = row.calls.saturating_add(sum.calls);
        row.zapped_pages = row.zapped_pages.saturating_add(sum.zapped_pages);
        row.freed_frames = row.freed_frames.saturating_add(sum.freed_frames);
    }
    let row = |((path, frames), sum): ((&str, Vec<Frame>), Reclaimed)| ReclaimedBy {
        path: path.to_owned(),
        calls: sum.calls,
        zapped: bytes(sum.zapped_pages),
        freed: evidence.knows(Evidence::Frames, bytes(sum.freed_frames)),
        frames,
    };
    let mut rows: Vec<ReclaimedBy> = rows.into_iter().map(row).collect();
    rows.sort_by_cached_key(|row| {
        (Reverse((row.bytes(), row.zapped, row.calls)), row.path.clone(), places(&row.frames))
    });
    rows
}

/// Returns how often the call stacks of one process faulted, the most first.
pub fn faulted_by(
    sums: &[(Faulter, Faulted)],
    frames: impl Fn(u64, u64) -> Vec<Frame>,
) -> Vec<FaultedBy> {
    let mut rows: HashMap<Vec<Frame>, u64> = HashMap::new();
    for (Faulter { space, stack }, sum) in sums {
        let faults = rows.entry(frames(*space, *stack)).or_default();
        *faults = faults.saturating_add(sum.faults);
    }
    let rows = rows.into_iter().map(|(frames, faults)| FaultedBy { faults, frames });
    let mut rows: Vec<FaultedBy> = rows.collect();
    rows.sort_by_cached_key(|row| (Reverse(row.faults), places(&row.frames)));
    rows
}

/// Returns what puts call stacks in the same order each time.
fn places(frames: &[Frame]) -> Vec<(Option<String>, String)> {
    frames.iter().map(|frame| (frame.file.clone(), frame.offset.clone())).collect()
}

#[cfg(test)]
mod tests {
    use memtrace_common::stacks::Origin;

    use super::*;
    use crate::model::region_map::PAGE;

    /// The same function in the first two address spaces.
    fn frames(space: u64, stack: u64) -> Vec<Frame> {
        let function = if space == 3 { "other".into() } else { format!("f{stack}") };
        vec![Frame { function: Some(function), ..Frame::default() }]
    }

    #[test]
    fn a_call_stack_of_several_address_spaces_is_one_row_for_each_path() {
        let sum = |space, stack, path: Path, calls, zapped_pages, freed_frames| {
            let reclaimer = Reclaimer { space, stack, path: path as u64 };
            let origin = Origin::default();
            (reclaimer, Reclaimed { origin, calls, zapped_pages, freed_frames })
        };
        let sums = [
            sum(1, 7, Path::Munmap, 1, 10, 4),
            sum(2, 7, Path::Munmap, 2, 20, 5),
            sum(1, 7, Path::DontNeed, 1, 50, 3),
            sum(3, 7, Path::Munmap, 1, 1, 100),
        ];
        let told = |evidence| {
            let rows = reclaimed_by(evidence, &sums, frames);
            let row = |row: ReclaimedBy| {
                let function = row.frames[0].function.clone().expect("named");
                let freed = row.freed.map(|bytes| bytes / PAGE);
                (row.path, function, row.calls, row.zapped / PAGE, freed)
            };
            rows.into_iter().map(row).collect::<Vec<_>>()
        };
        let row = |path: &str, function: &str, calls, zapped, freed| {
            (path.to_owned(), function.to_owned(), calls, zapped, freed)
        };
        assert_eq!(
            told(Evidence::Frames),
            [
                row("munmap", "other", 1, 1, Some(100)),
                row("munmap", "f7", 3, 30, Some(9)),
                row("dont_need", "f7", 1, 50, Some(3)),
            ]
        );
        assert_eq!(
            told(Evidence::Rss),
            [
                row("dont_need", "f7", 1, 50, None),
                row("munmap", "f7", 3, 30, None),
                row("munmap", "other", 1, 1, None),
            ]
        );
    }

    #[test]
    fn faults_are_summed_by_call_stack_the_most_first() {
        let sum = |space, stack, faults| {
            (Faulter { space, stack }, Faulted { faults, ..Faulted::default() })
        };
        let rows = faulted_by(&[sum(1, 7, 2), sum(2, 7, 3), sum(3, 7, u64::MAX)], frames);
        let rows: Vec<_> = rows.iter().map(|row| (row.faults, &row.frames)).collect();
        assert_eq!(rows, [(u64::MAX, &frames(3, 7)), (5, &frames(1, 7))]);
    }
}
