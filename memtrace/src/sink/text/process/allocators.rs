//! What allocators hold, and what a trim would leave.

use crate::sink::text::{
    Style,
    layout::{
        Align::{Left, Right},
        columns,
    },
};
use crate::{
    model::report::{AllocatorReport, ArenaReport, ProcessReport},
    sink::{
        known, known_number, size,
        words::{allocator_name, stays},
    },
};

/// Arenas that are listed one by one.
const ARENAS: usize = 8;

/// Adds what the allocators of a process hold to `out`.
pub(in crate::sink) fn allocators(out: &mut String, process: &ProcessReport, style: Style) {
    let allocators = &process.allocators;
    if allocators.is_empty() {
        return;
    }
    let head = [
        ("allocator", Left),
        ("from kernel", Right),
        ("in use", Right),
        ("free", Right),
        ("resident", Right),
        ("trimmable", Right),
    ];
    let rows: Vec<Vec<String>> = allocators
        .iter()
        .map(|allocator| {
            let free =
                allocator.free.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
            let free = match allocator.evidence {
                "lower_bound" => format!("≥ {}", size(free)),
                _ => size(free),
            };
            vec![
                format!("  {}", allocator_name(allocator)),
                size(allocator.system),
                size(allocator.in_use),
                free,
                known(allocator.free_resident),
                known(allocator.trimmable),
            ]
        })
        .collect();
    style.table(out, &columns(&head, &rows));
    for allocator in allocators {
        let mut text = String::new();
        details(&mut text, allocator, style);
        // Of one alone it is clear whose details they are.
        if allocators.len() > 1 && !text.is_empty() {
            out.push_str(&format!("    of {}\n", allocator_name(allocator)));
        }
        out.push_str(&text);
    }
    out.push('\n');
}

fn details(out: &mut String, allocator: &AllocatorReport, style: Style) {
    let mut line =
        |label: &str, text: &str| style.paragraph(out, None, 13, &format!("    {label:<8} {text}"));
    let mut classes: Vec<(&str, u64)> =
        allocator.free.iter().map(|(class, bytes)| (*class, *bytes)).collect();
    classes.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
    classes.retain(|&(_, bytes)| bytes > 0);
    let classes: Vec<String> = classes
        .iter()
        .map(|(class, bytes)| format!("{} {}", class.replace('_', " "), size(*bytes)))
        .collect();
    if !classes.is_empty() {
        line("free", &classes.join(", "));
    }
    if let Some(late) = allocator.trimmable_late.filter(|late| *late > 0) {
        line(
            "late",
            &format!(
                "{} of what a trim gives are parts of huge pages: the kernel gets them when it needs \
                 memory and splits those",
                size(late)
            ),
        );
    }
    if let Some(remains) = allocator.remains {
        let stays = stays(remains);
        if !stays.is_empty() {
            line("stays", &format!("after a trim: {stays}"));
        }
    }
    if allocator.unknown > 0 {
        let times = match allocator.resyncs {
            1 => "in 1 place".to_owned(),
            times => format!("in {times} places"),
        };
        line(
            "unknown",
            &format!(
                "{} {times}: they changed while they were read, or are damaged",
                size(allocator.unknown)
            ),
        );
    }
    if allocator.arenas.len() > 1 {
        arenas(out, &allocator.arenas, style);
    }
}

fn arenas(out: &mut String, arenas: &[ArenaReport], style: Style) {
    let mut sorted: Vec<&ArenaReport> = arenas.iter().collect();
    sorted.sort_by_key(|arena| std::cmp::Reverse(arena.free));
    let (listed, more) = sorted.split_at(sorted.len().min(ARENAS));
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|arena| {
            let ArenaReport { address, system, free, free_resident, trimmable, threads } = arena;
            vec![
                format!("    {address}"),
                size(*system),
                size(*free),
                known(*free_resident),
                known(*trimmable),
                known_number(*threads),
            ]
        })
        .collect();
    let title = format!("  {} arenas", arenas.len());
    let head = [
        (title.as_str(), Left),
        ("from kernel", Right),
        ("free", Right),
        ("resident", Right),
        ("trimmable", Right),
        ("threads", Right),
    ];
    style.table(out, &columns(&head, &rows));
    if !more.is_empty() {
        let free = more.iter().fold(0, |sum: u64, arena| sum.saturating_add(arena.free));
        out.push_str(&format!("    … and {} more, {} free\n", more.len(), size(free)));
    }
}
