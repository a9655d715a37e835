//! One process: the answer in a sentence, what to know about it, then the tables.

use memtrace_common::Path;

use super::{
    Style,
    layout::{
        Align::{Left, Right},
        Ink, columns, end_of,
    },
    total,
};
use crate::{
    model::{
        change::path_name,
        report::{Balance, Faults, Memory, PathReport, ProcessReport, RegionReport},
    },
    sink::{exit_code, printable, signed_size, size},
};

/// What stands for a figure that is not known.
const UNKNOWN: &str = "–";
/// Regions that are listed one by one.
const REGIONS: usize = 12;
/// Paths that the sentence names one by one.
const NAMED_PATHS: usize = 3;

/// Adds the whole text about one process to `out`.
pub(super) fn render(out: &mut String, process: &ProcessReport, traced: bool, style: Style) {
    style.paragraph(out, Some(Ink::Bold), 4, &sentence(process, traced));
    for note in notes(process) {
        style.paragraph(out, Some(Ink::Yellow), 4, &format!("  {note}"));
    }
    if let Some(exe) = &process.exe {
        let exe = printable(exe);
        let room = if style.width == 0 { usize::MAX } else { style.width.saturating_sub(2) };
        out.push_str(&format!("  {}\n", end_of(&exe, room)));
    }
    out.push('\n');
    memory(out, process, style);
    paths(out, process, style);
    sums(out, process, traced, style);
    regions(out, process, style);
}

/// Returns the bytes that went back to the kernel before the process exited.
pub(super) fn given_back(process: &ProcessReport) -> u64 {
    let at_exit = path(process, Path::Exit).map_or(0, |exit| exit.freed);
    process.reclaimed.total.saturating_sub(at_exit)
}

/// Returns a size, or the sign for an unknown one.
pub(super) fn known(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| UNKNOWN.to_owned(), size)
}

fn path(process: &ProcessReport, path: Path) -> Option<&PathReport> {
    process.reclaimed.by_path.get(path_name(path))
}

fn sentence(process: &ProcessReport, traced: bool) -> String {
    let who = format!("{} (pid {})", printable(&process.comm), process.tgid);
    match process.state {
        "exited" => {
            let code = process.exit_code.map_or_else(
                || "exited".to_owned(),
                |code| format!("exited with {}", exit_code(code)),
            );
            format!("{who} {code}: at exit {}; {}", back(process, "had"), left(process))
        }
        "running" if traced => {
            let back = back(process, "has");
            format!("{who} is running: since tracing began {back}; {}", held(process))
        }
        "running" => format!("{who} is running: {}", held(process)),
        _ => format!("{who}, whose end was not seen: {}; {}", back(process, "had"), held(process)),
    }
}

fn back(process: &ProcessReport, had: &str) -> String {
    let all = given_back(process);
    if all == 0 {
        return format!("nothing {had} been given back");
    }
    let mut freed: Vec<(Path, u64)> = Path::ALL
        .into_iter()
        .filter(|path| !matches!(path, Path::Exit | Path::Other))
        .filter_map(|p| Some((p, path(process, p)?.freed)))
        .filter(|(_, freed)| *freed > 0)
        .collect();
    freed.sort_by_key(|(_, freed)| std::cmp::Reverse(*freed));
    freed.truncate(NAMED_PATHS);

    let rest = all.saturating_sub(total(freed.iter().map(|(_, freed)| *freed)));
    let mut by: Vec<String> =
        freed.iter().map(|(path, freed)| format!("{} by {}", size(*freed), label(*path))).collect();
    if rest > 0 {
        by.push(format!("{} by other paths", size(rest)));
    }
    let have = if had == "has" { "have" } else { had };
    let all_shown = size(all);
    match by.as_slice() {
        [only] if only.starts_with(&all_shown) => {
            let by = &only[all_shown.len()..];
            format!("{all_shown} {have} been given back{by}")
        }
        _ => format!("{all_shown} {have} been given back: {}", by.join(", ")),
    }
}

/// Returns what was there when the process exited, and how much of it went back then.
fn left(process: &ProcessReport) -> String {
    let exit = path(process, Path::Exit);
    let Some(left) = process.memory.resident.or(exit.map(|exit| exit.zapped)) else {
        return "what was left is not known".into();
    };
    if left == 0 {
        return "nothing was left".into();
    }
    let left_shown = size(left);
    match exit.map(|exit| exit.freed) {
        None => format!("{left_shown} were left, whose teardown was not seen"),
        Some(0) => format!("{left_shown} were left, none of which went back at exit"),
        Some(freed) if size(freed) == left_shown => {
            format!("{left_shown} were left and went back at exit")
        }
        Some(freed) if freed < left => {
            format!("{left_shown} were left, of which {} went back at exit", size(freed))
        }
        Some(freed) => format!("{left_shown} were left and {} went back at exit", size(freed)),
    }
}

/// Returns what a process that did not exit holds.
fn held(process: &ProcessReport) -> String {
    let Memory { resident, freed_not_reclaimed: freed, .. } = &process.memory;
    let (is, now) = if process.state == "running" { ("are", " now") } else { ("were", "") };
    let Some(resident) = resident else {
        return format!("what is resident{now} is not known");
    };
    let freed = match freed.total {
        Some(freed) if freed > 0 => {
            format!(", {} of them freed by the program but not reclaimed", size(freed))
        }
        _ => String::new(),
    };
    format!("{} {is} resident{now}{freed}", size(*resident))
}

/// Returns what a reader has to know to take the sentence right.
fn notes(process: &ProcessReport) -> Vec<String> {
    let mut notes = vec![];
    let kept = total(process.reclaimed.by_path.values().map(|path| path.kept_elsewhere));
    if kept > 0 {
        notes.push(format!(
            "kept elsewhere: {} left this process without being freed: in the page cache, shared with \
             another process, pinned, part of a huge page, or still in a per-CPU batch",
            size(kept)
        ));
    }
    let Balance { r#in, unexplained, .. } = process.balance;
    if let (Some(came), Some(rest)) = (r#in, unexplained) {
        // Up to a hundredth, the balance line says it.
        if rest.unsigned_abs() > came.unsigned_abs() / 100 {
            let what = if rest > 0 {
                "came in, but neither left nor is there"
            } else {
                "left or are there, but were not seen coming in"
            };
            notes.push(format!("unexplained: {} {what}", size(rest.unsigned_abs())));
        }
    }
    notes
}

fn memory(out: &mut String, process: &ProcessReport, style: Style) {
    let Memory {
        mapped,
        resident,
        resident_by_kind: kinds,
        live,
        freed_not_reclaimed: freed,
        reserved,
        swapped,
    } = &process.memory;
    let row = |label: &str, bytes, parts: &[(&str, Option<u64>)]| {
        let parts: Vec<String> =
            parts.iter().map(|(name, bytes)| format!("{name} {}", known(*bytes))).collect();
        vec![format!("  {label}"), known(bytes), parts.join(", ")]
    };
    let title = match process.state {
        "exited" => "memory at exit",
        "running" => "memory now",
        _ => "memory when last seen",
    };
    let lines = columns(
        &[(title, Left), ("", Right), ("", Left)],
        &[
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
        ],
    );
    style.table(out, &lines);
    out.push('\n');
}

fn paths(out: &mut String, process: &ProcessReport, style: Style) {
    let by_path = &process.reclaimed.by_path;
    if by_path.is_empty() {
        return;
    }
    let row = |label: &str, figures: &PathReport| {
        let PathReport { calls, requested, zapped, freed, late, kept_elsewhere } = *figures;
        let mut row = vec![format!("  {label}"), calls.to_string()];
        row.extend([requested, zapped, freed, late, kept_elsewhere].map(size));
        row
    };
    let mut rows: Vec<_> =
        Path::ALL.into_iter().filter_map(|p| Some(row(label(p), path(process, p)?))).collect();
    if by_path.len() > 1 {
        let sum = |figure: fn(&PathReport) -> u64| total(by_path.values().map(figure));
        rows.push(row(
            "all",
            &PathReport {
                calls: sum(|path| path.calls),
                requested: sum(|path| path.requested),
                zapped: sum(|path| path.zapped),
                freed: process.reclaimed.total,
                late: sum(|path| path.late),
                kept_elsewhere: sum(|path| path.kept_elsewhere),
            },
        ));
    }
    let under = |kept| {
        let titles = ["calls", "requested", "zapped", "freed", "late", kept];
        let mut head = vec![("left by", Left)];
        head.extend(titles.map(|title| (title, Right)));
        columns(&head, &rows)
    };
    let mut lines = under("kept elsewhere");
    if style.width > 0 && lines.iter().any(|line| line.chars().count() > style.width) {
        lines = under("kept");
    }
    style.table(out, &lines);
    out.push('\n');
}

fn sums(out: &mut String, process: &ProcessReport, traced: bool, style: Style) {
    let mut line = |text: &str| style.paragraph(out, None, 11, &format!("  {text}"));
    let mapped = &process.mapped;
    if traced {
        line(&format!(
            "asked for  {} in {} {}; at most {} were mapped at once",
            size(mapped.requested),
            mapped.calls,
            if mapped.calls == 1 { "call" } else { "calls" },
            size(mapped.peak),
        ));
    }
    let Faults { minor, major, zeroed } = process.faults;
    let [minor, major, zeroed] = [minor, major, zeroed]
        .map(|count| count.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string()));
    line(&format!("faults     {minor} minor, {major} major; {zeroed} frames zeroed"));

    if traced {
        let Balance { r#in, out, resident, unexplained } = process.balance;
        let [came, out, resident, unexplained] = [r#in, out, resident, unexplained]
            .map(|bytes| bytes.map_or_else(|| UNKNOWN.to_owned(), signed_size));
        line(&format!(
            "balance    in {came} = resident {resident} + out {out} + unexplained {unexplained}"
        ));
    }
    if !process.allocators.is_empty() {
        let names: Vec<String> =
            process.allocators.iter().map(|allocator| printable(&allocator.name)).collect();
        line(&format!("allocator  {}", names.join(", ")));
    }
}

/// One figure of a region.
type Figure = fn(&RegionReport) -> Option<u64>;

fn regions(out: &mut String, process: &ProcessReport, style: Style) {
    let regions = &process.regions;
    if regions.is_empty() {
        return;
    }
    out.push('\n');
    let (listed, more) = regions.split_at(regions.len().min(REGIONS));
    region_table(out, "largest regions", listed, style);
    if !more.is_empty() {
        let mapped = total(more.iter().map(|region| region.mapped));
        out.push_str(&format!("  … and {} more, {}\n", more.len(), size(mapped)));
    }
}

/// Adds a table of regions in the order given.
pub(super) fn region_table(out: &mut String, title: &str, listed: &[RegionReport], style: Style) {
    // A figure that is known of none of them gets no column.
    let mut figures: Vec<(&str, Figure)> = vec![
        ("resident", |region| region.resident),
        ("live", |region| region.live),
        ("free", |region| region.free_resident),
        ("lazy free", |region| region.lazy_free),
    ];
    figures.retain(|(title, figure)| {
        *title == "resident" || listed.iter().any(|r| figure(r).is_some())
    });

    let mut head = vec![(title, Left), ("mapped", Right)];
    head.extend(figures.iter().map(|(title, _)| (*title, Right)));
    head.extend([("prot", Left), ("kind", Left), ("name", Left)]);
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|region| {
            let mut row = vec![format!("  {}", region.start), size(region.mapped)];
            row.extend(figures.iter().map(|(_, figure)| known(figure(region))));
            row.extend([region.prot.clone(), region.kind.to_owned(), String::new()]);
            row
        })
        .collect();
    let mut lines = columns(&head, &rows);

    // Names come last, cut to what the widest line leaves.
    let name_column = lines[0].chars().count() - "name".len();
    let room = style.width.saturating_sub(name_column).max(16);
    for (line, region) in lines.iter_mut().skip(1).zip(listed) {
        let Some(name) = &region.name else { continue };
        let name = printable(name);
        let name = if style.width == 0 { name } else { end_of(&name, room) };
        *line = format!("{line:<name_column$}{name}");
    }
    style.table(out, &lines);
}

/// Returns what people call a path.
const fn label(path: Path) -> &'static str {
    match path {
        Path::Munmap => "munmap",
        Path::Brk => "heap trim (brk)",
        Path::DontNeed => "MADV_DONTNEED",
        Path::Free => "MADV_FREE",
        Path::Remove => "MADV_REMOVE/punch hole",
        Path::Mremap => "mremap",
        Path::Overmap => "MAP_FIXED over",
        Path::Exec => "exec",
        Path::Exit => "exit",
        Path::Pressure => "pressure",
        Path::Other => "other",
    }
}
