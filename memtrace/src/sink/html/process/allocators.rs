//! What allocators hold, and their arenas.

use super::Placed;
use crate::{
    model::report::{AllocatorReport, ArenaReport, ProcessReport},
    sink::{
        html::{
            escape,
            table::{Cell, Column, table},
        },
        size,
        words::{allocator_name, stays, total},
    },
};

/// Adds the tables.
pub(super) fn render(page: &mut String, process: &ProcessReport, placed: &Placed<'_>) {
    let allocators = &process.allocators;
    if allocators.is_empty() {
        return;
    }
    page.push_str("<section><h3>What allocators hold</h3>\n");
    type Row<'a> = &'a AllocatorReport;
    let free = |a: &Row<'_>| {
        let free = total(a.free.values().copied());
        let at_least = if a.evidence == "lower_bound" { "≥ " } else { "" };
        Cell::Sum(format!("{at_least}{}", size(free)), free)
    };
    let columns: Vec<Column<'_, Row<'_>>> = vec![
        Column::words("allocator", |a: &Row<'_>| Cell::Html(escape::sentence(&allocator_name(a)))),
        Column::words("evidence", |a: &Row<'_>| Cell::Text(a.evidence.replace('_', " "))),
        Column::figure("from kernel", "system", |a: &Row<'_>| Cell::Size(Some(a.system))),
        Column::figure("in use", "in_use", |a: &Row<'_>| Cell::Size(Some(a.in_use))),
        Column::sum("free", free),
        Column::figure("free and resident", "free_resident", |a: &Row<'_>| {
            Cell::Size(a.free_resident)
        }),
        Column::figure("trimmable", "trimmable", |a: &Row<'_>| Cell::Size(a.trimmable)),
        Column::figure("unknown", "unknown", |a: &Row<'_>| Cell::Size(Some(a.unknown))),
    ];
    let at = |index: usize| placed.at(&format!("allocators/{index}"));
    let rows = allocators.iter().enumerate().map(|(index, a)| (at(index), a));
    table(page, "Allocators", "allocators", &columns, rows);
    for (index, allocator) in allocators.iter().enumerate() {
        details(page, allocator, &at(index));
    }
    page.push_str("</section>\n");
}

fn details(page: &mut String, allocator: &AllocatorReport, pointer: &str) {
    let name = escape::sentence(&allocator_name(allocator));
    if !allocator.free.is_empty() {
        type Class = (&'static str, u64);
        let columns: Vec<Column<'_, Class>> = vec![
            Column::words("class", |(class, _): &Class| Cell::Text(class.replace('_', " "))),
            Column::figure("free", ".", |(_, bytes): &Class| Cell::Size(Some(*bytes))),
        ];
        let rows = allocator.free.iter();
        let rows = rows.map(|(class, bytes)| (format!("{pointer}/free/{class}"), (*class, *bytes)));
        table(page, &format!("{name}: free by its own classes"), "free", &columns, rows);
    }
    let mut notes = vec![];
    if let Some(late) = allocator.trimmable_late.filter(|late| *late > 0) {
        notes.push(format!(
            "{} of what a trim gives are parts of huge pages: the kernel gets them when it needs \
             memory and splits those",
            size(late)
        ));
    }
    let stays = allocator.remains.map(stays).filter(|stays| !stays.is_empty());
    notes.extend(stays.map(|stays| format!("stays after a trim: {stays}")));
    let settings: Vec<String> =
        allocator.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    if !settings.is_empty() {
        notes.push(format!("it is set to {}", settings.join(", ")));
    }
    if !notes.is_empty() {
        page.push_str("<ul class=\"also\">");
        for note in notes {
            page.push_str(&format!("<li>{name}: {}</li>", escape::sentence(&note)));
        }
        page.push_str("</ul>\n");
    }
    if allocator.arenas.len() > 1 {
        type Arena<'a> = &'a ArenaReport;
        let columns: Vec<Column<'_, Arena<'_>>> = vec![
            Column::words("arena", |a: &Arena<'_>| Cell::Code(a.address.clone())),
            Column::figure("from kernel", "system", |a: &Arena<'_>| Cell::Size(Some(a.system))),
            Column::figure("free", "free", |a: &Arena<'_>| Cell::Size(Some(a.free))),
            Column::figure("free and resident", "free_resident", |a: &Arena<'_>| {
                Cell::Size(a.free_resident)
            }),
            Column::figure("trimmable", "trimmable", |a: &Arena<'_>| Cell::Size(a.trimmable)),
            Column::figure("threads", "threads", |a: &Arena<'_>| Cell::Count(a.threads)),
        ];
        let rows = allocator.arenas.iter().enumerate();
        let rows = rows.map(|(index, arena)| (format!("{pointer}/arenas/{index}"), arena));
        table(page, &format!("{name}: arenas"), "arenas", &columns, rows);
    }
}
