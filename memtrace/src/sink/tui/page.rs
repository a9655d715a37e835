//! A process that is looked at closely.

use ratatui::{
    style::Modifier,
    text::{Line, Span},
};

use super::{
    chart::{Chart, time},
    paint::{Paint, fit, left, right, width},
    view::{Page, Tab, View},
};
use crate::{
    model::{
        report::{Finding, ProcessReport, RegionReport},
        top::Counting,
    },
    sink::{
        known, printable, size,
        text::{self, Style},
        words,
    },
};

/// Lines of the chart with its scale and legend.
const CHART: usize = 10;
/// Regions of the overview.
const REGIONS: usize = 12;

/// Returns the lines of a page, as many as fit.
pub(super) fn lines(view: &View, page: &Page, columns: u16, height: u16) -> Vec<Line<'static>> {
    let paint = Paint { color: view.color };
    let mut lines = head(view, page, usize::from(columns), paint);
    let room = usize::from(height).saturating_sub(lines.len());
    let content = content(view, page, usize::from(columns), paint);
    let first = page.scroll.min(content.len().saturating_sub(room));
    let below = content.len().saturating_sub(first + room);
    lines.extend(content.into_iter().skip(first).take(room));
    if below > 0
        && let Some(last) = lines.last_mut()
    {
        *last =
            Line::from(paint.dim(fit(&format!("  ↓ {} more lines", below + 1), columns.into())));
    }
    lines
}

/// Returns how far a page can be scrolled.
pub(super) fn last_scroll(view: &View, page: &Page, (columns, height): (u16, u16)) -> usize {
    let (columns, height) = (usize::from(columns), usize::from(height));
    let paint = Paint { color: view.color };
    let room = height.saturating_sub(1).saturating_sub(head(view, page, columns, paint).len());
    content(view, page, columns, paint).len().saturating_sub(room)
}

fn head(view: &View, page: &Page, columns: usize, paint: Paint) -> Vec<Line<'static>> {
    let process = &page.process;
    let mut lines = Vec::new();
    let sentence = match process.report() {
        Some(report) => words::sentence(report, None),
        None => format!(
            "{} (pid {}): {} are resident now",
            printable(&process.comm),
            process.id.tgid,
            known(process.resident)
        ),
    };
    lines.extend(text::wrap(&sentence, columns, 4).into_iter().map(|l| Line::from(paint.bold(l))));
    let mut status = Vec::new();
    if view.paused {
        status.push(Span::styled(" paused ", Modifier::REVERSED));
    }
    let walked = match &process.looked {
        Some(looked) if looked.report.is_none() => "not walked".to_owned(),
        Some(looked) => {
            let age_ns = view.snapshot.time_ns.saturating_sub(looked.at_ns);
            let when = match age_ns {
                0..1_000_000_000 => "just now".to_owned(),
                _ => format!("{} ago", time(age_ns)),
            };
            format!("walked {when} in {}", time(looked.cost_ns))
        }
        None if view.paused => "not walked yet; Space goes on".to_owned(),
        None => "not walked yet".to_owned(),
    };
    let rates = format!(
        "  RSS {}; {} reclaimed/s; {} faults/s; {walked}",
        known(process.resident),
        known(process.reclaimed_per_s),
        crate::sink::known_number(process.faults_per_s),
    );
    let rates =
        if page.gone { "  it ended: this is what was known last".to_owned() } else { rates };
    status.push(paint.dim(fit(&rates, columns.saturating_sub(if view.paused { 8 } else { 0 }))));
    lines.push(Line::from(status));
    lines.push(tabs(page));
    lines
}

fn tabs(page: &Page) -> Line<'static> {
    let mut spans = vec![Span::raw(" ")];
    for (number, tab) in (1..).zip(Tab::ALL) {
        let style = if tab == page.tab { Modifier::REVERSED } else { Modifier::DIM };
        spans.push(Span::styled(format!(" {number} {} ", tab.title()), style));
    }
    Line::from(spans)
}

fn content(view: &View, page: &Page, columns: usize, paint: Paint) -> Vec<Line<'static>> {
    let Some(report) = page.process.report() else {
        let why = page.process.looked.as_ref().and_then(|looked| looked.why_not.as_ref());
        let why = why.map_or_else(String::new, |why| format!("  {}", printable(why)));
        let mut lines: Vec<Line<'static>> = wrapped(&why, columns, 4, paint);
        if page.tab == Tab::LeftBy || page.tab == Tab::Overview {
            lines.extend(left_by(view, page, columns, paint));
        }
        return lines;
    };
    match page.tab {
        Tab::Overview => overview(view, page, report, columns, paint),
        Tab::Regions => regions(&report.regions, columns, paint),
        Tab::LeftBy => left_by(view, page, columns, paint),
        Tab::Allocators => allocators(report, columns, paint),
        Tab::Findings => findings(report, columns, paint),
    }
}

fn overview(
    view: &View,
    page: &Page,
    report: &ProcessReport,
    columns: usize,
    paint: Paint,
) -> Vec<Line<'static>> {
    let history = page.process.looked.as_ref().map(|looked| &looked.history[..]);
    let chart = Chart {
        points: history.unwrap_or_default(),
        end_ns: view.snapshot.time_ns,
        interval_ns: view.snapshot.interval_ns,
    };
    let mut lines = chart.lines(columns, CHART, paint);
    if !report.findings.is_empty() {
        lines.push(Line::default());
        lines.extend(findings(report, columns, paint));
    }
    lines.push(Line::default());
    lines.extend(table(columns, paint, |out, style| text::memory(out, report, style)));
    lines.push(Line::default());
    lines.extend(allocators(report, columns, paint));
    lines.push(Line::default());
    lines.extend(left_by(view, page, columns, paint));
    lines.push(Line::default());
    let listed = &report.regions[..report.regions.len().min(REGIONS)];
    lines.extend(regions(listed, columns, paint));
    lines
}

fn findings(report: &ProcessReport, columns: usize, paint: Paint) -> Vec<Line<'static>> {
    if report.findings.is_empty() {
        return vec![Line::raw("  nothing is worth a word")];
    }
    let mut lines = Vec::new();
    for Finding { id, bytes, summary, evidence, advice } in &report.findings {
        let finding = format!("  {id}: {} – {summary} ({evidence})", size(*bytes));
        lines.extend(wrapped(&finding, columns, 4, paint));
        let advice = text::wrap(&format!("    try: {advice}"), columns, 9);
        lines.extend(advice.into_iter().map(Line::raw));
    }
    lines
}

fn allocators(report: &ProcessReport, columns: usize, paint: Paint) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for note in words::notes(report) {
        lines.extend(wrapped(&format!("  {note}"), columns, 4, paint));
    }
    lines.extend(table(columns, paint, |out, style| text::allocators(out, report, style)));
    if lines.is_empty() {
        lines.push(Line::raw("  no allocator was found that can be walked"));
    }
    lines
}

fn left_by(view: &View, page: &Page, columns: usize, paint: Paint) -> Vec<Line<'static>> {
    let note = |text: &str| wrapped(&format!("  {text}"), columns, 4, paint);
    match (&page.process.left, &view.snapshot.counting) {
        (Some(row), _) if row.by_path.is_empty() => {
            vec![Line::raw("  nothing left it since counting began")]
        }
        (Some(row), _) => table(columns, paint, |out, style| text::left_by(out, row, style)),
        (None, Counting::Starting) => note("what leaves it: the probes are being attached …"),
        (None, Counting::On { .. }) => note("nothing was counted of it yet"),
        (None, Counting::Off(why)) => {
            note(&format!("what leaves it is not counted: {}", printable(why)))
        }
    }
}

/// Returns a table of the text report, its head dimmed.
fn table(
    columns: usize,
    paint: Paint,
    render: impl FnOnce(&mut String, Style),
) -> Vec<Line<'static>> {
    let mut out = String::new();
    render(&mut out, Style { color: false, width: columns });
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (index, line) in out.trim_end().lines().enumerate() {
        let line = line.to_owned();
        lines.push(if index == 0 { Line::from(paint.dim(line)) } else { Line::raw(line) });
    }
    lines
}

fn wrapped(text: &str, columns: usize, indent: usize, paint: Paint) -> Vec<Line<'static>> {
    text::wrap(text, columns, indent).into_iter().map(|l| Line::from(paint.note(l))).collect()
}

/// Returns the regions, each with a strip of what it is made of.
fn regions(listed: &[RegionReport], columns: usize, paint: Paint) -> Vec<Line<'static>> {
    /// Columns of all but the strip and the name.
    const FIGURES: usize = 2 + 14 + 2 + 2 + 10 + 2 + 10 + 2 + 10 + 2;
    let spare = columns.saturating_sub(FIGURES);
    let strip = (spare / 3).clamp(10, 60);
    let room = spare.saturating_sub(strip).max(6);
    let title = left("region", 14);
    let [mapped, resident, free] = ["mapped", "resident", "free"].map(|title| right(title, 10));
    let gap = left("", strip);
    let mut lines = vec![Line::from(
        paint.dim(format!("  {title}  {gap}  {mapped}  {resident}  {free}  name")),
    )];
    for region in listed {
        let mut spans = vec![Span::raw(format!("  {}  ", left(&region.start, 14)))];
        spans.extend(paint.strip(text::parts(region), region.mapped, strip));
        let [mapped, resident, free] = [Some(region.mapped), region.resident, region.free_resident]
            .map(|bytes| right(&known(bytes), 10));
        let name = region.name.as_deref().unwrap_or(region.kind);
        let name = name_in(&printable(name), room);
        spans.push(Span::raw(format!("  {mapped}  {resident}  {free}  {name}")));
        lines.push(Line::from(spans));
    }
    lines.push(paint.legend(&[0, 1, 2, 3, 4]));
    lines
}

/// Returns the end of a name, which says most.
fn name_in(name: &str, room: usize) -> String {
    let mut cut = name.to_owned();
    let mut columns = room;
    while width(&cut) > room && columns > 0 {
        cut = text::end_of(name, columns);
        columns -= 1;
    }
    cut
}
