//! Reports in which everything is known, and nothing.

use memtrace::model::{
    change::path_name,
    report::{
        AllocatorReport, ArenaReport, Balance, Evidence, FaultedBy, Faults, Finding, Frame,
        FreedBy, FreedNotReclaimed, Host, KeptByReason, KindReport, LateDelay, MadvFree, Mapped,
        Memory, PathReport, ProbeReport, ProbedFunction, ProcessReport, ProcessStacks, Reclaimed,
        ReclaimedBy, RegionReport, Remains, Remanence, Report, ResidentByKind, RetainedBy, Reuse,
        SCHEMA, SamplingCost, StackKind, Stacks, Swap, Window, Within, ZeroedByKind,
    },
};
use memtrace_common::Path;

/// A report in which every field has a value and every list an item.
pub(crate) fn known() -> Report {
    let figures = PathReport {
        calls: 2,
        requested: Some(16384),
        zapped: Some(8192),
        freed: Some(4096),
        late: Some(4096),
        kept_elsewhere: Some(4096),
        kept_by_reason: Some(KeptByReason {
            page_cache: 1024,
            shmem: 1024,
            shared: 512,
            huge_page: 512,
            pinned: 512,
            swap: 256,
            unknown: 256,
        }),
    };
    Report {
        schema: SCHEMA,
        host: Host {
            kernel: "6.18.5".into(),
            arch: "x86_64".into(),
            page_size: 4096,
            init_on_alloc: Some(true),
            init_on_free: Some(false),
        },
        window: Window {
            evidence: Evidence::Frames,
            start_ns: 1,
            end_ns: 2,
            emitted: 3,
            dropped: 4,
            untracked: 6,
            missed: 7,
            resyncs: 5,
            complete: false,
            probes: vec![ProbeReport {
                name: "munmap".into(),
                hook: Some("tp/syscalls".into()),
                state: "attached",
            }],
        },
        processes: vec![ProcessReport {
            tgid: 4242,
            start_time: 6,
            comm: "python3".into(),
            exe: Some("/usr/bin/python3".into()),
            state: "exited",
            of_core: false,
            exit_code: Some(0),
            memory: Memory {
                mapped: Some(1),
                resident: Some(2),
                resident_by_kind: ResidentByKind { anon: Some(1), file: Some(1), shmem: Some(0) },
                live: Some(1),
                freed_not_reclaimed: FreedNotReclaimed {
                    total: Some(1),
                    allocator: Some(1),
                    lazy_free: Some(0),
                },
                reserved: Some(0),
                swapped: Some(0),
                cold: Some(0),
            },
            mapped: Mapped { calls: 1, requested: Some(4096), peak: Some(8192) },
            reclaimed: Reclaimed {
                total: Some(4096),
                late_delay: Some(LateDelay { p50_ns: 1, p99_ns: 2, max_ns: 3 }),
                by_path: Path::ALL.map(|path| (path_name(path), figures.clone())).into(),
                by_kind: [("heap", KindReport { calls: 1, zapped: 4096, freed: Some(4096) })]
                    .into(),
            },
            madv_free: MadvFree { now: Some(0), used_again: Some(1), taken: Some(0) },
            swap: Swap { out: Some(0), r#in: Some(0) },
            remanence: Some(Remanence {
                freed: 2,
                still_free: 0,
                zeroed_for_others: 1,
                to_itself: reuse(1),
                to_others: reuse(1),
            }),
            faults: Faults {
                minor: Some(1),
                major: Some(0),
                zeroed: Some(1),
                zeroed_by_kind: ZeroedByKind { anon: Some(1), huge: Some(0), shmem: Some(0) },
                copied: Some(1),
            },
            balance: Balance {
                r#in: Some(8192),
                out: Some(8192),
                resident: Some(0),
                unexplained: Some(0),
            },
            allocators: vec![AllocatorReport {
                name: "glibc",
                version: Some("2.36".into()),
                evidence: "walked",
                system: 8192,
                in_use: 4096,
                free: [("bins", 4096)].into(),
                unknown: 0,
                resyncs: 0,
                locked: 0,
                free_resident: Some(4096),
                trimmable: Some(0),
                trimmable_late: Some(0),
                remains: Some(Remains { partly_used: 4096, ..Remains::default() }),
                settings: [("mmap_threshold", 131_072)].into(),
                arenas: vec![ArenaReport {
                    address: "0x7f12a0000000".into(),
                    system: 8192,
                    free: 4096,
                    free_resident: Some(4096),
                    trimmable: Some(0),
                    threads: Some(1),
                }],
            }],
            unwalked: vec!["jemalloc is in use, but its books make no sense".into()],
            findings: vec![Finding {
                id: "pinned_top",
                bytes: 8 << 20,
                summary: "something lies above".into(),
                evidence: "8.0 MiB below the top".into(),
                advice: "malloc_trim(0)".into(),
            }],
            regions: vec![RegionReport {
                start: "0x7f12a0000000".into(),
                end: "0x7f12a0001000".into(),
                kind: "file",
                name: Some("libc.so.6".into()),
                prot: "r-xp".into(),
                mapped: 4096,
                resident: Some(4096),
                live: Some(4096),
                free_resident: Some(0),
                lazy_free: Some(0),
                swapped: Some(0),
                cold: Some(0),
                cells: None,
            }],
        }],
        stacks: Some(stacks()),
    }
}

fn stacks() -> Stacks {
    let frames = || {
        vec![Frame {
            function: Some("main".into()),
            file: Some("/usr/bin/python3".into()),
            offset: "0x1234".into(),
        }]
    };
    Stacks {
        kinds: vec![StackKind::Allocations, StackKind::Reclaimed, StackKind::Faults],
        sample_bytes: Some(524_288),
        allocations: Some(3),
        frees: Some(2),
        samples: Some(2),
        lost: 0,
        lost_reclaims: 0,
        lost_faults: 0,
        lost_stacks: 0,
        cost: Some(SamplingCost { allocation_ns: 800, free_ns: 500, stepped_ns: 9000 }),
        functions: vec![ProbedFunction {
            name: "malloc".into(),
            file: "/usr/lib/libc.so.6".into(),
            emulated: true,
        }],
        processes: vec![ProcessStacks {
            tgid: 4242,
            retained: Some(4096),
            freed: Some(4096),
            freed_resident_estimate: Some(4096),
            retained_by: vec![RetainedBy { bytes: 4096, samples: 1, frames: frames() }],
            freed_by: vec![FreedBy {
                bytes: 4096,
                resident_estimate: Some(4096),
                samples: 1,
                frames: frames(),
            }],
            reclaimed_by: Some(vec![ReclaimedBy {
                path: path_name(Path::Munmap).into(),
                calls: 1,
                zapped: 8192,
                freed: Some(4096),
                frames: frames(),
            }]),
            faulted_by: Some(vec![FaultedBy { faults: 3, frames: frames() }]),
        }],
    }
}

fn reuse(frames: u64) -> Reuse {
    let histogram = vec![Within { within_ns: 3, frames }];
    Reuse { frames, p50_ns: 2, p99_ns: 2, max_ns: 2, histogram }
}

/// The same with everything unknown that can be.
pub(crate) fn unknown() -> Report {
    let mut report = known();
    report.window.probes[0].hook = None;
    let stacks = report.stacks.as_mut().expect("it is known");
    (stacks.sample_bytes, stacks.cost) = (None, None);
    (stacks.allocations, stacks.frees, stacks.samples) = (None, None, None);
    let process = &mut stacks.processes[0];
    (process.retained, process.freed, process.freed_resident_estimate) = (None, None, None);
    for row in process.reclaimed_by.iter_mut().flatten() {
        (row.freed, row.frames[0].function, row.frames[0].file) = (None, None, None);
    }
    for row in process.faulted_by.iter_mut().flatten() {
        (row.frames[0].function, row.frames[0].file) = (None, None);
    }
    let RetainedBy { frames, .. } = &mut process.retained_by[0];
    (frames[0].function, frames[0].file) = (None, None);
    let FreedBy { frames, resident_estimate, .. } = &mut process.freed_by[0];
    (frames[0].function, frames[0].file, *resident_estimate) = (None, None, None);
    report.host.init_on_alloc = None;
    report.host.init_on_free = None;
    let process = &mut report.processes[0];
    process.exe = None;
    process.exit_code = None;
    process.memory = Memory::default();
    process.madv_free = MadvFree::default();
    process.swap = Swap::default();
    process.remanence = None;
    process.faults = Faults::default();
    process.balance = Balance::default();
    process.mapped = Mapped { calls: 1, ..Mapped::default() };
    process.reclaimed.total = None;
    process.reclaimed.late_delay = None;
    for kind in process.reclaimed.by_kind.values_mut() {
        kind.freed = None;
    }
    for path in process.reclaimed.by_path.values_mut() {
        *path = PathReport { calls: path.calls, ..PathReport::default() };
    }
    let allocator = &mut process.allocators[0];
    allocator.version = None;
    allocator.free_resident = None;
    allocator.trimmable = None;
    allocator.trimmable_late = None;
    allocator.remains = None;
    let arena = &mut allocator.arenas[0];
    (arena.free_resident, arena.trimmable, arena.threads) = (None, None, None);
    let region = &mut process.regions[0];
    region.name = None;
    region.resident = None;
    region.live = None;
    region.free_resident = None;
    region.lazy_free = None;
    region.cold = None;
    report
}
