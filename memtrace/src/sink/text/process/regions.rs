//! The regions of a process: figures, and a strip that shows what each is made of.

use crate::{
    model::report::{ProcessReport, RegionReport},
    sink::{
        known, printable, size,
        strip::{self, PARTS},
        text::{
            Style,
            layout::{
                Align::{Left, Right},
                Ink, columns, end_of,
            },
        },
        words::{Figure, total},
    },
};

/// Regions that are listed one by one.
const REGIONS: usize = 12;
/// Characters of a strip.
const STRIP: u64 = 10;
/// How each of [`PARTS`] stands out.
const INKS: [Option<Ink>; PARTS.len()] =
    [None, Some(Ink::Yellow), Some(Ink::Red), Some(Ink::Dim), Some(Ink::Dim)];

/// Adds the largest regions of a process to `out`.
pub(super) fn regions(out: &mut String, process: &ProcessReport, style: Style) {
    let regions = &process.regions;
    if regions.is_empty() {
        return;
    }
    if !out.ends_with("\n\n") {
        out.push('\n');
    }
    let (listed, more) = regions.split_at(regions.len().min(REGIONS));
    region_table(out, "largest regions", listed, style);
    if !more.is_empty() {
        let mapped = total(more.iter().map(|region| region.mapped));
        out.push_str(&format!("  … and {} more, {}\n", more.len(), size(mapped)));
    }
}

/// Adds a table of regions in the order given.
pub(in crate::sink::text) fn region_table(
    out: &mut String,
    title: &str,
    listed: &[RegionReport],
    style: Style,
) {
    // A figure that is known of none of them gets no column.
    let mut figures: Vec<(&str, Figure<RegionReport>)> = vec![
        ("resident", |region| region.resident),
        ("live", |region| region.live),
        ("free", |region| region.free_resident),
        ("lazy free", |region| region.lazy_free),
        ("cold", |region| region.cold),
    ];
    figures.retain(|(title, figure)| {
        *title == "resident" || listed.iter().any(|r| figure(r).is_some())
    });
    // Where allocators were walked, a picture says more than a column of zeros.
    let has_strip = listed.iter().any(|region| region.free_resident.is_some());
    if has_strip {
        figures.retain(|(title, figure)| {
            *title != "lazy free" || listed.iter().any(|r| figure(r).is_some_and(|b| b > 0))
        });
    }

    let mut head = vec![(title, Left)];
    if has_strip {
        head.push(("", Left));
    }
    head.push(("mapped", Right));
    head.extend(figures.iter().map(|(title, _)| (*title, Right)));
    head.extend([("prot", Left), ("kind", Left), ("name", Left)]);
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|region| {
            let mut row = vec![format!("  {}", region.start)];
            if has_strip {
                row.push(strip(region));
            }
            row.push(size(region.mapped));
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
        if let Some(name) = &region.name {
            let name = printable(name);
            let name = if style.width == 0 { name } else { end_of(&name, room) };
            *line = format!("{line:<name_column$}{name}");
        }
        // Comes after all that counts characters.
        if has_strip && style.color {
            let plain = strip(region);
            *line = line.replacen(&plain, &painted(&plain, style), 1);
        }
    }
    style.table(out, &lines);
    if has_strip {
        let is_swapped = listed.iter().any(|region| region.swapped.is_some_and(|b| b > 0));
        let parts = PARTS.iter().filter(|(_, what)| *what != "swapped" || is_swapped);
        let legend: Vec<String> = parts.map(|(glyph, what)| format!("{glyph} {what}")).collect();
        out.push_str(&style.paint(Ink::Dim, &format!("    {}", legend.join("  "))));
        out.push('\n');
    }
}

/// Returns what a region is made of, as a strip.
fn strip(region: &RegionReport) -> String {
    let lengths = strip::lengths(parts(region), region.mapped, STRIP);
    (0..).zip(lengths).map(|(part, length)| strip::run(part, length)).collect()
}

/// Returns the bytes of a region that its strip shows.
pub(in crate::sink) fn parts(region: &RegionReport) -> [u64; 4] {
    [region.live, region.free_resident, region.lazy_free, region.swapped]
        .map(|part| part.unwrap_or(0))
}

/// Returns a strip in its colours.
fn painted(strip: &str, style: Style) -> String {
    PARTS
        .iter()
        .zip(INKS)
        .map(|((glyph, _), ink)| {
            let part: String = strip.chars().filter(|c| c == glyph).collect();
            match ink {
                Some(ink) if !part.is_empty() => style.paint(ink, &part),
                _ => part,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(mapped: u64, live: u64, free: u64, lazy_free: u64) -> RegionReport {
        RegionReport {
            mapped,
            live: Some(live),
            free_resident: Some(free),
            lazy_free: Some(lazy_free),
            ..RegionReport::default()
        }
    }

    #[test]
    fn a_strip_shows_the_parts_of_a_region_and_is_always_as_long() {
        assert_eq!(strip(&region(100, 50, 30, 10)), "█████▓▓▓▒·");
        assert_eq!(strip(&region(100, 100, 0, 0)), "██████████");
        assert_eq!(strip(&region(100, 0, 0, 0)), "··········");
        assert_eq!(strip(&region(0, 0, 0, 0)), "··········");
        assert_eq!(strip(&region(u64::MAX, u64::MAX, 1, 1)), "██████████");
    }

    #[test]
    fn a_part_that_is_there_is_seen_where_there_is_room() {
        assert_eq!(strip(&region(1 << 30, 4096, 4096, 0)), "█▓········");
        assert_eq!(strip(&region(1 << 30, 0, 0, 1)), "▒·········");
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let style = Style { color: true, width: 100 };
        let plain = strip(&region(100, 50, 30, 10));
        assert_eq!(
            painted(&plain, style),
            "█████\x1b[33m▓▓▓\x1b[0m\x1b[1;31m▒\x1b[0m\x1b[2m·\x1b[0m"
        );
    }
}
