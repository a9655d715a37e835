//! A flame graph of folded call stacks, as one SVG file without anything from the network.

use std::io;

use inferno::flamegraph::{Options, from_lines};

use super::folded::Measure;

/// Returns the flame graph of folded lines. Names in them are escaped for XML. Whether frames were
/// counted stands in the title.
///
/// # Errors
///
/// When the lines are not folded call stacks.
pub fn render(lines: &str, measure: Measure, counts_frames: bool) -> io::Result<String> {
    let title = measure.title(counts_frames).to_owned();
    if lines.is_empty() {
        return Ok(nothing(&title));
    }
    let mut options = Options::default();
    options.title = title;
    options.count_name = measure.unit().to_owned();
    // The same function has the same colour in every graph.
    options.hash = true;
    options.deterministic = true;
    let mut svg = Vec::new();
    from_lines(&mut options, lines.lines(), &mut svg)?;
    String::from_utf8(svg).map_err(io::Error::other)
}

/// Returns what is shown where nothing was sampled: no error, for a program may free all it has.
fn nothing(title: &str) -> String {
    format!(
        "<?xml version=\"1.0\" standalone=\"no\"?>\n\
         <svg version=\"1.1\" width=\"1200\" height=\"60\" xmlns=\"http://www.w3.org/2000/svg\">\
         <text x=\"10\" y=\"35\" font-family=\"monospace\" font-size=\"14\">{title}: nothing was \
         sampled</text></svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use quick_xml::{Reader, events::Event};

    use super::*;
    use crate::{
        model::report::{Frame, ProcessReport, ProcessStacks, RetainedBy, Stacks},
        sink::folded,
    };

    /// Returns all text of a document, and the names of its elements.
    fn parse(svg: &str) -> (Vec<String>, Vec<String>) {
        let mut reader = Reader::from_str(svg);
        let (mut texts, mut names) = (Vec::new(), Vec::new());
        loop {
            match reader.read_event().expect("well-formed") {
                Event::Eof => return (texts, names),
                Event::Start(element) | Event::Empty(element) => {
                    names.push(String::from_utf8_lossy(element.name().as_ref()).into_owned());
                    for attribute in element.attributes() {
                        attribute.expect("well-formed");
                    }
                }
                Event::Text(text) => texts.push(text.decode().expect("UTF-8").into_owned()),
                Event::GeneralRef(name) => {
                    let name = name.decode().expect("UTF-8").into_owned();
                    assert!(["lt", "gt", "amp", "quot", "apos"].contains(&name.as_str()), "{name}");
                    texts.push(format!("&{name};"));
                }
                _ => {}
            }
        }
    }

    fn folded_lines(functions: &[&str]) -> String {
        let frame = |function: &&str| Frame {
            function: Some((*function).to_owned()),
            file: None,
            offset: "0x10".into(),
        };
        let retained_by = functions
            .iter()
            .map(|function| RetainedBy { bytes: 1000, samples: 1, frames: vec![frame(function)] })
            .collect();
        let process = ProcessStacks { tgid: 42, retained_by, ..ProcessStacks::default() };
        let stacks = Stacks { processes: vec![process], ..Stacks::default() };
        let report = ProcessReport { tgid: 42, comm: "<b>&\"".into(), ..ProcessReport::default() };
        folded::by_measure(&stacks, &[report], Measure::Retained)
    }

    #[test]
    fn a_flame_graph_is_xml_and_holds_the_totals() {
        let hostile = [
            "</title><script>alert(1)</script>",
            "a;b",
            "\x1b[2J\n\0",
            "# f 7",
            "]]>&amp;\u{202e}",
            "operator new 12 34",
        ];
        let svg = render(&folded_lines(&hostile), Measure::Retained, true).expect("it is folded");
        let (texts, names) = parse(&svg);
        let text = texts.concat();
        // All of it, all of the process, and each function.
        assert!(text.contains("all (6,000 bytes, 100%)"), "{text}");
        assert!(text.contains("(pid 42) (6,000 bytes, 100.00%)"), "{text}");
        assert_eq!(text.matches("(1,000 bytes, 16.67%)").count(), hostile.len(), "{text}");
        // Only inferno's own.
        assert_eq!(names.iter().filter(|name| *name == "script").count(), 1);
        assert!(!svg.contains(|c: char| c.is_control() && !c.is_whitespace() || c == '\u{202e}'));
        assert!(text.contains("allocated and not freed"), "{text}");
    }

    #[test]
    fn faults_are_no_bytes_and_what_was_not_counted_is_said() {
        let title = |measure, counts_frames| {
            let svg = render("x;f 7\n", measure, counts_frames).expect("it is folded");
            parse(&svg).0.concat()
        };
        let faults = title(Measure::Faults, true);
        assert!(faults.contains("Page faults, by who had them"), "{faults}");
        assert!(faults.contains("all (7 faults, 100%)"), "{faults}");
        let back = title(Measure::Reclaimed, true);
        assert!(back.contains("Bytes given back, by who gave them up"), "{back}");
        let detached = title(Measure::Reclaimed, false);
        assert!(detached.contains("what came back was not counted"), "{detached}");
    }

    #[test]
    fn nothing_is_a_picture_too() {
        let (texts, _) = parse(&render("", Measure::Freed, true).expect("it is drawn"));
        assert!(texts.concat().contains("freed, by who freed: nothing was sampled"), "{texts:?}");
    }
}
