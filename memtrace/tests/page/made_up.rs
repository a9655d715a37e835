//! A report in which everything happens, of a process with the worst of names, and its history.

use memtrace::model::{
    cells::Cells,
    change::{Change, What},
    history::History,
    report::{
        AllocatorReport, ArenaReport, Balance, Evidence, FaultedBy, Finding, Frame, FreedBy,
        FreedNotReclaimed, Host, KeptByReason, KindReport, LateDelay, Mapped, Memory, PathReport,
        ProbeReport, ProcessReport, ProcessStacks, Reclaimed, ReclaimedBy, RegionReport, Remains,
        Report, ResidentByKind, RetainedBy, SCHEMA, Stacks, Window,
    },
};
use serde_json::json;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const MS: u64 = 1_000_000;

/// What a program may call itself.
pub(crate) const HOSTILE: &str = "</script><script>hacked=1</script><img src=x onerror=hacked=1>\
    <b class=evil>\"'&amp;\u{1b}[2J\u{202e}\u{2028}\u{fffd}\n\0";

pub(crate) fn report() -> Report {
    let probe = |name: &str, state, hook: Option<&str>| ProbeReport {
        name: name.into(),
        hook: hook.map(Into::into),
        state,
    };
    Report {
        schema: SCHEMA,
        host: Host {
            kernel: "6.18.5".into(),
            arch: "x86_64".into(),
            page_size: 4096,
            init_on_alloc: Some(false),
            init_on_free: None,
        },
        window: Window {
            evidence: Evidence::Frames,
            start_ns: 1000 * MS,
            end_ns: 3000 * MS,
            emitted: 1234,
            dropped: 2,
            untracked: 0,
            missed: 1,
            resyncs: 1,
            complete: false,
            probes: vec![
                probe("syscalls", "attached", Some("raw_tp/sys_exit")),
                probe(HOSTILE, "unsupported", None),
            ],
        },
        processes: vec![process()],
        stacks: Some(stacks()),
    }
}

fn process() -> ProcessReport {
    let by_path = [
        ("munmap", left_by(12, 200 * MIB + 1, 181 * MIB, 180 * MIB)),
        ("brk", left_by(3, 30 * MIB, 30 * MIB, 29 * MIB)),
        ("exec", left_by(1, MIB, MIB, 0)),
        ("exit", PathReport { requested: None, ..left_by(1, 0, 4 * MIB, 3 * MIB) }),
    ];
    ProcessReport {
        tgid: 4242,
        comm: HOSTILE.into(),
        exe: Some(format!("/tmp/{HOSTILE}{}", "x".repeat(4096))),
        state: "exited",
        exit_code: Some(0),
        memory: Memory {
            mapped: Some(300 * MIB),
            resident: Some(140 * MIB),
            resident_by_kind: ResidentByKind {
                anon: Some(120 * MIB),
                file: Some(20 * MIB),
                shmem: None,
            },
            live: Some(90 * MIB),
            freed_not_reclaimed: FreedNotReclaimed {
                total: Some(50 * MIB),
                allocator: Some(40 * MIB),
                lazy_free: Some(10 * MIB),
            },
            reserved: Some(160 * MIB),
            swapped: Some(500 * KIB),
            cold: None,
        },
        mapped: Mapped { calls: 34, requested: Some(236 * MIB), peak: Some(224 * MIB) },
        reclaimed: Reclaimed {
            total: Some(212 * MIB),
            late_delay: Some(LateDelay { p50_ns: 1023, p99_ns: 4 * MS, max_ns: 12_000 * MS }),
            by_path: by_path.into(),
            by_kind: [("heap", KindReport { calls: 3, zapped: 30 * MIB, freed: Some(29 * MIB) })]
                .into(),
        },
        balance: Balance {
            r#in: Some(216 << 20),
            out: Some(216 << 20),
            resident: Some(0),
            unexplained: Some(-4096),
        },
        allocators: vec![glibc()],
        unwalked: vec![HOSTILE.into()],
        findings: vec![Finding {
            id: "pinned_top",
            bytes: 30 * MIB,
            summary: "something in use lies above free memory of the heap".into(),
            evidence: "30.0 MiB trimmable below the top".into(),
            advice: "malloc_trim(0) after the peak gives it back".into(),
        }],
        regions: regions(),
        ..ProcessReport::default()
    }
}

fn left_by(calls: u64, requested: u64, zapped: u64, freed: u64) -> PathReport {
    let kept = zapped - freed;
    PathReport {
        calls,
        requested: Some(requested),
        zapped: Some(zapped),
        freed: Some(freed),
        late: Some(96 * KIB),
        kept_elsewhere: Some(kept),
        kept_by_reason: Some(KeptByReason {
            page_cache: kept / 2,
            shmem: kept / 4,
            shared: kept / 16,
            huge_page: kept / 16,
            pinned: kept / 16,
            swap: kept / 32,
            unknown: kept / 32,
        }),
    }
}

fn glibc() -> AllocatorReport {
    let arena = |address: &str, free: u64, threads| ArenaReport {
        address: address.into(),
        system: 64 * MIB,
        free,
        free_resident: Some(free - 4096),
        trimmable: Some(free / 2),
        threads,
    };
    AllocatorReport {
        name: "glibc",
        version: Some(HOSTILE.into()),
        evidence: "lower_bound",
        system: 128 * MIB,
        in_use: 88 * MIB,
        free: [("bins", 30 * MIB), ("tcache", 2 * MIB), ("top", 8 * MIB)].into(),
        unknown: KIB,
        resyncs: 1,
        locked: 0,
        free_resident: Some(40 * MIB),
        trimmable: Some(30 * MIB),
        trimmable_late: Some(2 * MIB),
        remains: Some(Remains { partly_used: 10 * MIB, ..Remains::default() }),
        settings: [("mmap_threshold", 128 * KIB)].into(),
        arenas: vec![
            arena("0x7f12a0000c80", 10 * MIB, None),
            arena("0x7f1298000030", 30 * MIB, Some(3)),
        ],
    }
}

/// A region of which is known where its pages are: 100 in use, one half in use, 99 free, 100 in swap, and
/// 212 without a frame.
pub(crate) const LOCATED: u64 = 0x7f00_0000_0000;

fn cells(told: serde_json::Value) -> Cells {
    serde_json::from_value(told).expect("these are cells")
}

/// The largest first, as in every report. Some are not measured.
fn regions() -> Vec<RegionReport> {
    let region = |number: u64| {
        let start = 0x7f12_0000_0000 + number * 32 * MIB;
        let mapped = (40 - number) * 7 * 4 * KIB;
        let resident = (!number.is_multiple_of(5)).then_some(mapped * (number % 4) / 4);
        let free = resident.map(|resident| resident / 3);
        RegionReport {
            start: format!("{start:#x}"),
            end: format!("{:#x}", start + mapped),
            kind: if number.is_multiple_of(5) { "file" } else { "anon" },
            name: number.is_multiple_of(5).then(|| HOSTILE.to_owned()),
            prot: "rw-p".into(),
            mapped,
            resident,
            live: resident.zip(free).map(|(resident, free)| resident - free),
            free_resident: free,
            lazy_free: Some(0),
            cold: None,
            swapped: None,
            // Its pages were read when it had fewer.
            cells: (number == 1).then(|| cells(json!({"order": 0, "resident": [60, 1]}))),
        }
    };
    let heap = RegionReport {
        start: "0x555555750000".into(),
        end: "0x55555d750000".into(),
        kind: "heap",
        name: Some("[heap]".into()),
        prot: "rw-p".into(),
        mapped: 128 * MIB,
        resident: Some(120 * MIB),
        live: Some(80 * MIB),
        free_resident: Some(30 * MIB),
        lazy_free: Some(10 * MIB),
        cold: None,
        swapped: None,
        cells: Some(cells(json!({
            "order": 5, "resident": [960, 32], "free": [960, 32 * KIB], "swapped": [],
        }))),
    };
    // In use, then half free, then free; in swap, and at the end nothing.
    let located = RegionReport {
        start: format!("{LOCATED:#x}"),
        end: format!("{:#x}", LOCATED + 2 * MIB),
        kind: "anon",
        name: None,
        prot: "rw-p".into(),
        mapped: 2 * MIB,
        resident: Some(800 * KIB),
        live: Some(402 * KIB),
        free_resident: Some(398 * KIB),
        lazy_free: Some(0),
        cold: None,
        swapped: Some(400 * KIB),
        cells: Some(cells(json!({
            "order": 0,
            "resident": [200, 1],
            "free": [100, 0, 1, 2 * KIB, 99, 4 * KIB],
            "swapped": [200, 0, 100, 1],
        }))),
    };
    [heap, located].into_iter().chain((0..40).map(region)).collect()
}

fn stacks() -> Stacks {
    let frame = |function: &str| Frame {
        function: Some(function.into()),
        file: Some(HOSTILE.into()),
        offset: "0x10".into(),
    };
    let frames = || vec![frame("inner"), frame(HOSTILE), frame("main")];
    Stacks {
        sample_bytes: Some(512 * KIB),
        samples: Some(9),
        lost: 1,
        processes: vec![ProcessStacks {
            tgid: 4242,
            retained: Some(14 * MIB),
            freed: Some(3 * MIB),
            freed_resident_estimate: Some(MIB),
            retained_by: vec![RetainedBy { bytes: 14 * MIB, samples: 7, frames: frames() }],
            freed_by: vec![FreedBy {
                bytes: 3 * MIB,
                resident_estimate: Some(MIB),
                samples: 2,
                frames: vec![],
            }],
            reclaimed_by: Some(vec![ReclaimedBy {
                path: "munmap".into(),
                calls: 3,
                zapped: 2 * MIB,
                freed: Some(MIB),
                frames: frames(),
            }]),
            faulted_by: Some(vec![FaultedBy { faults: 5, frames: frames() }]),
        }],
        ..Stacks::default()
    }
}

/// What it did over time.
pub(crate) fn history() -> History {
    let mut history = History::new();
    changes().iter().for_each(|change| history.apply(change));
    history
}

/// Two seconds in which it grew and shrank.
pub(crate) fn changes() -> Vec<Change> {
    let mut changes = Vec::new();
    let mut at = |ms: u64, what| {
        changes.push(Change { time_ns: ms * MS, tgid: 4242, tid: 4242, what });
    };
    let call = |path, bytes: u64| What::Call {
        call: "munmap",
        start: 0x7f12_0000_0000,
        requested: bytes,
        detail: String::new(),
        ret: 0,
        path: Some(path),
        zapped: Some(bytes),
        freed: Some(bytes / 4 * 3),
        duration_ns: None,
    };
    at(1010, What::Exec { path: HOSTILE.into() });
    at(1011, What::MmEnd { zapped: Some(MIB), freed: Some(0) });
    for step in 0..90 {
        let now = 1020 + step * 20;
        let resident = (60 + 80 * (step % 30) / 30) * MIB;
        let (live, free_resident, lazy_free) = if step % 3 == 0 {
            (Some(resident / 2), Some(resident / 3), Some(resident / 6))
        } else {
            (None, None, None)
        };
        let resident = Some(resident);
        let memory = What::Memory {
            resident,
            live,
            free_resident,
            lazy_free,
            trimmable: None,
            regions: vec![],
        };
        at(now, memory);
        at(now + 3, call("munmap", 2 * MIB));
        if step % 10 == 0 {
            at(now + 5, call("brk", 3 * MIB));
        }
    }
    at(2900, What::Exit { code: 0 });
    at(2901, What::MmEnd { zapped: Some(4 * MIB), freed: Some(3 * MIB) });
    changes
}
