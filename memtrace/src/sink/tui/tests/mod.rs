//! A small machine, drawn on a terminal that is none.

mod hostile;
mod list;
mod page;
mod sizes;

use std::sync::Arc;

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::*;
use crate::model::{
    machine::{Left, Row},
    report::{
        AllocatorReport, ArenaReport, Evidence, Finding, FreedNotReclaimed, Memory, ProcessReport,
        RegionReport, Remains, ResidentByKind,
    },
    top::{Counting, Done, Id, Looked, Point, Process, Snapshot},
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1000 * SECOND;

fn buffer(view: &View, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it needs nothing");
    terminal.draw(|frame| draw(frame, view)).expect("it cannot fail");
    terminal.backend().buffer().clone()
}

/// Returns what a terminal of a size shows, each line in bars.
fn screen(view: &View, width: u16, height: u16) -> String {
    let buffer = buffer(view, width, height);
    let mut text = String::new();
    for y in 0..height {
        let mut line = String::new();
        let mut skip = 0;
        for x in 0..width {
            let symbol = buffer[(x, y)].symbol();
            if skip == 0 {
                line.push_str(symbol);
            }
            skip = paint::width(symbol).max(skip).saturating_sub(1);
        }
        text.push_str(&format!("|{line}|\n"));
    }
    text
}

fn press(view: &mut View, code: KeyCode) -> Step {
    view.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn view(processes: Vec<Process>) -> View {
    let counting = Counting::On { evidence: Evidence::Frames, untracked: 0 };
    View { snapshot: Arc::new(snapshot(processes, counting)), size: (80, 24), ..View::default() }
}

fn snapshot(mut processes: Vec<Process>, counting: Counting) -> Snapshot {
    processes.sort_by_key(|process| process.id);
    Snapshot { time_ns: NOW, interval_ns: SECOND, processes, counting, ..Snapshot::default() }
}

/// Of a usual kind: one that keeps what it freed, one that gives back lazily, two that nobody has
/// walked.
fn machine() -> View {
    view(vec![
        python(),
        go(),
        plain(1, "init", 12 * MIB),
        Process { faults_per_s: Some(48_211), ..plain(300, "cc1plus", 600 * MIB) },
    ])
}

fn plain(tgid: u32, comm: &str, resident: u64) -> Process {
    Process {
        id: Id { tgid, start_ns: 7 },
        comm: comm.into(),
        resident: Some(resident),
        faults_per_s: Some(0),
        reclaimed_per_s: Some(0),
        done: Done::default(),
        left: None,
        looked: None,
        cgroup: None,
    }
}

fn walked(process: Process, report: ProcessReport) -> Process {
    let freed = &report.memory.freed_not_reclaimed;
    let [live, free, lazy_free] =
        [report.memory.live, freed.allocator, freed.lazy_free].map(|bytes| bytes.unwrap_or(0));
    let now = Point { at_ns: NOW - 2 * SECOND, live, free, lazy_free };
    let before =
        Point { at_ns: NOW - 30 * SECOND, live: live + free / 2, free: free / 2, lazy_free };
    let long_ago = Point { at_ns: NOW - 60 * SECOND, live: live + free, free: 0, lazy_free: 0 };
    let report = ProcessReport {
        tgid: process.id.tgid,
        comm: process.comm.clone(),
        state: "running",
        ..report
    };
    let looked = Looked {
        at_ns: NOW - 2 * SECOND,
        cost_ns: 12_340_000,
        done: Done::default(),
        report: Some(Arc::new(report)),
        why_not: None,
        history: [long_ago, before, now].into(),
    };
    Process { looked: Some(looked), ..process }
}

fn memory(live: u64, allocator: u64, lazy_free: u64) -> Memory {
    let resident = live + allocator + lazy_free;
    Memory {
        mapped: Some(resident + 20 * MIB),
        resident: Some(resident),
        resident_by_kind: ResidentByKind {
            anon: Some(resident - 4 * MIB),
            file: Some(4 * MIB),
            shmem: Some(0),
        },
        live: Some(live),
        freed_not_reclaimed: FreedNotReclaimed {
            total: Some(allocator + lazy_free),
            allocator: Some(allocator),
            lazy_free: Some(lazy_free),
        },
        reserved: Some(20 * MIB),
        swapped: Some(0),
        cold: None,
    }
}

fn region(
    start: u64,
    mapped: u64,
    [live, free, lazy, swapped]: [u64; 4],
    name: &str,
) -> RegionReport {
    RegionReport {
        start: format!("{start:#x}"),
        end: format!("{:#x}", start + mapped),
        kind: "anon",
        name: (!name.is_empty()).then(|| name.into()),
        prot: "rw-p".into(),
        mapped,
        resident: Some(live + free + lazy),
        live: Some(live),
        free_resident: Some(free),
        lazy_free: Some(lazy),
        swapped: Some(swapped),
        cold: None,
        cells: None,
    }
}

fn python() -> Process {
    let arena = |address: &str, free| ArenaReport {
        address: address.into(),
        system: 80 * MIB,
        free,
        free_resident: Some(free),
        trimmable: Some(free),
        threads: Some(1),
    };
    let glibc = AllocatorReport {
        name: "glibc",
        version: Some("2.41".into()),
        evidence: "walked",
        system: 150 * MIB,
        in_use: 16 * MIB,
        free: [("bins", 134 * MIB)].into(),
        free_resident: Some(134 * MIB),
        trimmable: Some(130 * MIB),
        remains: Some(Remains { partly_used: 4 * MIB, ..Remains::default() }),
        arenas: vec![arena("0x7f12a0000c80", 100 * MIB), arena("0x7f1298000030", 34 * MIB)],
        ..AllocatorReport::default()
    };
    let report = ProcessReport {
        memory: memory(14 * MIB, 134 * MIB, 0),
        allocators: vec![glibc],
        findings: vec![Finding {
            id: "pinned_top",
            bytes: 130 * MIB,
            summary: "something in use lies above free memory of the heap".into(),
            evidence: "130.0 MiB trimmable below the top of the main arena".into(),
            advice: "malloc_trim(0) after the peak".into(),
        }],
        regions: vec![
            region(0x5569_36ce_f000, 150 * MIB, [14 * MIB, 130 * MIB, 0, 0], "[heap]"),
            region(0x7f12_a000_0000, 64 * MIB, [0, 4 * MIB, 0, 30 * MIB], ""),
            region(0x7f12_b000_0000, 2 * MIB, [MIB, 0, 0, 0], "/usr/lib/libpython3.13.so.1.0"),
        ],
        ..ProcessReport::default()
    };
    let left = Left {
        operations: 12,
        zapped: 5 * MIB,
        freed: Some(4 * MIB),
        late: Some(0),
        kept: Some(MIB),
    };
    let row =
        Row { tgid: Some(4242), total: left, by_path: [("munmap", left)].into(), ..Row::default() };
    let process = Process {
        reclaimed_per_s: Some(300 * KIB),
        faults_per_s: Some(120),
        left: Some(Arc::new(row)),
        ..plain(4242, "python3", 148 * MIB)
    };
    walked(process, report)
}

fn go() -> Process {
    let report = ProcessReport {
        memory: memory(40 * MIB, 10 * MIB, 50 * MIB),
        regions: vec![region(0xc0_0000_0000, 128 * MIB, [40 * MIB, 10 * MIB, 50 * MIB, 0], "")],
        ..ProcessReport::default()
    };
    walked(plain(77, "gopher", 100 * MIB), report)
}
