//! Columns, wrapping and colour: knows nothing of memory.

use std::iter;

use super::Style;

/// How a piece of text stands out when [`Style::color`] is set.
#[derive(Clone, Copy)]
pub(super) enum Ink {
    Bold,
    Dim,
    Red,
    Yellow,
}

impl Style {
    /// Returns `text` in `ink`. Comes after all padding and wrapping: those count characters.
    pub(super) fn paint(self, ink: Ink, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Red => "1;31",
            Ink::Yellow => "33",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Adds `text` to `out`, wrapped between words; every line but the first is indented by `indent`.
    pub(super) fn paragraph(self, out: &mut String, ink: Option<Ink>, indent: usize, text: &str) {
        for line in wrap(text, self.width, indent) {
            match ink {
                Some(ink) => out.push_str(&self.paint(ink, &line)),
                None => out.push_str(&line),
            }
            out.push('\n');
        }
    }

    /// Adds a table with its head dimmed to `out`.
    pub(super) fn table(self, out: &mut String, lines: &[String]) {
        for (index, line) in lines.iter().enumerate() {
            if index == 0 {
                out.push_str(&self.paint(Ink::Dim, line));
            } else {
                out.push_str(line);
            }
            out.push('\n');
        }
    }
}

/// On which side the cells of a column meet.
#[derive(Clone, Copy)]
pub(super) enum Align {
    Left,
    Right,
}

/// Returns the head and the rows as lines of aligned columns, indented by 2.
pub(super) fn columns(head: &[(&str, Align)], rows: &[Vec<String>]) -> Vec<String> {
    let titles: Vec<String> = head.iter().map(|(title, _)| (*title).to_owned()).collect();
    let lines = || iter::once(&titles).chain(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    lines()
        .map(|line| {
            let mut text = String::new();
            for ((cell, (_, align)), width) in line.iter().zip(head).zip(&widths) {
                text += &match align {
                    Align::Left => format!("  {cell:<width$}"),
                    Align::Right => format!("  {cell:>width$}"),
                };
            }
            text.truncate(text.trim_end().len());
            text
        })
        .collect()
}

/// Returns the last part of `text` that fits `width`, marked with `…` where something was cut.
pub(in crate::sink) fn end_of(text: &str, width: usize) -> String {
    let len = text.chars().count();
    if len <= width {
        return text.to_owned();
    }
    iter::once('…').chain(text.chars().skip(len - width.saturating_sub(1))).collect()
}

/// Returns `text` in lines of at most `width` characters, 0 for no limit; every line but the first is
/// indented by `indent`.
pub(in crate::sink) fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines = vec![];
    let mut line = String::new();
    for (index, word) in words(text).into_iter().enumerate() {
        if index == 0 {
            line = word;
        } else if width == 0 || line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(&word);
        } else {
            lines.push(line);
            line = format!("{:indent$}{word}", "");
        }
    }
    lines.push(line);
    lines
}

/// Splits at spaces, but not between a number and its unit.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![];
    for word in text.split(' ') {
        let unit = word.trim_end_matches(|c: char| c.is_ascii_punctuation());
        match words.last_mut() {
            Some(number) if ["B", "KiB", "MiB", "GiB"].contains(&unit) => {
                number.push(' ');
                number.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_breaks_between_words_and_a_long_word_is_kept_whole() {
        assert_eq!(wrap("one two three", 8, 2), ["one two", "  three"]);
        assert_eq!(wrap("a incomprehensible b", 6, 2), ["a", "  incomprehensible", "  b"]);
        assert_eq!(wrap("  one two", 7, 4), ["  one", "    two"]);
        assert_eq!(wrap("", 8, 2), [""]);
    }

    #[test]
    fn a_number_keeps_its_unit() {
        assert_eq!(wrap("they are 30.0 MiB, 1 B", 14, 0), ["they are", "30.0 MiB, 1 B"]);
    }

    #[test]
    fn a_width_of_0_wraps_nothing() {
        assert_eq!(wrap("one two three", 0, 2), ["one two three"]);
    }

    #[test]
    fn a_cut_name_keeps_its_end() {
        assert_eq!(end_of("/usr/lib/libc.so.6", 10), "…libc.so.6");
        assert_eq!(end_of("libc", 4), "libc");
        assert_eq!(end_of("libc", 0), "…");
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        let rows = [vec!["é".into(), "–".into()], vec!["ab".into(), "12".into()]];
        assert_eq!(
            columns(&[("n", Align::Left), ("x", Align::Right)], &rows),
            ["  n    x", "  é    –", "  ab  12"]
        );
    }
}
