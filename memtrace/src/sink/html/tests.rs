//! The page as text: `tests/page` looks at it in a browser.

use super::*;
use crate::model::report::{Host, RegionReport, SCHEMA, Window};

const HOSTILE: &str = "</script><script>alert(1)</script>\u{1b}[2J\u{2028}\u{202e}\"'&\0";

fn report(processes: Vec<ProcessReport>) -> Report {
    let window = Window {
        start_ns: 1,
        end_ns: 2_000_000_001,
        emitted: 12,
        complete: true,
        ..Window::default()
    };
    let host = Host { kernel: HOSTILE.into(), page_size: 4096, ..Host::default() };
    Report { schema: SCHEMA, host, window, processes, stacks: None }
}

fn process() -> ProcessReport {
    let region = RegionReport {
        start: "0x1000".into(),
        end: "0x3000".into(),
        kind: "anon",
        name: Some(HOSTILE.into()),
        mapped: 8192,
        ..RegionReport::default()
    };
    ProcessReport {
        tgid: 42,
        comm: HOSTILE.into(),
        exe: Some(HOSTILE.into()),
        state: "running",
        unwalked: vec![HOSTILE.into()],
        regions: vec![region],
        ..ProcessReport::default()
    }
}

#[test]
fn text_cannot_become_markup_or_pass_for_something_else() {
    assert_eq!(
        escape::text(HOSTILE),
        "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u{1b}[2J\\u{2028}\\u{202e}&quot;&#39;&amp;\\0"
    );
}

#[test]
fn data_keeps_its_value_and_cannot_end_its_element() {
    let data = escape::data(&HOSTILE);
    assert!(!data.contains(['<', '>', '&', '\u{2028}', '\u{1b}', '\0']), "{data}");
    assert_eq!(serde_json::from_str::<String>(&data).expect("it is JSON"), HOSTILE);
}

#[test]
fn a_hostile_name_adds_no_element_to_the_page() {
    let page = render(&report(vec![process()]), None);
    let plain = render(&report(vec![ProcessReport { comm: "x".into(), ..process() }]), None);
    let scripts = |page: &str| page.matches("<script").count();
    assert_eq!(scripts(&page), 4, "the report, the history, the cells and the script");
    assert_eq!(scripts(&page), scripts(&plain));
    assert!(!page.contains("alert(1)</script>"));
}

#[test]
fn the_policy_allows_this_script_and_this_style_and_nothing_else() {
    let page = render(&report(vec![]), None);
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text.as_bytes()));
    let inside = |open: &str, close: &str| {
        let (_, rest) = page.split_once(open).expect("it opens");
        rest.split_once(close).expect("it closes").0.to_owned()
    };
    let (style, script) = (inside("<style>", "</style>"), inside("<script>", "</script>"));
    assert_eq!(
        inside("Content-Security-Policy\" content=\"", "\">"),
        format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; \
             form-action 'none'",
            hash(&style),
            hash(&script)
        )
    );
    for outside in ["http:", "https:", "//", " style=", "@import", " src=", " onclick="] {
        let found = page.replace(&script, "").replace("http-equiv", "");
        assert!(!found.contains(outside), "{outside}");
    }
}

#[test]
fn what_is_not_known_is_no_zero() {
    let page = render(&report(vec![process()]), None);
    assert!(page.contains("data-p=\"/processes/0/memory/resident\">–</td>"), "{page}");
    assert!(page.contains("data-v=\"8192\">8.0 KiB</td>"));
}

#[test]
fn each_of_two_processes_with_one_number_has_its_own_history() {
    use crate::model::change::{Change, What};
    let report = report(vec![process(), process()]);
    let mut history = History::new();
    for (time_ns, path) in [(1, "munmap"), (3, "brk")] {
        let call = What::Call {
            call: "munmap",
            start: 0,
            requested: 1,
            detail: String::new(),
            ret: 0,
            path: Some(path),
            zapped: Some(1),
            freed: Some(1),
            duration_ns: None,
        };
        history.apply(&Change {
            time_ns,
            tgid: 42,
            tid: 42,
            what: What::Exec { path: "x".into() },
        });
        history.apply(&Change { time_ns, tgid: 42, tid: 42, what: call });
        let exit = What::Exit { code: 0 };
        history.apply(&Change { time_ns: time_ns + 1, tgid: 42, tid: 42, what: exit });
    }
    let paths = |index| {
        let lifeline = lifeline(&report, &history, index).expect("it has one");
        lifeline.left.iter().flat_map(|(_, left)| left.0.keys().copied()).collect::<Vec<_>>()
    };
    assert_eq!([paths(0), paths(1)], [["munmap"], ["brk"]]);
}
