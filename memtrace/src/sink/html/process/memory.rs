//! What a process holds: a bar, and its figures.

use super::Placed;
use crate::{
    model::report::{Memory, ProcessReport},
    sink::{
        html::{
            escape,
            table::{Cell, Line, lines},
        },
        known, size,
        words::memory_title,
    },
};

/// Adds what is resident as a bar of its classes, drawn without a script.
pub(super) fn bar(page: &mut String, process: &ProcessReport) {
    let Memory { resident, live, freed_not_reclaimed: freed, .. } = &process.memory;
    let Some(resident) = resident.filter(|bytes| *bytes > 0) else { return };
    // While one class is not known, the others are no parts of a whole.
    let classes = [
        ("live", "live", *live),
        ("free", "free in allocators", freed.allocator),
        ("lazy", "lazy free", freed.lazy_free),
    ];
    let told: u64 = classes.iter().filter_map(|(.., bytes)| *bytes).fold(0, u64::saturating_add);
    let rest = resident.saturating_sub(told);
    let parts = classes.into_iter().chain([("other", "not told apart", Some(rest))]);
    let parts: Vec<(&str, &str, u64)> = parts
        .filter_map(|(class, name, bytes)| Some((class, name, bytes.filter(|&b| b > 0)?)))
        .collect();
    let whole = parts.iter().map(|&(_, _, bytes)| bytes).fold(0, u64::saturating_add) as f64;
    let words: Vec<String> =
        parts.iter().map(|(_, name, bytes)| format!("{name} {}", size(*bytes))).collect();
    page.push_str(&format!(
        "<figure class=\"bar\"><svg role=\"img\" aria-label=\"resident: {}\" width=\"100%\" height=\"28\">",
        words.join(", ")
    ));
    let mut x = 0.0;
    for (class, _, bytes) in &parts {
        let width = *bytes as f64 / whole * 100.0;
        page.push_str(&format!(
            "<rect class=\"c-{class}\" x=\"{x:.3}%\" width=\"{width:.3}%\" height=\"28\"/>"
        ));
        x += width;
    }
    page.push_str("</svg><figcaption>resident: ");
    for (class, name, bytes) in &parts {
        page.push_str(&format!(
            "<span class=\"key\"><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><rect \
             class=\"c-{class}\" width=\"14\" height=\"14\"/></svg>{name} {}</span> ",
            size(*bytes)
        ));
    }
    page.push_str("</figcaption></figure>\n");
}

/// Adds the figures.
pub(super) fn table(page: &mut String, process: &ProcessReport, placed: &Placed<'_>) {
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
    let line = |name, field: &str, bytes: Option<u64>, note: &str| Line {
        name,
        pointer: placed.at(&format!("memory/{field}")),
        cell: Cell::Size(bytes),
        note: note.to_owned(),
    };
    let kinds = format!(
        "anon {}, file {}, shmem {}",
        known(kinds.anon),
        known(kinds.file),
        known(kinds.shmem)
    );
    let mut all = vec![
        line("mapped", "mapped", *mapped, "size of all its regions"),
        line("resident", "resident", *resident, &kinds),
        line("live", "live", *live, "resident and not known to be free"),
        line(
            "freed, not reclaimed",
            "freed_not_reclaimed/total",
            freed.total,
            "given up by the program, frames still taken",
        ),
        line(
            "… by allocators",
            "freed_not_reclaimed/allocator",
            freed.allocator,
            "free, and kept by the allocator",
        ),
        line(
            "… lazy free",
            "freed_not_reclaimed/lazy_free",
            freed.lazy_free,
            "MADV_FREEd, and not yet taken",
        ),
        line("reserved", "reserved", *reserved, "mapped without a frame"),
        line("swapped", "swapped", *swapped, "in swap"),
    ];
    if cold.is_some() {
        all.push(line(
            "cold",
            "cold",
            *cold,
            "resident and not touched meanwhile: not known to be free",
        ));
    }
    let title = memory_title(process);
    let title = format!("{}{}", title[..1].to_uppercase(), &title[1..]);
    page.push_str(&format!("<section><h3>{}</h3>\n", escape::sentence(&title)));
    lines(page, "What it holds", &all);
    page.push_str("</section>\n");
}
