use super::{super::report::ArenaReport, *};

const MIB: u64 = 1 << 20;

/// A process of 200 MiB, half of it free in a glibc that has the settings it starts with.
fn process() -> ProcessReport {
    let glibc = AllocatorReport {
        name: "glibc",
        evidence: "walked",
        free: [("bins", 80 * MIB), ("top", MIB)].into(),
        free_resident: Some(80 * MIB),
        remains: Some(Remains::default()),
        settings: [("mmap_threshold", 128 << 10), ("mmap_threshold_is_dynamic", 1)].into(),
        arenas: vec![ArenaReport::default()],
        ..AllocatorReport::default()
    };
    let mut process = ProcessReport::default();
    process.memory.resident = Some(200 * MIB);
    process.memory.resident_by_kind.anon = Some(190 * MIB);
    process.memory.freed_not_reclaimed.total = Some(80 * MIB);
    process.memory.freed_not_reclaimed.lazy_free = Some(0);
    process.allocators = vec![glibc];
    process
}

/// Asserts that a change makes a finding appear, with its bytes, and that its counterpart keeps it away.
#[track_caller]
fn assert_found(
    id: &str,
    bytes: u64,
    appears: impl Fn(&mut ProcessReport),
    stays_away: impl Fn(&mut ProcessReport),
) {
    let ids = |process: &ProcessReport| -> Vec<(&str, u64)> {
        findings(process).iter().map(|finding| (finding.id, finding.bytes)).collect()
    };
    let mut with = process();
    assert!(!ids(&with).iter().any(|(found, _)| *found == id), "{:?}", ids(&with));
    appears(&mut with);
    assert!(ids(&with).contains(&(id, bytes)), "{:?}", ids(&with));
    let mut without = with.clone();
    stays_away(&mut without);
    assert!(!ids(&without).iter().any(|(found, _)| *found == id), "{:?}", ids(&without));
}

#[test]
fn an_ordinary_process_has_none() {
    assert_eq!(findings(&process()), []);
    assert_eq!(findings(&ProcessReport::default()), []);
}

#[test]
fn many_arenas_with_free_memory_are_idle() {
    let arena = ArenaReport { free_resident: Some(10 * MIB), ..ArenaReport::default() };
    assert_found(
        "idle_arenas",
        40 * MIB,
        |process| process.allocators[0].arenas.extend(vec![arena.clone(); 4]),
        |process| process.allocators[0].arenas.truncate(4),
    );
}

#[test]
fn trimmable_memory_below_the_top_is_pinned() {
    assert_found(
        "pinned_top",
        49 * MIB,
        |process| process.allocators[0].arenas[0].trimmable = Some(50 * MIB),
        |process| _ = process.allocators[0].free.insert("top", 45 * MIB),
    );
}

#[test]
fn a_threshold_that_moved_has_drifted_and_one_that_was_set_has_not() {
    assert_found(
        "threshold_drift",
        60 * MIB,
        |process| {
            process.allocators[0].trimmable = Some(60 * MIB);
            process.allocators[0].settings.insert("mmap_threshold", 32 * MIB);
        },
        |process| _ = process.allocators[0].settings.insert("mmap_threshold_is_dynamic", 0),
    );
}

#[test]
fn thread_caches_are_told_when_they_keep_pages() {
    let cached = |process: &mut ProcessReport, bytes| {
        process.allocators[0].remains = Some(Remains { cached: bytes, ..Remains::default() });
    };
    assert_found(
        "thread_caches",
        30 * MIB,
        |process| cached(process, 30 * MIB),
        |process| cached(process, MIB),
    );
}

#[test]
fn dirty_pages_are_idle_without_a_background_thread() {
    assert_found(
        "idle_dirty_pages",
        60 * MIB,
        |process| {
            let jemalloc = &mut process.allocators[0];
            jemalloc.name = "jemalloc";
            jemalloc.trimmable = Some(60 * MIB);
            jemalloc.settings = [("background_thread", 0)].into();
        },
        |process| _ = process.allocators[0].settings.insert("background_thread", 1),
    );
}

#[test]
fn free_memory_between_used_bytes_is_told_when_it_is_most_of_it() {
    let stuck = |process: &mut ProcessReport, bytes| {
        process.allocators[0].remains = Some(Remains { partly_used: bytes, ..Remains::default() });
    };
    assert_found(
        "partly_used_pages",
        50 * MIB,
        |process| stuck(process, 50 * MIB),
        |process| stuck(process, 30 * MIB),
    );
}

#[test]
fn pages_shared_since_a_fork_are_told() {
    let shared = |process: &mut ProcessReport, bytes| {
        process.allocators[0].remains = Some(Remains { shared: bytes, ..Remains::default() });
    };
    assert_found(
        "shared_since_fork",
        66 * MIB,
        |process| shared(process, 66 * MIB),
        |process| shared(process, 7 * MIB),
    );
}

#[test]
fn lazily_free_memory_is_told_when_it_is_a_notable_part() {
    let lazy = |process: &mut ProcessReport, bytes| {
        process.memory.freed_not_reclaimed.lazy_free = Some(bytes);
    };
    assert_found(
        "lazy_free",
        25 * MIB,
        |process| lazy(process, 25 * MIB),
        |process| lazy(process, 15 * MIB),
    );
}

#[test]
fn a_large_process_without_free_memory_is_live_unless_something_was_not_seen() {
    let total = |process: &mut ProcessReport| {
        process.memory.freed_not_reclaimed.total = Some(5 * MIB);
    };
    assert_found("live", 185 * MIB, total, |process| {
        process.allocators[0].evidence = "lower_bound";
    });
    assert_found("live", 185 * MIB, total, |process| process.unwalked = vec!["why".to_owned()]);
    assert_found("live", 185 * MIB, total, |process| process.allocators.clear());
}
