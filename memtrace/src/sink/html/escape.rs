//! Whatever a traced process calls itself, it stays text.

use serde::Serialize;

use crate::sink::{json, printable};

/// Returns text for an element or a quoted attribute: without markup, and without what could pass for
/// something else.
pub(super) fn text(text: &str) -> String {
    sentence(&printable(text))
}

/// Returns a sentence of ours, in which names are printable already.
pub(super) fn sentence(sentence: &str) -> String {
    let mut safe = String::with_capacity(sentence.len());
    for c in sentence.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

/// Returns a document as JSON that no parser of HTML or of older JavaScript mistakes for an end of it.
pub(super) fn data(document: &impl Serialize) -> String {
    let json = json::line(document);
    let mut safe = String::with_capacity(json.len());
    for c in json.trim_end().chars() {
        match c {
            // All of these stand inside strings only.
            '<' | '>' | '&' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                safe.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => safe.push(c),
        }
    }
    safe
}
