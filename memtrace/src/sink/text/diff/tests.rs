use insta::assert_snapshot;

use super::*;
use crate::model::{
    diff::{AllocatorDiff, ArenaDiff, Classes, FindingDiff, PathDiff, RegionDiff, SCHEMA, Who},
    report::Evidence,
};

const MIB: u64 = 1 << 20;
const PLAIN: Style = Style { color: false, width: 100 };

fn change(before: u64, after: u64) -> Change {
    Change::new(Some(before), Some(after))
}

fn side(name: &str) -> Side {
    Side {
        name: name.into(),
        kernel: "6.18.0".into(),
        evidence: Evidence::Frames,
        traced: true,
        complete: true,
        processes: 1,
    }
}

fn who(tgid: u32) -> Option<Who> {
    Some(Who { tgid, comm: "py\n".into(), state: "running".into(), ..Who::default() })
}

fn memory() -> Classes {
    Classes {
        mapped: change(400 * MIB, 400 * MIB),
        resident: change(150 * MIB, 16 * MIB),
        live: change(15 * MIB, 15 * MIB + 4096),
        freed_not_reclaimed: change(135 * MIB, MIB),
        allocator: change(135 * MIB, MIB),
        lazy_free: change(0, 0),
        reserved: change(250 * MIB, 384 * MIB),
        swapped: Change::new(None, Some(0)),
    }
}

fn process() -> ProcessDiff {
    let finding = |id: &str, state, bytes| FindingDiff { id: id.into(), state, bytes };
    let arena = |free| ArenaDiff { free, free_resident: free, ..ArenaDiff::default() };
    let region = |name: Option<&str>, resident| RegionDiff {
        kind: "heap".into(),
        name: name.map(str::to_owned),
        count: change(1, 2),
        mapped: change(0, 0),
        resident,
        ..RegionDiff::default()
    };
    ProcessDiff {
        before: who(1),
        after: who(2),
        matched_by: Some("exe"),
        memory: memory(),
        allocators: vec![AllocatorDiff {
            name: "glibc".into(),
            version_before: Some("2.36".into()),
            version_after: Some("2.41".into()),
            lower_bound: true,
            free: change(135 * MIB, MIB),
            free_by_class: [
                ("bins".to_owned(), change(135 * MIB, 0)),
                ("top".to_owned(), change(0, 0)),
            ]
            .into(),
            arena_count: change(2, 3),
            arenas: vec![arena(change(100 * MIB, 0)), arena(change(35 * MIB, MIB))],
            ..AllocatorDiff::default()
        }],
        paths: [
            (
                "munmap",
                PathDiff { calls: change(1, 0), freed: change(MIB, 0), ..PathDiff::default() },
            ),
            (
                "brk",
                PathDiff {
                    calls: change(0, 1),
                    freed: change(0, 134 * MIB),
                    ..PathDiff::default()
                },
            ),
            ("of\x1ba newer one", PathDiff::default()),
        ]
        .map(|(name, path)| (name.to_owned(), path))
        .into(),
        findings: vec![
            finding("pinned_top", "went", Change::new(Some(134 * MIB), None)),
            finding("live", "came", Change::new(None, Some(15 * MIB))),
            finding("lazy_free", "stayed", change(9 * MIB, 8 * MIB)),
            finding("x\x1b", "unknown", Change::new(Some(MIB), None)),
        ],
        regions: vec![
            region(Some("[heap]\x1b"), change(140 * MIB, 6 * MIB)),
            region(None, change(0, 0)),
        ],
    }
}

fn diff(processes: Vec<ProcessDiff>) -> Diff {
    Diff {
        schema: SCHEMA,
        before: side("a.json"),
        after: side("b\x1b.json"),
        limits: vec![],
        all: memory(),
        processes,
    }
}

#[test]
fn the_answer_comes_first_then_what_differs() {
    assert_snapshot!(render_diff(&diff(vec![process()]), PLAIN), @r"
    py\n (pid 1 → 2): freed but not reclaimed fell by 134.0 MiB to 1.0 MiB; resident fell by 134.0 MiB
        to 16.0 MiB; about the same: live at 15.0 MiB; known of one side only: swapped
      pinned_top went: it was 134.0 MiB
      live came: 15.0 MiB
      lazy_free stayed: 8.0 MiB, it was 9.0 MiB
      x\u{1b}: 1.0 MiB before, – after; the other side was not walked

      memory                     before      after      change
        mapped                400.0 MiB  400.0 MiB           =
        resident              150.0 MiB   16.0 MiB  -134.0 MiB
        live                   15.0 MiB   15.0 MiB    +4.0 KiB
        freed, not reclaimed  135.0 MiB    1.0 MiB  -134.0 MiB
          allocator           135.0 MiB    1.0 MiB  -134.0 MiB
          lazy free                 0 B        0 B           =
        reserved              250.0 MiB  384.0 MiB  +134.0 MiB
        swapped                       –        0 B           –

      glibc 2.36 → 2.41         before    after      change
        from kernel                  –        –           –
        in use                       –        –           –
        free, at least       135.0 MiB  1.0 MiB  -134.0 MiB
          bins               135.0 MiB      0 B  -135.0 MiB
        free, resident               –        –           –
        trimmable                    –        –           –
        arenas                       2        3          +1
          free in the first  100.0 MiB      0 B  -100.0 MiB
          free in number 2    35.0 MiB  1.0 MiB   -34.0 MiB

      left by                calls before  after  freed before      after      change
        heap trim (brk)                 0      1           0 B  134.0 MiB  +134.0 MiB
        munmap                          1      0       1.0 MiB        0 B    -1.0 MiB
        of\u{1b}a newer one             –      –             –          –           –

      regions  how many  mapped  resident before    after      change  name
        heap      1 → 2       =        140.0 MiB  6.0 MiB  -134.0 MiB  [heap]\u{1b}

    before: a.json; after: b\u{1b}.json; Linux 6.18.0
    ");
}

#[test]
fn limits_and_what_is_not_comparable_come_before_it() {
    let mut diff = diff(vec![]);
    diff.limits = [("exceeded", Some(2 << 20)), ("held", Some(-1)), ("unknown", None)]
        .map(|(state, change)| Verdict { class: "resident", allowed: MIB, change, state })
        .into();
    diff.before.complete = false;
    diff.after.traced = false;
    diff.after.kernel = "6.1.0".into();
    assert_snapshot!(render_diff(&diff, PLAIN), @r"
    limit: resident may grow by 1.0 MiB: exceeded (+2.0 MiB)
    limit: resident may grow by 1.0 MiB: held (-1 B)
    limit: resident may grow by 1.0 MiB; not known: one of the reports does not tell
    incomplete: the report before lacks part of what happened
    before is traced (evidence frames), after one look: what only one of them knows is –
    neither report has a process
    before: a.json; after: b\u{1b}.json; Linux 6.18.0, then 6.1.0
    ");
}

#[test]
fn many_processes_are_summed_first_and_the_last_get_a_row() {
    let bare = |tgid| ProcessDiff {
        before: who(tgid),
        after: who(tgid),
        matched_by: Some("process"),
        memory: Classes { resident: change(MIB, 2 * MIB), ..Classes::default() },
        ..ProcessDiff::default()
    };
    let mut processes: Vec<ProcessDiff> = (1..=6).map(bare).collect();
    for index in [1, 5] {
        let process = &mut processes[index];
        process.after = None;
        process.matched_by = None;
        process.memory.resident = Change::new(Some(MIB), None);
    }
    processes[2].memory = Classes::default();
    let text = render_diff(&diff(processes), PLAIN);
    let lines: Vec<&str> =
        text.lines().filter(|line| line.contains("process") || line.contains("pid")).collect();
    assert_snapshot!(lines.join("\n"), @r"
    all processes: freed but not reclaimed fell by 134.0 MiB to 1.0 MiB; resident fell by 134.0 MiB to
    py\n (pid 1): resident grew by 1.0 MiB to 2.0 MiB
    py\n (pid 2), only before: 1.0 MiB resident, – freed but not reclaimed
    py\n (pid 3): neither side tells what it holds
    py\n (pid 4): resident grew by 1.0 MiB to 2.0 MiB
      other processes              resident before    after    change  freed, not reclaimed
        py\n (pid 5)                       1.0 MiB  2.0 MiB  +1.0 MiB                     –
        py\n (pid 6), only before          1.0 MiB        –         –                     –
    ");
}
