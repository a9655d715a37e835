//! Sums what was sampled of a process by call stack.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use memtrace_common::stacks::{Freed, Live};

use crate::model::report::{Frame, FreedBy, ProcessReport, ProcessStacks, RetainedBy};

/// What was sampled of a process.
#[derive(Clone, Debug, Default)]
pub struct SampledProcess {
    /// What users call its PID.
    pub tgid: u32,
    /// Allocated and not freed.
    pub live: Vec<Live>,
    /// What each call stack freed.
    pub freed: Vec<(u64, Freed)>,
    /// What was freed and not given out again; `None` when the process is gone.
    pub still: Option<Vec<Still>>,
}

/// A block that was freed and not given out again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Still {
    /// Key of the call stack that freed it.
    pub stack: u64,
    /// Bytes for which it stands.
    pub weight: u64,
    /// Pages that it lies on.
    pub pages: u64,
    /// Those of them that are resident.
    pub resident: u64,
}

impl Still {
    /// Returns the bytes that may be resident.
    fn bytes(&self) -> u64 {
        let bytes = u128::from(self.weight) * u128::from(self.resident.min(self.pages));
        u64::try_from(bytes / u128::from(self.pages.max(1))).unwrap_or(u64::MAX)
    }
}

impl SampledProcess {
    /// Returns the keys of all call stacks.
    pub fn stacks(&self) -> BTreeSet<u64> {
        let live = self.live.iter().map(|live| live.stack);
        live.chain(self.freed.iter().map(|(stack, _)| *stack)).collect()
    }
}

/// Sums by call stack; `names` has the frames of each.
pub fn process_stacks(
    sampled: SampledProcess,
    mut names: HashMap<u64, Vec<Frame>>,
) -> ProcessStacks {
    let SampledProcess { tgid, live, freed, still } = sampled;
    let mut frames = |stack: u64, last: bool| {
        let known = if last { names.remove(&stack) } else { names.get(&stack).cloned() };
        known.unwrap_or_default()
    };
    let mut retained: BTreeMap<u64, RetainedBy> = BTreeMap::new();
    for Live { stack, weight, .. } in live {
        let row = retained.entry(stack).or_default();
        row.bytes = row.bytes.saturating_add(weight);
        row.samples += 1;
    }
    let mut retained_by: Vec<RetainedBy> = retained
        .into_iter()
        .map(|(stack, row)| RetainedBy { frames: frames(stack, false), ..row })
        .collect();
    retained_by.sort_by_key(|row| Reverse((row.bytes, row.samples)));

    let mut resident: HashMap<u64, u64> = HashMap::new();
    for block in still.iter().flatten() {
        let sum = resident.entry(block.stack).or_default();
        *sum = sum.saturating_add(block.bytes());
    }
    let mut freed_by: Vec<FreedBy> = freed
        .into_iter()
        .map(|(stack, Freed { samples, weight })| FreedBy {
            bytes: weight,
            resident_estimate: still
                .as_ref()
                .map(|_| resident.get(&stack).copied().unwrap_or(0).min(weight)),
            samples,
            frames: frames(stack, true),
        })
        .collect();
    freed_by.sort_by_key(|row| Reverse((row.resident_estimate, row.bytes, row.samples)));

    let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.fold(0, u64::saturating_add);
    ProcessStacks {
        tgid,
        retained: Some(sum(&mut retained_by.iter().map(|row| row.bytes))),
        freed: Some(sum(&mut freed_by.iter().map(|row| row.bytes))),
        freed_resident_estimate: still
            .as_ref()
            .map(|_| sum(&mut freed_by.iter().filter_map(|row| row.resident_estimate))),
        retained_by,
        freed_by,
        ..ProcessStacks::default()
    }
}

/// Lowers what may be resident to what the allocators of the process were found to keep, when all of
/// them were walked to the end: no call stack can have freed more of it.
pub fn limit(sampled: &mut ProcessStacks, process: &ProcessReport) {
    let ProcessReport { allocators, unwalked, memory, .. } = process;
    let all = unwalked.is_empty() && allocators.iter().all(|known| known.evidence == "walked");
    let Some(kept) = memory.freed_not_reclaimed.allocator.filter(|_| all) else { return };
    let rows = sampled.freed_by.iter_mut().map(|row| &mut row.resident_estimate);
    for bytes in rows.chain([&mut sampled.freed_resident_estimate]).flatten() {
        *bytes = kept.min(*bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::{AllocatorReport, FreedNotReclaimed, Memory};

    fn frame(function: &str) -> Vec<Frame> {
        vec![Frame { function: Some(function.into()), ..Frame::default() }]
    }

    fn sampled(still: Option<Vec<Still>>) -> SampledProcess {
        let live = [(1, 100), (2, 500), (1, 300)];
        let freed = [(1, 10, 5000), (3, 2, 8000)];
        SampledProcess {
            tgid: 7,
            live: live.map(|(stack, weight)| Live { stack, weight, size: 1 }).into(),
            freed: freed.map(|(stack, samples, weight)| (stack, Freed { samples, weight })).into(),
            still,
        }
    }

    fn named() -> HashMap<u64, Vec<Frame>> {
        HashMap::from([(1, frame("one")), (3, frame("three"))])
    }

    #[test]
    fn bytes_are_summed_by_stack_the_most_first() {
        let stacks = process_stacks(sampled(None), named());
        assert_eq!((stacks.tgid, stacks.retained, stacks.freed), (7, Some(900), Some(13_000)));
        let rows: Vec<_> = stacks.retained_by.iter().map(|row| (row.bytes, row.samples)).collect();
        assert_eq!(rows, [(500, 1), (400, 2)]);
        // A stack that could not be kept has no frames.
        assert_eq!(
            [&stacks.retained_by[0].frames, &stacks.retained_by[1].frames],
            [&vec![], &frame("one")]
        );
        let rows: Vec<_> = stacks.freed_by.iter().map(|row| (row.bytes, &row.frames)).collect();
        assert_eq!(rows, [(8000, &frame("three")), (5000, &frame("one"))]);
    }

    #[test]
    fn what_is_resident_is_known_of_what_lives_and_never_more_than_was_freed() {
        let gone = process_stacks(sampled(None), named());
        assert_eq!(gone.freed_resident_estimate, None);
        let half = Still { stack: 1, weight: 4000, pages: 2, resident: 1 };
        let more = Still { stack: 3, weight: u64::MAX, pages: 0, resident: 9 };
        let stacks = process_stacks(sampled(Some(vec![half, half, more])), named());
        let rows: Vec<_> = stacks.freed_by.iter().map(|row| row.resident_estimate).collect();
        assert_eq!(rows, [Some(4000), Some(0)]);
        assert_eq!(stacks.freed_resident_estimate, Some(4000));
    }

    #[test]
    fn no_more_is_resident_than_allocators_keep_that_were_walked() {
        let before = ProcessStacks {
            freed_resident_estimate: Some(30),
            freed_by: [Some(20), Some(10), None]
                .map(|resident_estimate| FreedBy { resident_estimate, ..FreedBy::default() })
                .into(),
            ..ProcessStacks::default()
        };
        let freed_not_reclaimed = FreedNotReclaimed { allocator: Some(15), ..Default::default() };
        let mut process = ProcessReport {
            memory: Memory { freed_not_reclaimed, ..Memory::default() },
            allocators: vec![AllocatorReport { evidence: "walked", ..AllocatorReport::default() }],
            ..ProcessReport::default()
        };
        let figures = |process: &ProcessReport| {
            let mut stacks = before.clone();
            limit(&mut stacks, process);
            let rows = stacks.freed_by.iter().map(|row| row.resident_estimate);
            (stacks.freed_resident_estimate, rows.collect::<Vec<_>>())
        };
        assert_eq!(figures(&process), (Some(15), vec![Some(15), Some(10), None]));
        process.allocators[0].evidence = "lower_bound";
        assert_eq!(figures(&process).0, Some(30));
    }
}
