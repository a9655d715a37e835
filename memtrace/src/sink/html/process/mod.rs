//! One process: the answer, what to do about it, pictures, then every figure.

mod allocators;
mod left;
mod memory;

use super::{
    escape,
    table::{Cell, Column, Line, lines, table},
};
use crate::{
    model::{
        history::Lifeline,
        report::{Balance, Evidence, Finding, ProcessReport, RegionReport, Report},
    },
    sink::{
        known, size,
        words::{
            asked_for, faults, given_back, late, madv_free, notes, reuses, sentence, swap, total,
            was_traced,
        },
    },
};

/// Regions that are listed, the largest of them. The JSON report has all.
const REGIONS: usize = 2000;
/// The same where there are many processes.
const REGIONS_OF_MANY: usize = 100;

/// Where a process stands, and what is known around it.
pub(super) struct Placed<'a> {
    pub(super) report: &'a Report,
    /// Its place in [`Report::processes`].
    pub(super) index: usize,
    pub(super) lifeline: Option<&'a Lifeline>,
    /// What processes did over time was written down at all.
    pub(super) has_history: bool,
}

impl Placed<'_> {
    fn evidence(&self) -> Option<Evidence> {
        let window = &self.report.window;
        was_traced(window).then_some(window.evidence)
    }

    /// Returns where a part of it stands in the JSON report.
    fn at(&self, part: &str) -> String {
        format!("/processes/{}/{part}", self.index)
    }
}

/// Adds all about one process.
pub(super) fn render(page: &mut String, process: &ProcessReport, placed: &Placed<'_>) {
    let lead = sentence(process, placed.evidence());
    page.push_str(&format!("<p class=\"lead\">{}.</p>\n", escape::sentence(&lead)));
    for note in notes(process) {
        page.push_str(&format!("<p class=\"remark\">{}</p>\n", escape::sentence(&note)));
    }
    findings(page, process);
    if let Some(exe) = &process.exe {
        page.push_str(&format!("<p class=\"exe\"><code>{}</code></p>\n", escape::text(exe)));
    }
    tiles(page, process, placed);
    memory::bar(page, process);
    over_time(page, placed);
    memory::table(page, process, placed);
    left::render(page, process, placed);
    allocators::render(page, process, placed);
    regions(page, process, placed);
    sums(page, process, placed);
}

fn findings(page: &mut String, process: &ProcessReport) {
    for Finding { id, bytes, summary, evidence, advice } in &process.findings {
        let [summary, evidence, advice] =
            [summary, evidence, advice].map(|words| escape::sentence(words));
        page.push_str(&format!(
            "<section class=\"finding\"><h3><code>{id}</code> <span>{}</span></h3><p>{summary}</p>\
             <dl><dt>Evidence</dt><dd>{evidence}</dd><dt>Try</dt><dd>{advice}</dd></dl></section>\n",
            size(*bytes)
        ));
    }
}

fn tiles(page: &mut String, process: &ProcessReport, placed: &Placed<'_>) {
    let memory = &process.memory;
    let trimmable: Vec<u64> = process.allocators.iter().filter_map(|a| a.trimmable).collect();
    let mut tiles = vec![("resident", memory.resident), ("live", memory.live)];
    tiles.push(("freed, not reclaimed", memory.freed_not_reclaimed.total));
    if !trimmable.is_empty() {
        tiles.push(("trimmable", Some(total(trimmable.into_iter()))));
    }
    if placed.evidence() == Some(Evidence::Frames) {
        let paths = process.reclaimed.by_path.values();
        let kept: Option<Vec<u64>> = paths.map(|path| path.kept_elsewhere).collect();
        let back = match process.state {
            "exited" => "given back before exit",
            _ => "given back",
        };
        tiles.push((back, given_back(process)));
        tiles.push(("kept elsewhere", kept.map(|kept| total(kept.into_iter()))));
    }
    page.push_str("<dl class=\"tiles\">");
    for (name, bytes) in tiles {
        page.push_str(&format!("<div><dt>{name}</dt><dd>{}</dd></div>", known(bytes)));
    }
    page.push_str("</dl>\n");
}

/// Adds the place for the pictures of time, or why there are none.
fn over_time(page: &mut String, placed: &Placed<'_>) {
    page.push_str("<section class=\"time\"><h3>Over time</h3>\n");
    let lifeline = placed.lifeline;
    let is_empty = lifeline.is_none_or(|it| it.left.is_empty() && it.resident.is_empty());
    if is_empty {
        let why = if !placed.has_history {
            "There is no picture of time: this is one look. <code>memtrace attach</code> and \
             <code>memtrace run</code> follow a process."
        } else if placed.evidence() == Some(Evidence::Args) {
            "There is no picture of time: <code>--evidence args</code> does not count what leaves."
        } else {
            "There is no picture of time: nothing left it in calls, and nobody asked meanwhile what was there."
        };
        page.push_str(&format!("<p class=\"note\">{why}</p></section>\n"));
        return;
    }
    page.push_str(&format!(
        "<div class=\"picture\" data-draw=\"time\" data-process=\"{}\"><p class=\"note\">The picture \
         needs JavaScript. The figures are in the tables.</p></div>\n",
        placed.index
    ));
    let note = match lifeline {
        Some(it) if it.resident.is_empty() => "What was resident meanwhile was not written down.",
        Some(it) if it.classes.is_empty() => {
            "What of it was live and what was free is not known meanwhile: <code>--walk 500ms</code> asks."
        }
        Some(_) | None => "",
    };
    if !note.is_empty() {
        page.push_str(&format!("<p class=\"note\">{note}</p>\n"));
    }
    page.push_str("</section>\n");
}

fn regions(page: &mut String, process: &ProcessReport, placed: &Placed<'_>) {
    let regions = &process.regions;
    page.push_str("<section class=\"regions\"><h3>Regions</h3>\n");
    if regions.is_empty() {
        page.push_str("<p class=\"note\">Its regions are not known.</p></section>\n");
        return;
    }
    page.push_str(&format!(
        "<div class=\"picture\" data-draw=\"map\" data-process=\"{}\"><p class=\"note\">The picture \
         needs JavaScript. The figures are in the table.</p></div>\n",
        placed.index
    ));
    let most = if placed.report.processes.len() > super::OPEN { REGIONS_OF_MANY } else { REGIONS };
    let listed = &regions[..regions.len().min(most)];
    type Region<'a> = &'a RegionReport;
    let mut columns: Vec<Column<'_, Region<'_>>> = vec![
        Column::words("start", |r: &Region<'_>| Cell::Code(r.start.clone())),
        Column::figure("mapped", "mapped", |r: &Region<'_>| Cell::Size(Some(r.mapped))),
        Column::figure("resident", "resident", |r: &Region<'_>| Cell::Size(r.resident)),
        Column::figure("live", "live", |r: &Region<'_>| Cell::Size(r.live)),
    ];
    type Figure = fn(&RegionReport) -> Option<u64>;
    let further: [(&str, &str, Figure); 3] = [
        ("free", "free_resident", |r| r.free_resident),
        ("lazy free", "lazy_free", |r| r.lazy_free),
        ("cold", "cold", |r| r.cold),
    ];
    for (title, field, figure) in further {
        // A figure that is known of none of them gets no column.
        if regions.iter().any(|region| figure(region).is_some()) {
            columns.push(Column::figure(title, field, move |r: &Region<'_>| Cell::Size(figure(r))));
        }
    }
    columns.push(Column::words("prot", |r: &Region<'_>| Cell::Code(r.prot.clone())));
    columns.push(Column::words("kind", |r: &Region<'_>| Cell::Text(r.kind.to_owned())));
    columns.push(Column::words("name", |r: &Region<'_>| {
        Cell::Text(r.name.clone().unwrap_or_default())
    }));
    let rows =
        listed.iter().enumerate().map(|(at, region)| (placed.at(&format!("regions/{at}")), region));
    table(page, "Regions", "map-table", &columns, rows);
    if let Some(more) = regions.get(listed.len()..).filter(|more| !more.is_empty()) {
        let mapped = size(total(more.iter().map(|region| region.mapped)));
        page.push_str(&format!(
            "<p class=\"note\">… and {} more, {mapped}: the picture and the JSON report have them.</p>\n",
            more.len()
        ));
    }
    page.push_str("</section>\n");
}

/// Adds the balance, and what else was counted.
fn sums(page: &mut String, process: &ProcessReport, placed: &Placed<'_>) {
    let Some(evidence) = placed.evidence() else { return };
    page.push_str("<section><h3>Balance</h3>\n");
    if evidence >= Evidence::Rss {
        let Balance { r#in, out, resident, unexplained } = process.balance;
        let line = |name, field: &str, figure, note: &str| Line {
            name,
            pointer: placed.at(&format!("balance/{field}")),
            cell: Cell::Signed(figure),
            note: note.to_owned(),
        };
        let all = [
            line("in", "in", r#in, "resident when tracing began, and faulted in since"),
            line("= resident", "resident", resident, "at the end; 0 after the teardown"),
            line("+ out", "out", out, "detached, by any path"),
            line("+ unexplained", "unexplained", unexplained, "0 when the books are right"),
        ];
        lines(page, "In = resident + out + unexplained", &all);
    } else {
        page.push_str(
            "<p class=\"note\"><code>--evidence args</code> keeps no books of frames.</p>\n",
        );
    }
    let also = [
        ("asked for", Some(asked_for(process))),
        ("late", late(process)),
        ("faults", Some(faults(&process.faults))),
        ("MADV_FREE", madv_free(process)),
        ("remanence", process.remanence.as_ref().map(reuses)),
        ("swap", swap(process)),
    ];
    page.push_str("<ul class=\"also\">");
    for (name, text) in also {
        if let Some(text) = text {
            page.push_str(&format!("<li>{}</li>", escape::sentence(&format!("{name}: {text}"))));
        }
    }
    page.push_str("</ul></section>\n");
}
