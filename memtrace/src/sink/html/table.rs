//! Tables: readable as they are, and with what a script needs to sort them.
//!
//! Every figure says where in the JSON report it stands: a row by `data-p`, a column by `data-f`, or a
//! cell by `data-p` alone. `data-v` is its exact value; a figure that is not known has none.

use super::escape;
use crate::sink::{UNKNOWN, signed_size, size};

/// What stands in a cell.
pub(super) enum Cell {
    /// Text of ours, or of a traced process.
    Text(String),
    /// The same in the type of code.
    Code(String),
    /// HTML that was made here.
    Html(String),
    /// Bytes.
    Size(Option<u64>),
    /// Bytes that may be below 0.
    Signed(Option<i64>),
    /// A number.
    Count(Option<u64>),
    /// A number that names something.
    Id(u64),
    /// What several figures add up to, as it is shown and in bytes: the JSON report has the parts.
    Sum(String, u64),
}

impl Cell {
    fn is_figure(&self) -> bool {
        matches!(self, Self::Size(_) | Self::Signed(_) | Self::Count(_) | Self::Id(_))
    }

    /// Returns the cell; `pointer` is where the figure stands in the JSON report.
    pub(super) fn render(&self, pointer: Option<&str>) -> String {
        let shown = match self {
            Self::Text(text) => escape::text(text),
            Self::Code(text) => format!("<code>{}</code>", escape::text(text)),
            Self::Html(html) => html.clone(),
            Self::Size(bytes) => bytes.map_or_else(|| UNKNOWN.to_owned(), size),
            Self::Signed(bytes) => bytes.map_or_else(|| UNKNOWN.to_owned(), signed_size),
            Self::Count(count) => count.map_or_else(|| UNKNOWN.to_owned(), grouped),
            Self::Id(number) => number.to_string(),
            Self::Sum(shown, _) => shown.clone(),
        };
        if let Self::Sum(_, bytes) = self {
            return format!("<td class=\"r\" data-v=\"{bytes}\">{shown}</td>");
        }
        if !self.is_figure() {
            return format!("<td>{shown}</td>");
        }
        let value = match self {
            Self::Size(value) | Self::Count(value) => value.map(|value| value.to_string()),
            Self::Signed(value) => value.map(|value| value.to_string()),
            Self::Id(number) => Some(number.to_string()),
            Self::Text(_) | Self::Code(_) | Self::Html(_) | Self::Sum(..) => None,
        };
        let value = value.map_or_else(String::new, |value| format!(" data-v=\"{value}\""));
        let pointer = pointer.map_or_else(String::new, |at| format!(" data-p=\"{at}\""));
        format!("<td class=\"n\"{pointer}{value}>{shown}</td>")
    }
}

/// A column of a table.
pub(super) struct Column<'a, T> {
    title: &'static str,
    /// Where in the row's object its figure stands; `.` when the object is the figure.
    field: &'static str,
    class: &'static str,
    cell: Box<dyn Fn(&T) -> Cell + 'a>,
}

impl<'a, T> Column<'a, T> {
    /// A column of figures that stand in a field of the row's object.
    pub(super) fn figure(
        title: &'static str,
        field: &'static str,
        cell: impl Fn(&T) -> Cell + 'a,
    ) -> Self {
        Self { title, field, class: "n", cell: Box::new(cell) }
    }

    /// A column of words.
    pub(super) fn words(title: &'static str, cell: impl Fn(&T) -> Cell + 'a) -> Self {
        Self { title, field: "", class: "", cell: Box::new(cell) }
    }

    /// A column of [`Cell::Sum`].
    pub(super) fn sum(title: &'static str, cell: impl Fn(&T) -> Cell + 'a) -> Self {
        Self { class: "r", ..Self::words(title, cell) }
    }
}

/// Adds a table. Each row comes with where its object stands in the JSON report.
pub(super) fn table<T>(
    out: &mut String,
    caption: &str,
    class: &str,
    columns: &[Column<'_, T>],
    rows: impl IntoIterator<Item = (String, T)>,
) {
    out.push_str(&format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{caption}\"><table class=\"sorted {class}\"><caption>{caption}</caption><thead><tr>"
    ));
    for Column { title, field, class, .. } in columns {
        out.push_str("<th scope=\"col\"");
        for (name, value) in [("class", class), ("data-f", field)] {
            if !value.is_empty() {
                out.push_str(&format!(" {name}=\"{value}\""));
            }
        }
        out.push_str(&format!(">{title}</th>"));
    }
    out.push_str("</tr></thead><tbody>\n");
    for (pointer, row) in rows {
        if pointer.is_empty() {
            out.push_str("<tr>");
        } else {
            out.push_str(&format!("<tr data-p=\"{pointer}\">"));
        }
        for Column { cell, .. } in columns {
            out.push_str(&cell(&row).render(None));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

/// A figure with its name and what is to be known about it.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) pointer: String,
    pub(super) cell: Cell,
    pub(super) note: String,
}

/// Adds a table of single figures.
pub(super) fn lines(out: &mut String, caption: &str, lines: &[Line<'_>]) {
    out.push_str(&format!("<table class=\"lines\"><caption>{caption}</caption><tbody>\n"));
    for Line { name, pointer, cell, note } in lines {
        let cell = cell.render(Some(pointer));
        let note = escape::sentence(note);
        out.push_str(&format!(
            "<tr><th scope=\"row\">{name}</th>{cell}<td class=\"note\">{note}</td></tr>\n"
        ));
    }
    out.push_str("</tbody></table>\n");
}

/// Returns a number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn an_unknown_figure_has_no_value_and_zero_has() {
        assert_eq!(Cell::Size(None).render(Some("/a")), "<td class=\"n\" data-p=\"/a\">–</td>");
        assert_eq!(Cell::Size(Some(0)).render(None), "<td class=\"n\" data-v=\"0\">0 B</td>");
        assert_eq!(Cell::Signed(Some(-1)).render(None), "<td class=\"n\" data-v=\"-1\">-1 B</td>");
    }
}
