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
        report::{
            Balance, Evidence, Faults, KeptByReason, LateDelay, Memory, PathReport, ProcessReport,
            RegionReport,
        },
    },
    sink::{UNKNOWN, exit_code, known, printable, signed_size, size},
};

/// Regions that are listed one by one.
const REGIONS: usize = 12;
/// Paths that the sentence names one by one.
const NAMED_PATHS: usize = 3;

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
    paths(out, process, style);
    sums(out, process, traced, style);
    regions(out, process, style);
}

/// Returns the bytes that went back to the kernel before the process exited.
pub(super) fn given_back(process: &ProcessReport) -> Option<u64> {
    let at_exit = path(process, Path::Exit).map_or(Some(0), |exit| exit.freed)?;
    Some(process.reclaimed.total?.saturating_sub(at_exit))
}

fn path(process: &ProcessReport, path: Path) -> Option<&PathReport> {
    process.reclaimed.by_path.get(path_name(path))
}

fn sentence(process: &ProcessReport, traced: Option<Evidence>) -> String {
    let evidence = traced.unwrap_or_default();
    let who = format!("{} (pid {})", printable(&process.comm), process.tgid);
    match process.state {
        "exited" => {
            let code = process.exit_code.map_or_else(
                || "exited".to_owned(),
                |code| format!("exited with {}", exit_code(code)),
            );
            let back = back(process, evidence, "had");
            format!("{who} {code}: at exit {back}; {}", left(process))
        }
        "running" if traced.is_some() => {
            let back = back(process, evidence, "has");
            format!("{who} is running: since tracing began {back}; {}", held(process))
        }
        "running" => format!("{who} is running: {}", held(process)),
        _ => {
            let back = back(process, evidence, "had");
            format!("{who}, whose end was not seen: {back}; {}", held(process))
        }
    }
}

/// Returns what went back before the exit, by the best figure that there is.
fn back(process: &ProcessReport, evidence: Evidence, had: &str) -> String {
    let (figure, what, but): (Figure<PathReport>, _, _) = match evidence {
        Evidence::Frames => (|path| path.freed, "been given back", ""),
        Evidence::Rss => {
            (|path| path.zapped, "been detached", " (how much of it was freed was not counted)")
        }
        Evidence::Args => (
            |path| path.requested,
            "been given up",
            " (address space: how much of it was memory was not counted)",
        ),
    };
    let mut parts: Vec<(Path, u64)> = Path::ALL
        .into_iter()
        .filter(|path| !matches!(path, Path::Exit))
        .filter_map(|p| Some((p, figure(path(process, p)?)?)))
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    let all = total(parts.iter().map(|(_, bytes)| *bytes));
    if all == 0 {
        return format!("nothing {had} {what}");
    }
    parts.retain(|(path, _)| !matches!(path, Path::Other));
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    parts.truncate(NAMED_PATHS);

    let rest = all.saturating_sub(total(parts.iter().map(|(_, bytes)| *bytes)));
    let mut by: Vec<String> =
        parts.iter().map(|(path, bytes)| format!("{} by {}", size(*bytes), label(*path))).collect();
    if rest > 0 {
        by.push(format!("{} by other paths", size(rest)));
    }
    let have = if had == "has" { "have" } else { had };
    let all_shown = size(all);
    match by.as_slice() {
        [only] if only.starts_with(&all_shown) => {
            let by = &only[all_shown.len()..];
            format!("{all_shown} {have} {what}{by}{but}")
        }
        _ => format!("{all_shown} {have} {what}: {}{but}", by.join(", ")),
    }
}

/// Returns what was there when the process exited, and how much of it went back then.
fn left(process: &ProcessReport) -> String {
    let exit = path(process, Path::Exit);
    let Some(left) = process.memory.resident.or(exit.and_then(|exit| exit.zapped)) else {
        return "what was left is not known".into();
    };
    if left == 0 {
        return "nothing was left".into();
    }
    let left_shown = size(left);
    let Some(exit) = exit else {
        return format!("{left_shown} were left, whose teardown was not seen");
    };
    match exit.freed {
        None => format!("{left_shown} were left"),
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
    let kept = total(process.reclaimed.by_path.values().filter_map(|path| path.kept_elsewhere));
    if kept > 0 {
        let reasons = reasons(process);
        let why =
            if reasons.is_empty() { "why is not known".to_owned() } else { reasons.join(", ") };
        let kept = size(kept);
        notes.push(format!("kept elsewhere: {kept} left this process without being freed: {why}"));
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

/// Returns why frames stayed, the most of them first.
fn reasons(process: &ProcessReport) -> Vec<String> {
    let mut sum = KeptByReason::default();
    for kept in process.reclaimed.by_path.values().filter_map(|path| path.kept_by_reason) {
        sum.add(kept);
    }
    let KeptByReason { page_cache, shmem, shared, unknown } = sum;
    let mut reasons = [
        (page_cache, "in the page cache"),
        (shmem, "in tmpfs objects that live on"),
        (shared, "shared with another process since a fork"),
        (unknown, "not told apart (a per-CPU batch, pinned, half of a huge page)"),
    ];
    reasons.sort_by_key(|&(bytes, _)| std::cmp::Reverse(bytes));
    let known = reasons.into_iter().filter(|(bytes, _)| *bytes > 0);
    known.map(|(bytes, reason)| format!("{} {reason}", size(bytes))).collect()
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
    let mapped = &process.mapped;
    if traced.is_some() {
        line(&format!(
            "asked for  {} in {} {}; at most {} were mapped at once",
            known(mapped.requested),
            mapped.calls,
            if mapped.calls == 1 { "call" } else { "calls" },
            known(mapped.peak),
        ));
    }
    if let Some(LateDelay { p50_ns, p99_ns, max_ns }) = process.reclaimed.late_delay {
        let [half, most, longest] = [p50_ns, p99_ns, max_ns].map(time);
        line(&format!(
            "late       half of the frames within {half}, 99 % within {most}, the last after {longest}"
        ));
    }
    let Faults { minor, major, zeroed } = process.faults;
    let [minor, major, zeroed] = [minor, major, zeroed]
        .map(|count| count.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string()));
    line(&format!("faults     {minor} minor, {major} major; {zeroed} frames zeroed"));

    if traced.is_some_and(|evidence| evidence >= Evidence::Rss) {
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

/// Returns a time in the largest unit that keeps it at 1 or more.
fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// One figure of a row of a table.
type Figure<T> = fn(&T) -> Option<u64>;

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
    let mut figures: Vec<(&str, Figure<RegionReport>)> = vec![
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
