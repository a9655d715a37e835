//! The list of processes.

use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{
    paint::{Paint, fit, left, right},
    view::{Sort, View},
};
use crate::{
    model::top::{Counting, Process},
    sink::{known, known_number, printable, size},
};

/// Returns the lines of the list, as many as fit.
pub(super) fn lines(view: &View, columns: u16, height: u16) -> Vec<Line<'static>> {
    let (columns, height) = (usize::from(columns), usize::from(height));
    let paint = Paint { color: view.color };
    let listed = view.listed();
    let mut lines = Vec::new();
    // Of little room, the processes take the most.
    if height > 4 {
        lines.push(summary(view, &listed, columns));
        lines.push(remark(view, columns, paint));
    }
    let table = Table::for_width(columns);
    lines.push(table.head(view.sort));
    if listed.is_empty() {
        let text = if view.filter.is_empty() {
            "  no process"
        } else {
            "  no process has this in its name, nor a PID that begins with it"
        };
        lines.push(Line::raw(fit(text, columns)));
        return lines;
    }
    let room = height.saturating_sub(lines.len());
    let selected = view.selected_index(&listed);
    let first = selected.saturating_sub(room / 2).min(listed.len().saturating_sub(room));
    for (index, process) in listed.iter().enumerate().skip(first).take(room) {
        let line = table.row(process, paint);
        lines.push(if index == selected {
            let gap = columns.saturating_sub(line.width());
            let mut line = line;
            line.push_span(" ".repeat(gap));
            line.patch_style(Style::from(Modifier::REVERSED))
        } else {
            line
        });
    }
    lines
}

fn summary(view: &View, listed: &[&Process], columns: usize) -> Line<'static> {
    let all = &view.snapshot.processes;
    let count = match (listed.len(), all.len()) {
        (shown, all) if shown != all => format!("{shown} of {all} processes"),
        (_, 1) => "1 process".to_owned(),
        (_, all) => format!("{all} processes"),
    };
    let sum = |figure: fn(&Process) -> Option<u64>| {
        let known = listed.iter().filter_map(|process| figure(process));
        known.fold(0, u64::saturating_add)
    };
    let walked = listed.iter().filter(|process| process.freed_not_reclaimed().is_some()).count();
    let text = format!(
        "  {count}, RSS {}; freed, not reclaimed {} ({walked} walked)",
        size(sum(|process| process.resident)),
        size(sum(Process::freed_not_reclaimed)),
    );
    let title = if view.paused { " paused " } else { "memtrace" };
    let style = if view.paused { Modifier::REVERSED } else { Modifier::BOLD };
    let text = fit(&text, columns.saturating_sub(8));
    Line::from(vec![Span::styled(title, style), Span::raw(text)])
}

/// Returns what to know to take the figures right.
fn remark(view: &View, columns: usize, paint: Paint) -> Line<'static> {
    if !view.filter.is_empty() && !view.typing {
        let text = format!("only /{}/ (Esc shows all)", printable(&view.filter));
        return Line::from(paint.note(fit(&text, columns)));
    }
    let text = match &view.snapshot.counting {
        Counting::Starting => "reclaimed/s: the probes are being attached …".to_owned(),
        Counting::Off(why) => format!("reclaimed/s is not counted: {}", printable(why)),
        Counting::On { untracked: 0, .. } => return Line::default(),
        Counting::On { untracked, .. } => {
            format!("incomplete: {untracked} address spaces are not counted, the table was full")
        }
    };
    Line::from(paint.note(fit(&text, columns)))
}

/// A column: its title, its width, and what is in it.
struct Column {
    title: &'static str,
    width: usize,
    sort: Option<Sort>,
    cell: Cell,
}

enum Cell {
    Name,
    Figure(fn(&Process) -> String),
    MadeOf,
}

const fn figure(
    title: &'static str,
    width: usize,
    sort: Option<Sort>,
    cell: fn(&Process) -> String,
) -> Column {
    Column { title, width, sort, cell: Cell::Figure(cell) }
}

/// The columns that fit.
struct Table {
    columns: Vec<Column>,
}

const GAP: usize = 2;
const NAME: usize = 8;
const USUAL_NAME: usize = 15;
const MOST_NAME: usize = 40;
const MADE_OF: usize = 7;
const MOST_MADE_OF: usize = 20;

impl Table {
    /// Takes as many columns as fit, the most telling ones first, in the order in which they stand.
    fn for_width(width: usize) -> Self {
        let mut columns: Vec<(u8, Column)> = vec![
            (0, figure("PID", 7, None, |process| process.id.tgid.to_string())),
            (1, Column { title: "name", width: NAME, sort: None, cell: Cell::Name }),
            (3, figure("RSS", 10, Some(Sort::Resident), |process| known(process.resident))),
            (6, Column { title: "made of", width: MADE_OF, sort: None, cell: Cell::MadeOf }),
            (7, figure("live", 10, None, |p| known(p.report().and_then(|r| r.memory.live)))),
            (2, figure("freed", 10, Some(Sort::Freed), |p| known(p.freed_not_reclaimed()))),
            (
                9,
                figure("lazy free", 10, None, |p| {
                    known(p.report().and_then(|r| r.memory.freed_not_reclaimed.lazy_free))
                }),
            ),
            (8, figure("trimmable", 10, None, |p| known(p.report().and_then(trimmable)))),
            (
                4,
                figure("reclaimed/s", 12, Some(Sort::Reclaimed), |process| {
                    known(process.reclaimed_per_s)
                }),
            ),
            (
                5,
                figure("faults/s", 8, Some(Sort::Faults), |process| {
                    known_number(process.faults_per_s)
                }),
            ),
        ];
        let used = |columns: &[(u8, Column)]| {
            let widths = columns.iter().map(|(_, column)| column.width + GAP);
            widths.sum::<usize>().saturating_sub(GAP)
        };
        while used(&columns) > width && columns.len() > 1 {
            let least = columns.iter().map(|(rank, _)| *rank).max();
            columns.retain(|(rank, _)| Some(*rank) != least);
        }
        let mut spare = width.saturating_sub(used(&columns));
        let mut widen = |is_it: fn(&Cell) -> bool, most: usize| {
            let found = columns.iter_mut().find(|(_, column)| is_it(&column.cell));
            if let Some((_, column)) = found {
                let more = spare.min(most.saturating_sub(column.width));
                column.width += more;
                spare -= more;
            }
        };
        // What every name of a thread needs comes before a finer picture, and that before long names.
        widen(|cell| matches!(cell, Cell::Name), USUAL_NAME);
        widen(|cell| matches!(cell, Cell::MadeOf), MOST_MADE_OF);
        widen(|cell| matches!(cell, Cell::Name), MOST_NAME);
        Self { columns: columns.into_iter().map(|(_, column)| column).collect() }
    }

    fn head(&self, by: Sort) -> Line<'static> {
        let cells = self.columns.iter().map(|Column { title, width, sort, cell }| {
            let is_first = *sort == Some(by);
            let title = if is_first { format!("▾{title}") } else { (*title).to_owned() };
            let text = match cell {
                Cell::Figure(_) => right(&title, *width),
                Cell::Name | Cell::MadeOf => left(&title, *width),
            };
            let style = if is_first { Modifier::BOLD } else { Modifier::DIM };
            vec![Span::styled(text, style)]
        });
        join(cells)
    }

    fn row(&self, process: &Process, paint: Paint) -> Line<'static> {
        let cells = self.columns.iter().map(|Column { width, cell, .. }| match cell {
            Cell::Name => vec![Span::raw(left(&printable(&process.comm), *width))],
            Cell::Figure(cell) => vec![Span::raw(right(&cell(process), *width))],
            Cell::MadeOf => made_of(process, *width, paint),
        });
        join(cells)
    }
}

fn join(cells: impl Iterator<Item = Vec<Span<'static>>>) -> Line<'static> {
    let mut spans = Vec::new();
    for cell in cells {
        if !spans.is_empty() {
            spans.push(Span::raw(" ".repeat(GAP)));
        }
        spans.extend(cell);
    }
    Line::from(spans)
}

/// Returns what is resident of a process, as a strip.
fn made_of(process: &Process, width: usize, paint: Paint) -> Vec<Span<'static>> {
    let Some(memory) = process.report().map(|report| &report.memory) else {
        let why = process.looked.as_ref().map_or("", |_| "not known");
        return vec![paint.dim(left(why, width))];
    };
    let freed = &memory.freed_not_reclaimed;
    let parts = [memory.live, freed.allocator, freed.lazy_free, Some(0)].map(|b| b.unwrap_or(0));
    let whole = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(*part));
    paint.strip(parts, whole, width)
}

fn trimmable(report: &crate::model::report::ProcessReport) -> Option<u64> {
    let known = report.allocators.iter().filter_map(|allocator| allocator.trimmable);
    known.reduce(u64::saturating_add)
}
