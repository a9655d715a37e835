//! What left a process, by path: the sums of its address spaces, and why frames stayed.

use std::collections::BTreeMap;

use memtrace_common::{Counter, Delays, Ledger, Path, PathCounters};

use super::{Held, bytes, kind_name};
use crate::model::{
    change::path_name,
    report::{Evidence, KeptByReason, KindReport, LateDelay, PathReport, Reclaimed},
    space::{AddressSpace, LeftByKind, Requests},
};

/// What left by one path.
#[derive(Clone, Copy, Default)]
struct Left {
    requests: Requests,
    counters: PathCounters,
    freed_anon_frames: u64,
    shared_pages: u64,
}

impl Left {
    /// Sums what left these address spaces by a path.
    fn sum(spaces: &[&AddressSpace], path: Path) -> Self {
        let at = path.index();
        let mut sum = Self::default();
        let add = |total: &mut u64, more: u64| *total = total.saturating_add(more);
        for AddressSpace { given_up, ledger, .. } in spaces {
            sum.requests.add_all(&given_up[at]);
            sum.counters.add(&ledger.paths[at]);
            add(&mut sum.freed_anon_frames, ledger.freed_anon_frames[at]);
            // Reclaim takes a page from all who share it: none of them keeps it.
            if path != Path::Pressure {
                add(&mut sum.shared_pages, ledger.shared_pages[at]);
            }
        }
        // Entries of swap are no frames.
        sum.counters.zapped_pages[Counter::Swap as usize] = 0;
        sum
    }

    /// Returns the frames that came back, in the operation or late.
    const fn freed_frames(&self) -> u64 {
        self.counters.all_freed_frames()
    }

    /// Returns the pages whose frames did not come back.
    const fn kept_pages(&self) -> u64 {
        self.counters.resident_pages().saturating_sub(self.freed_frames())
    }

    /// Returns why frames stayed; an older trace does not tell. What was freed and is not anonymous
    /// went out of tmpfs, as a rule: the page cache keeps its own.
    fn kept_by_reason(&self) -> Option<KeptByReason> {
        if self.freed_anon_frames == Ledger::NOT_TOLD {
            return None;
        }
        let zapped = |counter: Counter| self.counters.zapped_pages[counter as usize];
        let kept = self.kept_pages();
        let freed_other = self.freed_frames().saturating_sub(self.freed_anon_frames);
        let shmem = zapped(Counter::Shmem).saturating_sub(freed_other).min(kept);
        let left_over = freed_other.saturating_sub(zapped(Counter::Shmem));
        let page_cache = zapped(Counter::File).saturating_sub(left_over).min(kept - shmem);
        let anon = kept - shmem - page_cache;
        // What came late after all was not shared.
        let shared = self.shared_pages.min(anon);
        let [page_cache, shmem, shared, unknown] =
            [page_cache, shmem, shared, anon - shared].map(bytes);
        Some(KeptByReason { page_cache, shmem, shared, unknown, ..KeptByReason::default() })
    }
}

/// Gives a reason to what has none, as far as one is known of the process as a whole.
fn explain(by_path: &mut BTreeMap<&'static str, PathReport>, mut held: Held) {
    for (&path, report) in by_path {
        let Some(kept) = &mut report.kept_by_reason else { continue };
        let mut move_to = |reason: &mut u64, known: u64| {
            let moved = kept.unknown.min(known);
            *reason += moved;
            kept.unknown -= moved;
            moved
        };
        if path == path_name(Path::Pressure) {
            move_to(&mut kept.swap, u64::MAX);
        } else {
            held.by_huge_pages -= move_to(&mut kept.huge_page, held.by_huge_pages);
            held.by_pins -= move_to(&mut kept.pinned, held.by_pins);
        }
    }
}

/// Returns what left these address spaces.
pub(super) fn reclaimed(
    evidence: Evidence,
    spaces: &[&AddressSpace],
    held: Option<Held>,
) -> Reclaimed {
    let mut by_path = BTreeMap::new();
    let mut frames: u64 = 0;
    for path in Path::ALL {
        let left = Left::sum(spaces, path);
        if (left.requests, left.counters) == Default::default() {
            continue;
        }
        frames = frames.saturating_add(left.freed_frames());
        let counted = |frames| evidence.knows(Evidence::Frames, bytes(frames));
        by_path.insert(
            path_name(path),
            PathReport {
                calls: left.requests.calls,
                requested: left.requests.known_bytes(),
                zapped: evidence.knows(Evidence::Rss, bytes(left.counters.resident_pages())),
                freed: counted(left.freed_frames()),
                late: counted(left.counters.late_frames),
                kept_elsewhere: counted(left.kept_pages()),
                kept_by_reason: evidence.knows(Evidence::Frames, left.kept_by_reason()).flatten(),
            },
        );
    }
    explain(&mut by_path, held.unwrap_or_default());
    let total = evidence.knows(Evidence::Frames, bytes(frames));
    Reclaimed { total, late_delay: late_delay(spaces), by_path, by_kind: by_kind(evidence, spaces) }
}

fn by_kind(evidence: Evidence, spaces: &[&AddressSpace]) -> BTreeMap<&'static str, KindReport> {
    let mut by_kind: BTreeMap<&'static str, KindReport> = BTreeMap::new();
    for (&kind, left) in spaces.iter().flat_map(|space| &space.left_by_kind) {
        let LeftByKind { calls, zapped_pages, freed_frames } = *left;
        let sum = by_kind.entry(kind_name(kind)).or_default();
        sum.calls = sum.calls.saturating_add(calls);
        sum.zapped = sum.zapped.saturating_add(bytes(zapped_pages));
        let freed = sum.freed.unwrap_or(0).saturating_add(bytes(freed_frames));
        sum.freed = evidence.knows(Evidence::Frames, freed);
    }
    by_kind
}

fn late_delay(spaces: &[&AddressSpace]) -> Option<LateDelay> {
    let mut sum = Delays::default();
    for delays in spaces.iter().filter_map(|space| space.afterlife.delays.as_ref()) {
        sum.add(delays);
    }
    let (p50_ns, p99_ns) = sum.within(50).zip(sum.within(99))?;
    Some(LateDelay { p50_ns, p99_ns, max_ns: sum.max_ns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::region_map::PAGE;

    #[test]
    fn frames_that_stayed_have_a_reason() {
        let kept = |zapped_pages: [u64; 4], freed, freed_anon, late, shared| {
            let counters = PathCounters { zapped_pages, freed_frames: freed, late_frames: late };
            let left = Left {
                counters,
                freed_anon_frames: freed_anon,
                shared_pages: shared,
                ..Left::default()
            };
            let KeptByReason { page_cache, shmem, shared, unknown, .. } =
                left.kept_by_reason().expect("told");
            let all = page_cache + shmem + shared + unknown;
            assert_eq!(all, left.kept_pages() * PAGE, "every frame that stayed has one reason");
            [page_cache, shmem, shared, unknown].map(|bytes| bytes / PAGE)
        };
        // File, anonymous, swap, tmpfs.
        assert_eq!(kept([5, 10, 9, 0], 8, 8, 0, 0), [5, 0, 0, 2]);
        assert_eq!(kept([5, 10, 9, 7], 10, 8, 0, 0), [5, 5, 0, 2], "two of tmpfs went as well");
        assert_eq!(kept([5, 10, 0, 7], 0, 0, 0, 8), [5, 7, 8, 2]);
        assert_eq!(kept([0, 10, 0, 0], 2, 6, 4, 8), [0, 0, 4, 0], "what came late was not shared");
        assert_eq!(kept([5, 0, 0, 0], 5, 0, 0, 0), [0, 0, 0, 0], "a file that was truncated");
        assert_eq!(kept([0, 3, 0, 0], 9, 9, 0, 0), [0, 0, 0, 0], "more than nothing cannot stay");
        let older = Left { freed_anon_frames: Ledger::NOT_TOLD, ..Left::default() };
        assert_eq!(older.kept_by_reason(), None);
    }
    #[test]
    fn what_is_known_of_the_process_explains_what_its_paths_do_not() {
        let unknown = |pages: u64| PathReport {
            kept_by_reason: Some(KeptByReason { unknown: pages * PAGE, ..KeptByReason::default() }),
            ..PathReport::default()
        };
        let mut by_path = BTreeMap::from([
            (path_name(Path::DontNeed), unknown(10)),
            (path_name(Path::Munmap), unknown(10)),
            (path_name(Path::Pressure), unknown(3)),
        ]);
        explain(&mut by_path, Held { by_huge_pages: 12 * PAGE, by_pins: 5 * PAGE });
        let kept = |path: Path| {
            let KeptByReason { huge_page, pinned, swap, unknown, .. } =
                by_path[path_name(path)].kept_by_reason.expect("told");
            [huge_page, pinned, swap, unknown].map(|bytes| bytes / PAGE)
        };
        assert_eq!(kept(Path::DontNeed), [10, 0, 0, 0]);
        assert_eq!(kept(Path::Munmap), [2, 5, 0, 3]);
        assert_eq!(kept(Path::Pressure), [0, 0, 3, 0]);
    }
}
