//! The tables: before, after and by how much.

use memtrace_common::Path;

use super::{
    super::{
        Style,
        layout::{
            Align::{self, Left, Right},
            columns, end_of,
        },
    },
    by,
    sentence::is_notable,
};
use crate::{
    model::{
        change::path_name,
        diff::{AllocatorDiff, ArenaDiff, Change, Classes, PathDiff, ProcessDiff, RegionDiff},
    },
    sink::{known, known_number, printable, words::label},
};

/// Regions and arenas that are listed.
const REGIONS: usize = 12;
const ARENAS: usize = 8;

/// Adds what is held, by class.
pub(super) fn memory(out: &mut String, memory: &Classes, style: Style) {
    let Classes {
        mapped,
        resident,
        live,
        freed_not_reclaimed,
        allocator,
        lazy_free,
        reserved,
        swapped,
    } = *memory;
    let rows = [
        row("mapped", mapped),
        row("resident", resident),
        row("live", live),
        row("freed, not reclaimed", freed_not_reclaimed),
        row("  allocator", allocator),
        row("  lazy free", lazy_free),
        row("reserved", reserved),
        row("swapped", swapped),
    ];
    table(out, "memory", &rows, style);
}

/// Adds what an allocator holds.
pub(super) fn allocator(out: &mut String, allocator: &AllocatorDiff, style: Style) {
    let AllocatorDiff {
        name,
        version_before,
        version_after,
        lower_bound,
        system,
        in_use,
        free,
        free_by_class,
        free_resident,
        trimmable,
        arena_count,
        arenas,
    } = allocator;
    let version = match (version_before, version_after) {
        (Some(before), Some(after)) if before != after => format!(" {before} → {after}"),
        (before, after) => {
            before.as_ref().or(after.as_ref()).map_or_else(String::new, |v| format!(" {v}"))
        }
    };
    let bound = if *lower_bound { ", at least" } else { "" };
    let mut rows = vec![
        row("from kernel", *system),
        row("in use", *in_use),
        row(&format!("free{bound}"), *free),
    ];
    let classes =
        free_by_class.iter().filter(|(_, change)| change.before.max(change.after) > Some(0));
    rows.extend(classes.map(|(class, change)| row(&format!("  {}", printable(class)), *change)));
    rows.push(row("free, resident", *free_resident));
    rows.push(row("trimmable", *trimmable));
    if arena_count.before.max(arena_count.after) > Some(1) {
        let Change { before, after, change } = *arena_count;
        let change = match change {
            Some(0) => "=".to_owned(),
            Some(change) => format!("{change:+}"),
            None => known_number(change),
        };
        rows.push(vec!["  arenas".into(), known_number(before), known_number(after), change]);
        rows.extend(arena_rows(arenas));
    }
    table(out, &printable(&format!("{name}{version}")), &rows, style);
}

/// Returns the arenas of which the free memory changed, the most first.
fn arena_rows(arenas: &[ArenaDiff]) -> Vec<Vec<String>> {
    let free = |arena: &ArenaDiff| match arena.free_resident.change {
        Some(_) => arena.free_resident,
        None => arena.free,
    };
    let mut changed: Vec<(usize, &ArenaDiff)> =
        arenas.iter().enumerate().filter(|(_, arena)| is_notable(free(arena))).collect();
    changed.sort_by_key(|(_, arena)| std::cmp::Reverse(free(arena).distance()));
    let named = changed.into_iter().take(ARENAS).map(|(index, arena)| {
        let which =
            if index == 0 { "the first".to_owned() } else { format!("number {}", index + 1) };
        row(&format!("  free in {which}"), free(arena))
    });
    named.collect()
}

/// Adds what left, by path.
pub(super) fn paths(out: &mut String, process: &ProcessDiff, style: Style) {
    if process.paths.is_empty() {
        return;
    }
    type Figure = fn(&PathDiff) -> Change;
    // The best figure that either side knows.
    let figures: [(&str, Figure); 3] = [
        ("freed", |path| path.freed),
        ("zapped", |path| path.zapped),
        ("requested", |path| path.requested),
    ];
    let is_known = |figure: Figure| {
        process.paths.values().any(|path| figure(path).before.or(figure(path).after).is_some())
    };
    let best = figures.into_iter().find(|(_, figure)| is_known(*figure)).unwrap_or(figures[2]);
    let (what, figure) = best;
    let path_row = |(name, path): (&String, &PathDiff)| {
        let known_path = Path::ALL.into_iter().find(|path| path_name(*path) == name);
        let shown = known_path.map_or_else(|| printable(name), |path| label(path).to_owned());
        let bytes = figure(path);
        vec![
            format!("  {shown}"),
            known_number(path.calls.before),
            known_number(path.calls.after),
            known(bytes.before),
            known(bytes.after),
            by(bytes),
        ]
    };
    let mut rows: Vec<(u64, Vec<String>)> =
        process.paths.iter().map(|path| (figure(path.1).distance(), path_row(path))).collect();
    rows.sort_by_key(|(distance, _)| std::cmp::Reverse(*distance));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(_, row)| row).collect();
    let before = format!("{what} before");
    let head = [
        ("left by", Left),
        ("calls before", Right),
        ("after", Right),
        (before.as_str(), Right),
        ("after", Right),
        ("change", Right),
    ];
    finish(out, &head, &rows, style);
}

/// Adds the regions that changed.
pub(super) fn regions(out: &mut String, process: &ProcessDiff, style: Style) {
    // Where nobody knows what is resident, the size is all there is.
    let figure = |region: &RegionDiff| match region.resident.change {
        Some(_) => region.resident,
        None => region.mapped,
    };
    let mut changed: Vec<&RegionDiff> = process
        .regions
        .iter()
        .filter(|region| is_notable(figure(region)) || is_notable(region.mapped))
        .collect();
    changed.sort_by_key(|region| std::cmp::Reverse(figure(region).distance()));
    if changed.is_empty() {
        return;
    }
    let rest = changed.len().saturating_sub(REGIONS);
    let region_row = |region: &&RegionDiff| {
        let RegionDiff { kind, name, start, count, mapped, resident, .. } = *region;
        let name = name.as_deref().or(start.as_deref()).unwrap_or("without a name");
        let count = match (count.before, count.after) {
            (before, after) if before == after => known_number(before),
            (before, after) => format!("{} → {}", known_number(before), known_number(after)),
        };
        vec![
            format!("  {}", printable(kind)),
            count,
            by(*mapped),
            known(resident.before),
            known(resident.after),
            by(*resident),
            end_of(&printable(name), 40),
        ]
    };
    let rows: Vec<Vec<String>> = changed.iter().take(REGIONS).map(region_row).collect();
    let head = [
        ("regions", Left),
        ("how many", Right),
        ("mapped", Right),
        ("resident before", Right),
        ("after", Right),
        ("change", Right),
        ("name", Left),
    ];
    finish(out, &head, &rows, style);
    if rest > 0 {
        out.truncate(out.len() - 1);
        out.push_str(&format!("    … and {rest} more, which changed less\n\n"));
    }
}

fn row(label: &str, change: Change) -> Vec<String> {
    vec![format!("  {label}"), known(change.before), known(change.after), by(change)]
}

fn table(out: &mut String, title: &str, rows: &[Vec<String>], style: Style) {
    let head = [(title, Left), ("before", Right), ("after", Right), ("change", Right)];
    finish(out, &head, rows, style);
}

fn finish(out: &mut String, head: &[(&str, Align)], rows: &[Vec<String>], style: Style) {
    style.table(out, &columns(head, rows));
    out.push('\n');
}
