//! Colours that suit light and dark terminals, and text that fits: knows nothing of memory.

use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use crate::sink::strip::{self, PARTS};

/// The terminal's own colours on its own background, or none.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    pub(super) color: bool,
}

impl Paint {
    pub(super) fn bold(self, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), Modifier::BOLD)
    }

    pub(super) fn dim(self, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), Modifier::DIM)
    }

    /// Something to know.
    pub(super) fn note(self, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.with(Color::Yellow))
    }

    /// A strip of `len` characters, each part in the colour that it has everywhere.
    pub(super) fn strip(self, parts: [u64; 4], whole: u64, len: usize) -> Vec<Span<'static>> {
        let lengths = strip::lengths(parts, whole, len as u64);
        let runs = (0..).zip(lengths).filter(|(_, length)| *length > 0);
        runs.map(|(part, length)| Span::styled(strip::run(part, length), self.part(part))).collect()
    }

    /// What the characters of strips mean, those of them that are asked for.
    pub(super) fn legend(self, wanted: &[usize]) -> Line<'static> {
        let mut spans = vec![Span::raw("  ")];
        for &part in wanted {
            let (glyph, what) = PARTS[part];
            spans.push(Span::styled(glyph.to_string(), self.part(part)));
            spans.push(self.dim(format!(" {what}  ")));
        }
        Line::from(spans)
    }

    /// The style of one of [`PARTS`].
    pub(super) fn part(self, part: usize) -> Style {
        match part {
            1 => self.with(Color::Yellow),
            2 => self.with(Color::Red),
            3 => self.with(Color::Cyan),
            4 => Modifier::DIM.into(),
            _ => Style::new(),
        }
    }

    fn with(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}

/// Returns the columns that a text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Returns the first part of `text` that fits `columns`, marked with `…` where something was cut.
pub(super) fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut fitted = String::new();
    for c in text.chars() {
        fitted.push(c);
        if width(&fitted) >= columns {
            fitted.pop();
            break;
        }
    }
    if columns > 0 {
        fitted.push('…');
    }
    fitted
}

/// Returns `text` in just so many columns, its start at the left.
pub(super) fn left(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    let gap = columns.saturating_sub(width(&text));
    text + &" ".repeat(gap)
}

/// Returns `text` in just so many columns, its end at the right.
pub(super) fn right(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    " ".repeat(columns.saturating_sub(width(&text))) + &text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(fit("日本語", 6), "日本語");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(fit("日本語", 0), "");
        assert_eq!(fit("abc", 1), "…");
        assert_eq!(left("日本", 5), "日本 ");
        assert_eq!(right("日本語", 4), " 日…");
    }
}
