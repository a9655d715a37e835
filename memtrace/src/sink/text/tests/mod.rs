//! Small models, rendered.

mod core;
mod process;
mod whole;

use super::*;
use crate::model::report::{
    AllocatorReport, ArenaReport, Balance, Evidence, Faults, FreedNotReclaimed, Host, KeptByReason,
    LateDelay, MadvFree, Mapped, Memory, PathReport, ProbeReport, ProcessReport, Reclaimed,
    RegionReport, Remains, ResidentByKind, SCHEMA, Swap, Window, ZeroedByKind,
};

const PLAIN: Style = Style { color: false, width: 100 };
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn report(processes: Vec<ProcessReport>) -> Report {
    Report {
        schema: SCHEMA,
        host: Host {
            kernel: "6.18.5".into(),
            arch: "x86_64".into(),
            page_size: 4096,
            ..Host::default()
        },
        window: Window {
            evidence: Evidence::Frames,
            start_ns: 1_000_000_000,
            end_ns: 13_345_000_000,
            emitted: 1234,
            dropped: 0,
            untracked: 0,
            missed: 0,
            resyncs: 0,
            complete: true,
            probes: vec![probe("syscalls", "attached")],
        },
        processes,
        stacks: None,
    }
}

fn probe(name: &str, state: &'static str) -> ProbeReport {
    let hook = (state == "attached").then(|| format!("raw_tp/{name}"));
    ProbeReport { name: name.into(), hook, state }
}

/// A process of which nothing is known and in which nothing happened.
fn blank(state: &'static str) -> ProcessReport {
    ProcessReport {
        tgid: 1,
        start_time: 0,
        comm: "true".into(),
        exe: None,
        state,
        of_core: false,
        exit_code: None,
        memory: Memory::default(),
        mapped: Mapped { calls: 0, requested: Some(0), peak: Some(0) },
        reclaimed: Reclaimed { total: Some(0), ..Reclaimed::default() },
        madv_free: MadvFree::default(),
        swap: Swap::default(),
        remanence: None,
        faults: Faults::default(),
        balance: Balance::default(),
        allocators: vec![],
        unwalked: vec![],
        findings: vec![],
        regions: vec![],
    }
}

/// What a glibc holds in two arenas.
fn glibc() -> AllocatorReport {
    let arena = |address: &str, free: u64, trimmable| ArenaReport {
        address: address.into(),
        system: 64 * MIB,
        free,
        free_resident: Some(free),
        trimmable: Some(trimmable),
        threads: Some(1),
    };
    AllocatorReport {
        name: "glibc",
        version: Some("2.41".into()),
        evidence: "walked",
        system: 128 * MIB,
        in_use: 78 * MIB - KIB,
        free: [("bins", 40 * MIB), ("tcache", 2 * MIB), ("top", 8 * MIB)].into(),
        unknown: KIB,
        resyncs: 1,
        locked: 0,
        free_resident: Some(50 * MIB),
        trimmable: Some(30 * MIB),
        trimmable_late: Some(2 * MIB),
        remains: Some(Remains {
            partly_used: 10 * MIB,
            other_tops: 8 * MIB,
            cached: 2 * MIB,
            ..Remains::default()
        }),
        settings: [("mmap_threshold", 128 * KIB)].into(),
        arenas: vec![
            arena("0x7f12a0000c80", 10 * MIB, 0),
            arena("0x7f1298000030", 40 * MIB, 30 * MIB),
        ],
    }
}

fn left_by(calls: u64, requested: u64, zapped: u64, freed: u64, late: u64) -> PathReport {
    let [requested, zapped, freed, late, kept_elsewhere] =
        [requested, zapped, freed, late, zapped.saturating_sub(freed)].map(Some);
    let kept_by_reason =
        kept_elsewhere.map(|page_cache| KeptByReason { page_cache, ..KeptByReason::default() });
    PathReport { calls, requested, zapped, freed, late, kept_elsewhere, kept_by_reason }
}

fn region(start: u64, mapped: u64, kind: &'static str, name: Option<&str>) -> RegionReport {
    RegionReport {
        start: format!("{start:#x}"),
        end: format!("{:#x}", start + mapped),
        kind,
        name: name.map(Into::into),
        prot: "rw-p".into(),
        mapped,
        resident: (kind != "file").then_some(mapped / 2),
        live: None,
        free_resident: None,
        lazy_free: None,
        swapped: None,
        cold: None,
        cells: None,
    }
}

/// The typical case: a program that freed nearly all it had, then exited.
fn python() -> ProcessReport {
    let by_path = [
        ("munmap", left_by(12, 200 * MIB, 181 * MIB, 180 * MIB, 96 * KIB)),
        ("brk", left_by(3, 30 * MIB, 30 * MIB, 30 * MIB, 0)),
        ("dont_need", left_by(1, 2 * MIB, MIB, MIB, 0)),
        ("exit", left_by(1, 24 * MIB, 4 * MIB + 100 * KIB, 3 * MIB, 0)),
        ("other", left_by(1, MIB, MIB, MIB, 0)),
    ];
    ProcessReport {
        tgid: 4242,
        start_time: 77,
        comm: "python3".into(),
        exe: Some("/usr/bin/python3.13".into()),
        exit_code: Some(0),
        memory: Memory {
            mapped: Some(24 * MIB),
            resident: Some(4 * MIB + 100 * KIB),
            resident_by_kind: ResidentByKind {
                anon: Some(3 * MIB),
                file: Some(MIB + 100 * KIB),
                shmem: Some(0),
            },
            live: None,
            freed_not_reclaimed: FreedNotReclaimed {
                total: None,
                allocator: None,
                lazy_free: Some(0),
            },
            reserved: Some(20 * MIB - 100 * KIB),
            swapped: Some(0),
            cold: None,
        },
        mapped: Mapped { calls: 34, requested: Some(236 * MIB), peak: Some(224 * MIB) },
        reclaimed: Reclaimed {
            total: Some(215 * MIB),
            late_delay: Some(LateDelay {
                p50_ns: 1_023,
                p99_ns: 4_194_303,
                max_ns: 12_000_000_000,
            }),
            by_path: by_path.into(),
            ..Reclaimed::default()
        },
        faults: Faults {
            minor: Some(54_321),
            major: Some(2),
            zeroed: Some(50_515),
            zeroed_by_kind: ZeroedByKind { anon: Some(50_003), huge: Some(512), shmem: Some(0) },
            copied: Some(17),
        },
        balance: Balance {
            r#in: Some(217 << 20),
            out: Some(217 << 20),
            resident: Some(0),
            unexplained: Some(0),
        },
        regions: vec![
            region(0x7f12_a000_0000, 16 * MIB, "anon", None),
            region(0x7f12_9000_0000, 2 * MIB, "file", Some("libpython3.13.so.1.0")),
            region(0x5555_5575_0000, 512 * KIB, "heap", Some("[heap]")),
        ],
        ..blank("exited")
    }
}
