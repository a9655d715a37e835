//! What a process is made of, over time: columns of the characters that strips are made of, so that
//! it can be read without colours.

use ratatui::text::{Line, Span};

use super::paint::{Paint, right};
use crate::{
    model::top::Point,
    sink::{
        size,
        strip::{self, PARTS},
    },
};

/// Columns of the scale at the left.
const SCALE: usize = 11;

/// What is drawn, and when it ends.
pub(super) struct Chart<'a> {
    pub(super) points: &'a [Point],
    pub(super) end_ns: u64,
    pub(super) interval_ns: u64,
}

impl Chart<'_> {
    /// Returns the chart in so many columns and lines, its scale and its legend among them.
    pub(super) fn lines(&self, columns: usize, height: usize, paint: Paint) -> Vec<Line<'static>> {
        let (width, height) = (columns.saturating_sub(SCALE), height.saturating_sub(2));
        if width == 0 || height == 0 {
            return Vec::new();
        }
        let step = self.step(width);
        let stacks: Vec<Option<[u64; 4]>> = (0..width)
            .map(|column| {
                let until = self.end_ns.saturating_sub(step * (width - 1 - column) as u64);
                let known = self.points.partition_point(|point| point.at_ns <= until);
                let Point { live, free, lazy_free, .. } = self.points[known.checked_sub(1)?];
                Some([live, free, lazy_free, 0])
            })
            .collect();
        let sums = stacks
            .iter()
            .flatten()
            .map(|parts| parts.iter().fold(0, |a: u64, b| a.saturating_add(*b)));
        let most = sums.max().unwrap_or(0).max(1);
        let stacks: Vec<Option<[u64; 5]>> = stacks
            .into_iter()
            .map(|parts| Some(strip::lengths(parts?, most, height as u64)))
            .collect();
        let mut lines: Vec<Line<'static>> = (0..height)
            .map(|row| {
                let label = match row {
                    0 => right(&size(most), SCALE - 2) + " ┤",
                    _ if row + 1 == height => right("0", SCALE - 2) + " ┤",
                    _ => " ".repeat(SCALE - 2) + " │",
                };
                let from_below = (height - 1 - row) as u64;
                let cells = stacks.iter().map(|stack| stack.and_then(|s| part_at(s, from_below)));
                let mut spans = vec![Span::raw(label)];
                spans.extend(cells.map(|part| match part {
                    Some(part) => Span::styled(PARTS[part].0.to_string(), paint.part(part)),
                    None => Span::raw(" "),
                }));
                Line::from(spans)
            })
            .collect();
        lines.push(axis(step * width as u64, width, paint));
        lines.push(paint.legend(&[0, 1, 2]));
        lines
    }

    /// Returns the time that a column stands for: all that is known is shown.
    fn step(&self, width: usize) -> u64 {
        let known = self.points.first().map_or(0, |first| self.end_ns.saturating_sub(first.at_ns));
        let least = self.interval_ns.max(1);
        // Whole multiples, so that the picture moves as a whole.
        least * known.div_ceil(width as u64).div_ceil(least).max(1)
    }
}

/// Returns the part that is drawn in a line of a stack, the lowest being 0.
fn part_at(lengths: [u64; 5], line: u64) -> Option<usize> {
    let mut end = 0;
    let ends = lengths.into_iter().take(4).map(|length| {
        end += length;
        end
    });
    ends.enumerate().find_map(|(part, end)| (line < end).then_some(part))
}

fn axis(span_ns: u64, width: usize, paint: Paint) -> Line<'static> {
    let from = format!("{} ago", time(span_ns));
    let gap = width.saturating_sub(from.chars().count() + "now".len());
    let text = if gap > 0 { from + &" ".repeat(gap) + "now" } else { String::new() };
    Line::from(vec![Span::raw(" ".repeat(SCALE)), paint.dim(text)])
}

/// Returns a time as people say it.
pub(super) fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        1_000_000_000..180_000_000_000 => format!("{} s", ns / 1_000_000_000),
        _ => format!("{} min", ns / 60_000_000_000),
    }
}
