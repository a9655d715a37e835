//! What left a process: by path, by kind of region, and why frames stayed.

use memtrace_common::Path;

use super::Placed;
use crate::{
    model::{
        change::path_name,
        report::{KeptByReason, KindReport, PathReport, ProcessReport},
    },
    sink::{
        html::table::{Cell, Column, table},
        words::{label, path},
    },
};

/// Adds the tables.
pub(super) fn render(page: &mut String, process: &ProcessReport, placed: &Placed<'_>) {
    let taken: Vec<(Path, &PathReport)> =
        Path::ALL.into_iter().filter_map(|p| Some((p, path(process, p)?))).collect();
    if placed.evidence().is_none() {
        return;
    }
    page.push_str("<section><h3>What left it</h3>\n");
    if taken.is_empty() {
        page.push_str("<p class=\"note\">Nothing did.</p></section>\n");
        return;
    }
    let pointer = |p: Path| placed.at(&format!("reclaimed/by_path/{}", path_name(p)));
    type Row<'a> = (Path, &'a PathReport);
    let columns: Vec<Column<'_, Row<'_>>> = vec![
        Column::words("left by", |(p, _): &Row<'_>| Cell::Text(label(*p).to_owned())),
        Column::figure("calls", "calls", |(_, r): &Row<'_>| Cell::Count(Some(r.calls))),
        Column::figure("requested", "requested", |(_, r): &Row<'_>| Cell::Size(r.requested)),
        Column::figure("zapped", "zapped", |(_, r): &Row<'_>| Cell::Size(r.zapped)),
        Column::figure("freed", "freed", |(_, r): &Row<'_>| Cell::Size(r.freed)),
        Column::figure("late", "late", |(_, r): &Row<'_>| Cell::Size(r.late)),
        Column::figure("kept elsewhere", "kept_elsewhere", |(_, r): &Row<'_>| {
            Cell::Size(r.kept_elsewhere)
        }),
    ];
    let rows = taken.iter().map(|&(p, report)| (pointer(p), (p, report)));
    table(page, "By path", "left", &columns, rows);
    page.push_str(
        "<p class=\"note\">requested: the range that the call named; zapped: resident bytes detached \
         from the process; freed: what the page allocator got back, late: of it, after the call; kept \
         elsewhere: zapped and not freed.</p>\n",
    );
    kept(page, &taken, &pointer);
    let by_kind = &process.reclaimed.by_kind;
    if !by_kind.is_empty() {
        type Kind<'a> = (&'static str, &'a KindReport);
        let columns: Vec<Column<'_, Kind<'_>>> = vec![
            Column::words("kind of region", |(kind, _): &Kind<'_>| Cell::Text((*kind).to_owned())),
            Column::figure("calls", "calls", |(_, r): &Kind<'_>| Cell::Count(Some(r.calls))),
            Column::figure("zapped", "zapped", |(_, r): &Kind<'_>| Cell::Size(Some(r.zapped))),
            Column::figure("freed in the call", "freed", |(_, r): &Kind<'_>| Cell::Size(r.freed)),
        ];
        let rows = by_kind.iter().map(|(kind, report)| {
            (placed.at(&format!("reclaimed/by_kind/{kind}")), (*kind, report))
        });
        table(page, "By kind of region, in calls", "left", &columns, rows);
    }
    page.push_str("</section>\n");
}

/// Adds why frames stayed, by path.
fn kept(page: &mut String, taken: &[(Path, &PathReport)], pointer: &dyn Fn(Path) -> String) {
    type Row = (Path, KeptByReason);
    type Reason = fn(&KeptByReason) -> u64;
    let rows: Vec<Row> =
        taken.iter().filter_map(|(p, report)| Some((*p, report.kept_by_reason?))).collect();
    let reasons: [(&str, &str, Reason); 7] = [
        ("page cache", "page_cache", |kept| kept.page_cache),
        ("tmpfs", "shmem", |kept| kept.shmem),
        ("shared since a fork", "shared", |kept| kept.shared),
        ("huge page", "huge_page", |kept| kept.huge_page),
        ("pinned", "pinned", |kept| kept.pinned),
        ("swap", "swap", |kept| kept.swap),
        ("not known", "unknown", |kept| kept.unknown),
    ];
    let is_any = |kept: &KeptByReason| reasons.iter().any(|(.., reason)| reason(kept) > 0);
    if !rows.iter().any(|(_, kept)| is_any(kept)) {
        return;
    }
    let mut columns: Vec<Column<'_, Row>> =
        vec![Column::words("left by", |(p, _): &Row| Cell::Text(label(*p).to_owned()))];
    for (title, field, reason) in reasons {
        if rows.iter().any(|(_, kept)| reason(kept) > 0) {
            columns.push(Column::figure(title, field, move |(_, kept)| {
                Cell::Size(Some(reason(kept)))
            }));
        }
    }
    let rows = rows
        .into_iter()
        .filter(|(_, kept)| is_any(kept))
        .map(|row| (format!("{}/kept_by_reason", pointer(row.0)), row));
    table(page, "Kept elsewhere, by reason", "left", &columns, rows);
}
