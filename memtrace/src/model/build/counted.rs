//! What the books tell beside what left: how frames were filled, swap, what became of frames that
//! were given up.

use memtrace_common::{Counter, Delays, Fill, Ledger, Path, Remanence};

use super::{Residency, bytes};
use crate::model::{
    process::Process,
    report::{self, Evidence, Faults, MadvFree, Reuse, Swap, Within, ZeroedByKind},
    space::AddressSpace,
};

/// Returns the faults, and how the frames for them got their contents.
pub(super) fn faults(evidence: Evidence, process: &Process, spaces: &[&AddressSpace]) -> Faults {
    let counts = process.faults.in_window();
    let filled = |fill: Fill| {
        let frames = told(spaces, |ledger| ledger.filled_frames[fill as usize]);
        evidence.knows(Evidence::Frames, frames).flatten()
    };
    let [anon, huge, shmem] = [Fill::Zeroed, Fill::ZeroedHuge, Fill::ZeroedShmem].map(filled);
    Faults {
        minor: counts.map(|(minor, _)| minor),
        major: counts.map(|(_, major)| major),
        zeroed: anon
            .zip(huge)
            .zip(shmem)
            .map(|((anon, huge), shmem)| anon.saturating_add(huge).saturating_add(shmem)),
        zeroed_by_kind: ZeroedByKind { anon, huge, shmem },
        copied: filled(Fill::Copied),
    }
}

/// Sums a figure of the books; `None` when there are none, or an older trace does not tell it.
fn told(spaces: &[&AddressSpace], figure: impl Fn(&Ledger) -> u64) -> Option<u64> {
    let mut sum: Option<u64> = None;
    for figure in spaces.iter().map(|space| figure(&space.ledger)) {
        if figure == Ledger::NOT_TOLD {
            return None;
        }
        sum = Some(sum.unwrap_or(0).saturating_add(figure));
    }
    sum
}

/// Returns what went to swap and came back.
pub(super) fn swap(evidence: Evidence, spaces: &[&AddressSpace]) -> Swap {
    let counted = |pages: Option<u64>| evidence.knows(Evidence::Rss, pages.map(bytes)).flatten();
    Swap {
        out: counted(told(spaces, |ledger| ledger.swapped_out_pages)),
        r#in: counted(told(spaces, |ledger| ledger.swapped_in_pages)),
    }
}

/// Returns what became of the memory that was given up by `MADV_FREE`.
pub(super) fn madv_free(
    evidence: Evidence,
    spaces: &[&AddressSpace],
    read: Option<&Residency>,
) -> MadvFree {
    let now = read.map(|read| read.total.lazy_free);
    let advised = read.and_then(|read| read.advised);
    // What reclaim takes goes to swap, unless nobody wants it back.
    let taken = told(spaces, |ledger| match ledger.swapped_out_pages {
        Ledger::NOT_TOLD => Ledger::NOT_TOLD,
        swapped => ledger.paths[Path::Pressure.index()].zapped_pages[Counter::Anon as usize]
            .saturating_sub(swapped),
    });
    MadvFree {
        now,
        used_again: advised.zip(now).map(|(resident, now)| resident.saturating_sub(now)),
        taken: evidence.knows(Evidence::Rss, taken.map(bytes)).flatten(),
    }
}

/// Returns how long freed frames kept what was in them, if anybody measured.
pub(super) fn remanence(spaces: &[&AddressSpace]) -> Option<report::Remanence> {
    let mut sum: Option<Remanence> = None;
    for remanence in spaces.iter().filter_map(|space| space.afterlife.remanence.as_ref()) {
        sum.get_or_insert_default().add(remanence);
    }
    let Remanence { freed_frames: freed, zeroed_frames, to_itself, to_others } = &sum?;
    let (to_itself, to_others) = (reuse(to_itself), reuse(to_others));
    Some(report::Remanence {
        freed: *freed,
        still_free: freed.saturating_sub(to_itself.frames).saturating_sub(to_others.frames),
        zeroed_for_others: *zeroed_frames,
        to_itself,
        to_others,
    })
}

fn reuse(delays: &Delays) -> Reuse {
    let buckets = delays.frames.iter().enumerate().filter(|&(_, &frames)| frames > 0);
    Reuse {
        frames: delays.all_frames(),
        p50_ns: delays.within(50).unwrap_or(0),
        p99_ns: delays.within(99).unwrap_or(0),
        max_ns: delays.max_ns,
        histogram: buckets
            .map(|(bucket, &frames)| Within { within_ns: Delays::end(bucket), frames })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{build::RegionResidency, region_map::PAGE, space::Afterlife};

    fn space(ledger: Ledger) -> AddressSpace {
        let mut space = AddressSpace::default();
        space.ledger = ledger;
        space
    }

    #[test]
    fn what_reclaim_took_and_did_not_write_to_swap_was_free() {
        let mut ledger = Ledger { swapped_out_pages: 3, swapped_in_pages: 1, ..Ledger::default() };
        ledger.paths[Path::Pressure.index()].zapped_pages[Counter::Anon as usize] = 10;
        let space = space(ledger);
        let read = Residency {
            total: RegionResidency { lazy_free: 5 * PAGE, ..RegionResidency::default() },
            advised: Some(7 * PAGE),
            ..Residency::default()
        };
        let found = madv_free(Evidence::Rss, &[&space, &space], Some(&read));
        let pages = |pages: u64| Some(pages * PAGE);
        assert_eq!(found, MadvFree { now: pages(5), used_again: pages(2), taken: pages(14) });
        let Swap { out, r#in } = swap(Evidence::Rss, &[&space, &space]);
        assert_eq!((out, r#in), (pages(6), pages(2)));
        assert_eq!(swap(Evidence::Args, &[&space]), Swap::default());
        assert_eq!(madv_free(Evidence::Args, &[&space], None), MadvFree::default());
    }

    #[test]
    fn what_one_trace_does_not_tell_nobody_knows() {
        let known = space(Ledger { filled_frames: [1, 512, 3, 4], ..Ledger::default() });
        let older =
            space(Ledger { filled_frames: [1, 0, Ledger::NOT_TOLD, 4], ..Ledger::default() });
        let process = Process::default();
        let found = faults(Evidence::Frames, &process, &[&known, &known]);
        assert_eq!(found.zeroed, Some(2 * 516));
        assert_eq!(found.copied, Some(8));
        let found = faults(Evidence::Frames, &process, &[&known, &older]);
        let kinds = ZeroedByKind { anon: Some(2), huge: Some(512), shmem: None };
        assert_eq!((found.zeroed, found.zeroed_by_kind), (None, kinds));
        assert_eq!(faults(Evidence::Rss, &process, &[&known]), Faults::default());
        assert_eq!(faults(Evidence::Frames, &process, &[]), Faults::default());
    }

    #[test]
    fn frames_are_given_out_again_or_still_free() {
        let mut one = Remanence { freed_frames: 10, zeroed_frames: 1, ..Remanence::default() };
        let add = |delays: &mut Delays, ns, frames| {
            delays.frames[Delays::bucket(ns)] += frames;
            delays.max_ns = delays.max_ns.max(ns);
        };
        add(&mut one.to_itself, 100, 4);
        add(&mut one.to_others, 5_000, 1);
        add(&mut one.to_others, 900, 1);
        let mut space = AddressSpace::default();
        space.afterlife = Afterlife { delays: None, remanence: Some(one) };
        let unmeasured = AddressSpace::default();
        assert_eq!(remanence(&[&unmeasured]), None);
        let found = remanence(&[&space, &unmeasured, &space]).expect("measured");
        assert_eq!((found.freed, found.still_free, found.zeroed_for_others), (20, 8, 2));
        assert_eq!((found.to_itself.frames, found.to_itself.p50_ns), (8, 100));
        let steps = [Within { within_ns: 1023, frames: 2 }, Within { within_ns: 8191, frames: 2 }];
        assert_eq!(found.to_others.histogram, steps);
    }
}
