//! The HTML report: its figures against the JSON report's, as text and in a browser.
//!
//! A machine without Chromium skips what needs it, but for one where `CI` is set.

mod browser;
mod figures;
mod made_up;
mod map;
#[path = "../common/trial.rs"]
mod trial;

use std::{fs, process::ExitCode};

use libtest_mimic::{Arguments, Completion, Trial};
use memtrace::{
    model::report::Report,
    sink::{html, json},
};
use serde_json::{Value, json};

use self::{
    browser::Browser,
    figures::{Figure, figures},
    made_up::{HOSTILE, history, report},
    trial::{anywhere, without},
};

const MEMTRACE: &str = env!("CARGO_BIN_EXE_memtrace");

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A browser takes more than one CPU as it is.
    arguments.test_threads.get_or_insert(1);
    let trials = vec![
        anywhere("every_figure_is_the_json_reports", every_figure_is_the_json_reports),
        anywhere("the_page_carries_the_json_report", the_page_carries_the_json_report),
        anywhere("what_is_no_page_is_refused_with_a_hint", what_is_no_page_is_refused_with_a_hint),
        anywhere("a_trace_becomes_a_page", a_trace_becomes_a_page),
        shown("nothing_goes_wrong_and_nothing_is_loaded", nothing_goes_wrong_and_nothing_is_loaded),
        shown("figures_in_the_browser_are_the_json_reports", figures_in_the_browser),
        shown("hostile_names_are_text", hostile_names_are_text),
        shown("a_table_sorts_by_exact_figures", a_table_sorts_by_exact_figures),
        shown("the_map_zooms_down_to_pages_and_back", map::zooms_down_to_pages_and_back),
        shown("the_map_shows_single_pages", map::shows_single_pages),
        shown("keys_go_from_page_to_page", map::keys_go_from_page_to_page),
        shown("the_map_says_what_it_does_not_know", map::says_what_it_does_not_know),
        shown("coarse_cells_and_whole_regions_are_drawn_in_proportion", map::draws_in_proportion),
        shown("keys_go_through_time", keys_go_through_time),
        shown("it_fits_dark_narrow_and_paper", it_fits_dark_narrow_and_paper),
        shown("of_many_processes_a_link_unfolds_one", of_many_processes_a_link_unfolds_one),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test that looks at the page in a browser.
fn shown(name: &str, test: fn(&Browser)) -> Trial {
    Trial::ignorable_test(name, move || {
        if !browser::is_there() {
            return without("chromium and chromedriver");
        }
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let file = folder.path().join("report.html");
        fs::write(&file, html::render(&report(), Some(&history())))
            .map_err(|error| error.to_string())?;
        fs::write(folder.path().join("many.html"), html::render(&many(), None))
            .map_err(|error| error.to_string())?;
        let browser = Browser::start(folder.path());
        browser.open(&file);
        test(&browser);
        Ok(Completion::Completed)
    })
}

/// Returns a report of more processes than have a section.
fn many() -> Report {
    Report { processes: vec![report().processes.remove(0); 70], ..report() }
}

fn as_json() -> Value {
    serde_json::from_str(&json::render(&report())).expect("a report is JSON")
}

#[track_caller]
fn assert_all_are(found: &[Figure], report: &Value) {
    for Figure { pointer, value, text } in found {
        let expected = report.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is nowhere"));
        match value {
            Some(value) => assert_eq!(*value, expected.to_string(), "{pointer}, shown as {text}"),
            None => {
                assert!(expected.is_null(), "{pointer} is {expected}, and shown as {text}");
                assert_eq!(text, "–", "{pointer}");
            }
        }
    }
}

fn every_figure_is_the_json_reports() {
    let page = html::render(&report(), Some(&history()));
    let (found, report) = (figures(&page), as_json());
    assert!(found.len() > 150, "only {} figures", found.len());
    assert_all_are(&found, &report);
    // Whole groups of figures, so that a new one cannot be forgotten.
    for group in [
        "/processes/0/memory",
        "/processes/0/balance",
        "/processes/0/reclaimed/by_path/munmap",
        "/processes/0/reclaimed/by_path/munmap/kept_by_reason",
        "/processes/0/allocators/0/arenas/1",
        "/processes/0/regions/0",
    ] {
        let Some(Value::Object(fields)) = report.pointer(group) else { panic!("{group}") };
        let numbers = fields.iter().filter(|(_, value)| value.is_number());
        for (field, _) in numbers.filter(|(field, _)| *field != "cold") {
            let pointer = format!("{group}/{field}");
            assert!(found.iter().any(|figure| figure.pointer == pointer), "{pointer} is not shown");
        }
    }
}

fn the_page_carries_the_json_report() {
    let page = html::render(&report(), Some(&history()));
    let (_, rest) = page.split_once("id=\"report\">").expect("it is there");
    let (data, _) = rest.split_once("</script>").expect("it ends");
    assert_eq!(serde_json::from_str::<Value>(data).expect("it is JSON"), as_json());
}

fn what_is_no_page_is_refused_with_a_hint() {
    for command in [
        "doctor",
        "ledger",
        "maps 1",
        "verify 1",
        "report --watch 1s 1",
        "run --events -- true",
        "attach --events 1",
    ] {
        let words = ["--format", "html"].into_iter().chain(command.split(' '));
        let assert = assert_cmd::Command::new(MEMTRACE).args(words).assert().code(2).stdout("");
        let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        assert!(stderr.contains("\nhint: ") && stderr.contains("--format text"), "{stderr}");
    }
    let assert = assert_cmd::Command::new(MEMTRACE)
        .args(["run", "--walk", "1s", "--", "true"])
        .assert()
        .code(2);
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(stderr.contains("hint: add --events, --format html, --format perfetto or"), "{stderr}");
}

/// Without `-o` it goes to the stream, as every report does.
fn a_trace_becomes_a_page() {
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/true.trace");
    let page = |format| {
        let mut command = assert_cmd::Command::new(MEMTRACE);
        let assert = command.args(["replay", "--format", format, trace]).assert().success();
        String::from_utf8(assert.get_output().stdout.clone()).expect("it is UTF-8")
    };
    let report: Value = serde_json::from_str(&page("json")).expect("a report is JSON");
    let page = page("html");
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    assert_all_are(&figures(&page), &report);
    assert!(page.contains("What was resident meanwhile was not written down."));
}

fn nothing_goes_wrong_and_nothing_is_loaded(browser: &Browser) {
    let drawn = browser.run("return [...document.querySelectorAll('.picture svg.drawing')].map(s => s.querySelectorAll('rect, polygon').length)");
    let drawn: Vec<u64> = serde_json::from_value(drawn).expect("numbers");
    assert_eq!(drawn.len(), 2, "{drawn:?}");
    assert!(drawn.iter().all(|&shapes| shapes > 10), "{drawn:?}");
    let loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)");
    assert_eq!(loaded, json!([]));
    // The policy refuses what would be.
    let refused = browser.run(
        "const image = new Image(); return new Promise(done => { \
         document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective)); \
         image.src = 'http://127.0.0.1:9/x.png'; })",
    );
    assert_eq!(refused, "img-src");
    let log = browser.log();
    let ours: Vec<&Value> =
        log.iter().filter(|line| !line.to_string().contains("127.0.0.1:9")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}

fn figures_in_the_browser(browser: &Browser) {
    let found = browser.run(
        "return [...document.querySelectorAll('td.n')].map(cell => {
            const row = cell.parentElement;
            const head = cell.closest('table').tHead?.rows[0].cells[cell.cellIndex];
            const field = head?.dataset.f;
            const at = cell.dataset.p ?? (field === '.' ? row.dataset.p : `${row.dataset.p}/${field}`);
            return [at, cell.dataset.v ?? null, cell.textContent];
        })",
    );
    let found: Vec<(String, Option<String>, String)> =
        serde_json::from_value(found).expect("figures");
    let found: Vec<Figure> =
        found.into_iter().map(|(pointer, value, text)| Figure { pointer, value, text }).collect();
    assert!(found.len() > 150, "only {} figures", found.len());
    assert_all_are(&found, &as_json());
}

fn hostile_names_are_text(browser: &Browser) {
    let found = browser.run(
        "return [typeof window.hacked, document.scripts.length, document.querySelectorAll('img, iframe, b.evil').length,
            document.querySelector('h1').textContent, document.body.innerText.includes('\\u001b'),
            /[\\u202a-\\u202e\\u2066-\\u2069\\u2028]/.test(document.body.innerText)]",
    );
    let name = memtrace::sink::printable(HOSTILE);
    let heading = format!("{name} (pid 4242)");
    assert_eq!(found, json!(["undefined", 4, 0, heading, false, false]));
    let longest = browser
        .run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth");
    assert_eq!(longest, true, "a long name widens the page");
}

/// Returns a column of the table of regions as it stands.
fn column(browser: &Browser, field: &str) -> Vec<Option<u64>> {
    let script = format!(
        "const table = document.querySelector('table.map-table');
         const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.dataset.f === '{field}');
         return [...table.tBodies[0].rows].map(row => row.cells[at].dataset.v ?? null)"
    );
    let found: Vec<Option<String>> =
        serde_json::from_value(browser.run(&script)).expect("a column");
    found.into_iter().map(|value| value.map(|value| value.parse().expect("a number"))).collect()
}

fn a_table_sorts_by_exact_figures(browser: &Browser) {
    let unsorted = column(browser, "resident");
    let unknown = unsorted.iter().filter(|value| value.is_none()).count();
    assert!(unknown > 0, "{unsorted:?}");
    let button = "table.map-table th[data-f=resident] button";
    browser.click(button);
    let falling = column(browser, "resident");
    let known = falling.len() - unknown;
    assert!(falling[..known].is_sorted_by(|a, b| a >= b), "{falling:?}");
    assert!(falling[known..].iter().all(Option::is_none), "{falling:?}");
    browser.press(button, "\u{e007}");
    let rising = column(browser, "resident");
    assert!(rising[..known].is_sorted(), "{rising:?}");
    assert!(rising[known..].iter().all(Option::is_none), "{rising:?}");
    let sorted = "return document.querySelector('table.map-table th[data-f=resident]').ariaSort";
    assert_eq!(browser.run(sorted), "ascending");
}

fn keys_go_through_time(browser: &Browser) {
    let time = "[data-draw=time] svg.drawing";
    let shown =
        || browser.run("return document.querySelector('[data-draw=time] output').textContent");
    let before = shown();
    browser.press(time, ".");
    let first = shown();
    assert!(first.as_str().is_some_and(|text| text.starts_with("at ")), "{before} {first}");
    browser.press(time, ".");
    assert_ne!(shown(), first);
    browser.press(time, ",");
    assert_eq!(shown(), first);
    let lanes =
        browser.run("return document.querySelector('[data-draw=time] svg.drawing').textContent");
    for lane in ["munmap", "heap trim (brk)", "exec", "exit 0"] {
        assert!(lanes.as_str().is_some_and(|text| text.contains(lane)), "{lane}: {lanes}");
    }
}

fn it_fits_dark_narrow_and_paper(browser: &Browser) {
    let paper = || browser.run("return getComputedStyle(document.body).backgroundColor");
    assert_eq!(paper(), "rgb(255, 255, 255)");
    browser.prefer("prefers-color-scheme", "dark");
    assert_eq!(paper(), "rgb(18, 22, 27)");
    browser.resize(360, 800);
    let widths = browser
        .run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]");
    assert_eq!(widths[0], widths[1], "a narrow page scrolls sideways: {widths}");
    let printed = browser.print();
    assert!(printed.starts_with(b"%PDF-") && printed.len() > 10_000, "{} bytes", printed.len());
    // What was folded is unfolded on paper only.
    assert_eq!(browser.run("return document.querySelectorAll('details[data-folded]').length"), 0);
}

fn of_many_processes_a_link_unfolds_one(browser: &Browser) {
    browser.run("location.href = 'many.html'");
    let counted = browser.run(
        "return [document.querySelectorAll('table.overview tbody tr').length,
            document.querySelectorAll('table.overview a').length,
            document.querySelectorAll('details.process').length,
            document.querySelectorAll('details.process[open]').length]",
    );
    assert_eq!(counted, json!([70, 64, 64, 4]));
    browser.click("table.overview tbody tr:nth-child(5) a");
    let opened = "return document.querySelectorAll('details.process[open]').length";
    assert_eq!(browser.run(opened), 5);
    assert_eq!(browser.log(), Vec::<Value>::new());
}
