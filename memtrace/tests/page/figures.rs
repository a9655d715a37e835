//! Reads the figures out of a page as they are written, without a browser.

/// A figure with where it stands in the JSON report.
pub(crate) struct Figure {
    pub(crate) pointer: String,
    /// Its exact value, `None` when it is not known.
    pub(crate) value: Option<String>,
    /// As it is shown.
    pub(crate) text: String,
}

/// Returns the figures of all tables.
pub(crate) fn figures(page: &str) -> Vec<Figure> {
    let (body, _) = page.split_once("<script").expect("scripts come last");
    let (mut fields, mut row, mut found) = (Vec::new(), String::new(), Vec::new());
    let mut cell = 0;
    for piece in body.split('<') {
        let Some((tag, text)) = piece.split_once('>') else { continue };
        let name = tag.split_whitespace().next().unwrap_or_default();
        match name {
            "table" => fields.clear(),
            "tr" => {
                row = attribute(tag, "data-p").unwrap_or_default();
                cell = 0;
            }
            "th" if tag.contains("scope=\"col\"") => fields.push(attribute(tag, "data-f")),
            "td" => {
                if tag.contains("class=\"n\"") {
                    let of_row = || match fields[cell].as_deref() {
                        Some(".") => row.clone(),
                        Some(field) => format!("{row}/{field}"),
                        None => panic!("a figure without a field: {piece}"),
                    };
                    let pointer = attribute(tag, "data-p").unwrap_or_else(of_row);
                    let (value, text) = (attribute(tag, "data-v"), text.to_owned());
                    found.push(Figure { pointer, value, text });
                }
                cell += 1;
            }
            _ => {}
        }
    }
    found
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}
