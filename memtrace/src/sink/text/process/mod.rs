//! One process: the answer in a sentence, what to know about it, then the tables.

mod allocators;
mod regions;

use memtrace_common::Path;

pub(super) use self::regions::region_table;
pub(in crate::sink) use self::{allocators::allocators, regions::parts};
use super::{
    Style,
    layout::{
        Align::{Left, Right},
        Ink, columns, end_of,
    },
};
use crate::{
    model::report::{Balance, Evidence, Finding, Memory, PathReport, ProcessReport},
    sink::{
        known, known_as, printable, signed_size, size,
        words::{
            Figure, asked_for, faults, label, late, madv_free, memory_title, notes, path, reuses,
            sentence, swap, total,
        },
    },
};

/// Adds the whole text about one process to `out`.
pub(super) fn render(
    out: &mut String,
    process: &ProcessReport,
    traced: Option<Evidence>,
    style: Style,
) {
    style.paragraph(out, Some(Ink::Bold), 4, &sentence(process, traced));
    for note in notes(process) {
        style.paragraph(out, Some(Ink::Yellow), 4, &format!("  {note}"));
    }
    for Finding { id, bytes, summary, evidence, advice } in &process.findings {
        let finding = format!("  {id}: {} – {summary} ({evidence})", size(*bytes));
        style.paragraph(out, Some(Ink::Yellow), 4, &finding);
        style.paragraph(out, None, 9, &format!("    try: {advice}"));
    }
    if let Some(exe) = &process.exe {
        let exe = printable(exe);
        let room = if style.width == 0 { usize::MAX } else { style.width.saturating_sub(2) };
        out.push_str(&format!("  {}\n", end_of(&exe, room)));
    }
    out.push('\n');
    // Arguments alone tell nothing of an address space that is gone.
    if traced != Some(Evidence::Args) || process.memory.mapped.is_some() {
        memory(out, process, style);
    }
    allocators(out, process, style);
    paths(out, process, style);
    sums(out, process, traced, style);
    regions::regions(out, process, style);
}

/// Adds what a process holds to `out`.
pub(in crate::sink) fn memory(out: &mut String, process: &ProcessReport, style: Style) {
    let Memory {
        mapped,
        resident,
        resident_by_kind: kinds,
        live,
        freed_not_reclaimed: freed,
        reserved,
        swapped,
        cold,
    } = &process.memory;
    let row = |label: &str, bytes, parts: &[(&str, Option<u64>)]| {
        let parts: Vec<String> =
            parts.iter().map(|(name, bytes)| format!("{name} {}", known(*bytes))).collect();
        vec![format!("  {label}"), known(bytes), parts.join(", ")]
    };
    let title = memory_title(process);
    let mut rows = vec![
        row("mapped", *mapped, &[]),
        row(
            "resident",
            *resident,
            &[("anon", kinds.anon), ("file", kinds.file), ("shmem", kinds.shmem)],
        ),
        row("live", *live, &[]),
        row(
            "freed, not reclaimed",
            freed.total,
            &[("allocator", freed.allocator), ("lazy free", freed.lazy_free)],
        ),
        row("reserved", *reserved, &[]),
        row("swapped", *swapped, &[]),
    ];
    if cold.is_some() {
        let mut row = row("cold", *cold, &[]);
        row[2] = "resident and not touched meanwhile: not known to be free".to_owned();
        rows.push(row);
    }
    let lines = columns(&[(title, Left), ("", Right), ("", Left)], &rows);
    style.table(out, &lines);
    out.push('\n');
}

fn paths(out: &mut String, process: &ProcessReport, style: Style) {
    let by_path = &process.reclaimed.by_path;
    if by_path.is_empty() {
        return;
    }
    let sum = |figure: Figure<PathReport>| {
        // What is not known of one path is known of none.
        let known: Option<Vec<u64>> = by_path.values().map(figure).collect();
        known.map(|bytes| total(bytes.into_iter()))
    };
    let mut figures: Vec<(&str, Figure<PathReport>)> = vec![
        ("requested", |path| path.requested),
        ("zapped", |path| path.zapped),
        ("freed", |path| path.freed),
        ("late", |path| path.late),
        ("kept elsewhere", |path| path.kept_elsewhere),
    ];
    // A figure that is not counted gets no column.
    figures.retain(|(title, figure)| {
        *title == "requested" || by_path.values().any(|path| figure(path).is_some())
    });
    let row = |label: &str, calls: u64, bytes: &dyn Fn(Figure<PathReport>) -> Option<u64>| {
        let mut row = vec![format!("  {label}"), calls.to_string()];
        row.extend(figures.iter().map(|(_, figure)| known(bytes(*figure))));
        row
    };
    let taken = Path::ALL.into_iter().filter_map(|p| Some((p, path(process, p)?)));
    let mut rows: Vec<_> =
        taken.map(|(p, path)| row(label(p), path.calls, &|figure| figure(path))).collect();
    if by_path.len() > 1 {
        rows.push(row("all", total(by_path.values().map(|path| path.calls)), &sum));
    }
    let table = |shorten: bool| {
        let mut head = vec![("left by", Left), ("calls", Right)];
        head.extend(figures.iter().map(|&(title, _)| match title {
            "kept elsewhere" if shorten => ("kept", Right),
            title => (title, Right),
        }));
        columns(&head, &rows)
    };
    let mut lines = table(false);
    if style.width > 0 && lines.iter().any(|line| line.chars().count() > style.width) {
        lines = table(true);
    }
    style.table(out, &lines);
    out.push('\n');
}

fn sums(out: &mut String, process: &ProcessReport, traced: Option<Evidence>, style: Style) {
    let mut line = |text: &str| style.paragraph(out, None, 11, &format!("  {text}"));
    if traced.is_some() {
        line(&format!("asked for  {}", asked_for(process)));
    }
    if let Some(late) = late(process) {
        line(&format!("late       {late}"));
    }
    let by_kind = &process.reclaimed.by_kind;
    if !by_kind.is_empty() {
        let mut kinds: Vec<_> = by_kind.iter().collect();
        kinds.sort_by_key(|(_, left)| std::cmp::Reverse(left.zapped));
        let kinds: Vec<String> =
            kinds.iter().map(|(kind, left)| format!("{kind} {}", size(left.zapped))).collect();
        line(&format!("regions    {}: detached by calls", kinds.join(", ")));
    }
    if traced.is_some() {
        line(&format!("faults     {}", faults(&process.faults)));
    }
    if let Some(given_up) = madv_free(process) {
        line(&format!("MADV_FREE  {given_up}"));
    }
    if let Some(remanence) = &process.remanence {
        line(&format!("remanence  {}", reuses(remanence)));
    }
    if let Some(swap) = swap(process) {
        line(&format!("swap       {swap}"));
    }

    if traced.is_some_and(|evidence| evidence >= Evidence::Rss) {
        let Balance { r#in, out, resident, unexplained } = process.balance;
        let [came, out, resident, unexplained] =
            [r#in, out, resident, unexplained].map(|bytes| known_as(bytes, signed_size));
        line(&format!(
            "balance    in {came} = resident {resident} + out {out} + unexplained {unexplained}"
        ));
    }
}
