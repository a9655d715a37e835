//! What left every process of the machine: the sum, then the processes, programs and cgroups.

use std::sync::Arc;

use memtrace_common::Path;

use super::{
    Style,
    layout::{
        Align::{Left as L, Right as R},
        Ink, columns, end_of,
    },
};
use crate::{
    model::{
        change::path_name,
        machine::{Left, MachineReport, Row},
        report::Evidence,
    },
    sink::{known, known_as, known_number, printable, size, words::label},
};

/// What names a row.
type First = fn(&Row) -> String;

/// Characters of a cgroup's path, of which the end says most.
const CGROUP_WIDTH: usize = 40;

/// Returns the report as text that ends in a newline.
pub fn render_machine(report: &MachineReport, style: Style) -> String {
    let mut out = String::new();
    let window = &report.window;
    if !window.complete {
        let warning = format!(
            "incomplete: {} address spaces were not counted because the probes' table was full",
            window.untracked
        );
        style.paragraph(&mut out, Some(Ink::Red), 4, &warning);
    }
    style.paragraph(&mut out, Some(Ink::Bold), 4, &sentence(report));
    out.push('\n');
    let what = if window.evidence == Evidence::Frames { "freed" } else { "zapped" };
    let interval = seconds(window.end_ns.saturating_sub(window.interval_ns));
    let lately = format!("{what} in {interval}");
    left_by(&mut out, &report.all, style);
    let process: First = |row| format!("{} {}", known_number(row.tgid), name(row));
    let program: First = name;
    let cgroup: First =
        |row| known_as(row.cgroup.as_ref(), |path| end_of(&printable(path), CGROUP_WIDTH));
    let kinds = [
        ("process", &report.processes, process),
        ("program", &report.programs, program),
        ("cgroup", &report.cgroups, cgroup),
    ];
    for (title, rows, first) in kinds {
        if !rows.is_empty() {
            out.push('\n');
            table(&mut out, title, &lately, rows, first, style);
        }
    }
    out
}

fn sentence(report: &MachineReport) -> String {
    let (window, all) = (&report.window, &report.all);
    let spaces = format!("{} address spaces live, {} ended", all.living, all.ended);
    let Left { zapped, freed, .. } = all.total;
    let figures = match freed {
        Some(freed) => format!("{} were detached, {} freed", size(zapped), size(freed)),
        None => format!("{} were detached (what was freed was not counted)", size(zapped)),
    };
    let traced = seconds(window.end_ns.saturating_sub(window.start_ns));
    format!("{traced}: {figures}; {spaces}; evidence {}", window.evidence.name())
}

/// Adds what left, by path, to `out`.
pub(in crate::sink) fn left_by(out: &mut String, all: &Row, style: Style) {
    if all.by_path.is_empty() {
        return;
    }
    let row = |label: &str, left: &Left| {
        let Left { operations, zapped, freed, late, kept } = *left;
        let operations = known_number(Some(operations).filter(|&operations| operations > 0));
        vec![format!("  {label}"), operations, size(zapped), known(freed), known(late), known(kept)]
    };
    let taken = Path::ALL.into_iter();
    let mut rows: Vec<Vec<String>> = taken
        .filter_map(|path| Some(row(label(path), all.by_path.get(path_name(path))?)))
        .collect();
    rows.push(row("all", &all.total));
    let head = [
        ("left by", L),
        ("operations", R),
        ("zapped", R),
        ("freed", R),
        ("late", R),
        ("kept elsewhere", R),
    ];
    style.table(out, &columns(&head, &rows));
}

fn table(
    out: &mut String,
    title: &str,
    lately: &str,
    rows: &[Arc<Row>],
    first: First,
    style: Style,
) {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let recent = row.freed_lately.unwrap_or(row.zapped_lately);
            vec![
                format!("  {}", first(row)),
                row.living.to_string(),
                row.ended.to_string(),
                size(row.resident),
                size(recent),
                known(row.total.freed),
                size(row.total.zapped),
                known(row.total.kept),
                mostly(row),
            ]
        })
        .collect();
    let head = [
        (title, L),
        ("live", R),
        ("ended", R),
        ("resident", R),
        (lately, R),
        ("freed", R),
        ("zapped", R),
        ("kept", R),
        ("mostly by", L),
    ];
    style.table(out, &columns(&head, &rows));
}

/// Returns the path by which most left.
fn mostly(row: &Row) -> String {
    let paths = Path::ALL.into_iter();
    let left = paths.filter_map(|path| Some((row.by_path.get(path_name(path))?.zapped, path)));
    let most = left.max_by_key(|&(zapped, _)| zapped).filter(|&(zapped, _)| zapped > 0);
    known_as(most, |(_, path)| label(path).to_owned())
}

fn name(row: &Row) -> String {
    known_as(row.comm.as_ref(), |comm| printable(comm))
}

fn seconds(ns: u64) -> String {
    format!("{:.1} s", ns as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use insta::assert_snapshot;

    use super::*;
    use crate::model::{
        machine::{MachineWindow, SCHEMA},
        report::Host,
    };

    const MIB: u64 = 1 << 20;

    fn left(evidence: Evidence, operations: u64, zapped: u64, freed: u64) -> Left {
        let counted = |bytes| evidence.knows(Evidence::Frames, bytes);
        Left {
            operations,
            zapped: zapped * MIB,
            freed: counted(freed * MIB),
            late: counted(MIB / 2),
            kept: counted((zapped - freed) * MIB),
        }
    }

    fn report(evidence: Evidence) -> MachineReport {
        let by_path = BTreeMap::from([
            ("munmap", left(evidence, 12, 300, 290)),
            ("pressure", left(evidence, 0, 4, 4)),
        ]);
        let all = Row {
            living: 120,
            ended: 8,
            resident: 900 * MIB,
            zapped_lately: 31 * MIB,
            freed_lately: evidence.knows(Evidence::Frames, 30 * MIB),
            total: left(evidence, 12, 304, 294),
            by_path,
            ..Row::default()
        };
        let (comm, tgid) = (Some("redis\u{1b}[31m".to_owned()), Some(4242));
        let cgroup = Some("/system.slice/".to_owned() + &"x".repeat(50) + ".service");
        MachineReport {
            schema: SCHEMA,
            host: Host::default(),
            window: MachineWindow {
                evidence,
                start_ns: 0,
                interval_ns: 15_000_000_000,
                end_ns: 20_000_000_000,
                untracked: 3,
                complete: false,
            },
            processes: vec![Row { comm: comm.clone(), tgid, ..all.clone() }.into()],
            programs: vec![Row { comm, ..all.clone() }.into(), Arc::default()],
            cgroups: vec![Row { cgroup, ..all.clone() }.into()],
            all,
        }
    }

    #[test]
    fn the_sum_comes_first_then_who_it_was() {
        let style = Style { color: false, width: 120 };
        assert_snapshot!(render_machine(&report(Evidence::Frames), style), @r"
        incomplete: 3 address spaces were not counted because the probes' table was full
        20.0 s: 304.0 MiB were detached, 294.0 MiB freed; 120 address spaces live, 8 ended; evidence frames

          left by     operations     zapped      freed       late  kept elsewhere
            munmap            12  300.0 MiB  290.0 MiB  512.0 KiB        10.0 MiB
            pressure           –    4.0 MiB    4.0 MiB  512.0 KiB             0 B
            all               12  304.0 MiB  294.0 MiB  512.0 KiB        10.0 MiB

          process                 live  ended   resident  freed in 5.0 s      freed     zapped      kept  mostly by
            4242 redis\u{1b}[31m   120      8  900.0 MiB        30.0 MiB  294.0 MiB  304.0 MiB  10.0 MiB  munmap

          program            live  ended   resident  freed in 5.0 s      freed     zapped      kept  mostly by
            redis\u{1b}[31m   120      8  900.0 MiB        30.0 MiB  294.0 MiB  304.0 MiB  10.0 MiB  munmap
            –                   0      0        0 B             0 B          –        0 B         –  –

          cgroup                                      live  ended   resident  freed in 5.0 s      freed     zapped      kept  mostly by
            …xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.service   120      8  900.0 MiB        30.0 MiB  294.0 MiB  304.0 MiB  10.0 MiB  munmap
        ");
    }

    #[test]
    fn where_frames_are_not_counted_it_says_so() {
        let text = render_machine(&report(Evidence::Rss), Style { color: false, width: 0 });
        assert!(
            text.contains("304.0 MiB were detached (what was freed was not counted)"),
            "{text}"
        );
        assert!(text.contains("31.0 MiB"), "what was detached lately: {text}");
    }
}
