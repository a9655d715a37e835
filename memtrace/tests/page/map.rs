//! The picture of the regions, in a browser.

use super::{browser::Browser, made_up::LOCATED};

const MAP: &str = "[data-draw=map] svg.drawing";

pub(super) fn zooms_down_to_pages_and_back(browser: &Browser) {
    let pages = || browser.run("return document.querySelectorAll('[data-draw=map] .page').length");
    let shown =
        || browser.run("return document.querySelector('[data-draw=map] output').textContent");
    assert_eq!(pages(), 0);
    let whole = shown();
    assert!(whole.as_str().is_some_and(|text| text.contains("mapped in")), "{whole}");
    for _ in 0..30 {
        browser.click("[data-draw=map] button[data-key='+']");
    }
    assert!(pages().as_u64().is_some_and(|pages| (2..=5).contains(&pages)), "{}", pages());
    assert!(shown().as_str().is_some_and(|text| text.contains("16.0 KiB of")), "{}", shown());
    browser.press(MAP, "\u{e014}");
    assert!(pages().as_u64().is_some_and(|pages| pages >= 2), "{}", pages());
    browser.press(MAP, "\u{e011}");
    assert_eq!(pages(), 0);
    assert_eq!(shown(), whole);
    // From the table into the map.
    browser.click("table.map-table tbody tr:last-child td button");
    let start =
        browser.run("return document.querySelector('table.map-table tr.chosen td').textContent");
    let told = shown();
    let (start, told) = (start.as_str().expect("an address"), told.as_str().expect("words"));
    assert!(told.starts_with(start), "{start}: {told}");
}

/// Its row in the table of regions, and its pages.
const ROW: &str = "table.map-table tbody tr:nth-child(2) td button";
const PAGES: u64 = 512;

fn shown(browser: &Browser) -> String {
    let text = browser.run("return document.querySelector('[data-draw=map] output').textContent");
    text.as_str().expect("words").to_owned()
}

/// Returns what is said of pages, when one points at them while their region is shown.
fn pointed_at(browser: &Browser, pages: &[u64]) -> Vec<String> {
    let script = format!(
        "const svg = document.querySelector(`{MAP}`), box = svg.getBoundingClientRect();
         return {pages:?}.map(page => {{
           // 3 % are left on both sides.
           const clientX = box.left + box.width * (0.03 + (page + 0.5) / {PAGES}) / 1.06;
           svg.dispatchEvent(new PointerEvent('pointermove', {{ clientX, clientY: box.top + 50 }}));
           return document.querySelector('[data-draw=map] output').textContent;
         }})"
    );
    serde_json::from_value(browser.run(&script)).expect("words")
}

/// Returns class, first pixel, width and height of what is drawn of cells in the map, not the overview.
fn drawn(browser: &Browser) -> Vec<(String, f64, f64, f64)> {
    let script = format!(
        "return [...document.querySelectorAll(`{MAP} .cells rect`)].filter(r => r.y.baseVal.value < 128)
         .map(r => [r.className.baseVal, r.x.baseVal.value, r.width.baseVal.value, r.height.baseVal.value])"
    );
    serde_json::from_value(browser.run(&script)).expect("rectangles")
}

pub(super) fn shows_single_pages(browser: &Browser) {
    browser.click(ROW);
    let pages = [0, 99, 100, 101, 199, 200, 299, 300, PAGES - 1];
    let found = pointed_at(browser, &pages);
    let words = [
        "live",
        "live",
        "live 2.0 KiB, free 2.0 KiB",
        "free",
        "free",
        "in swap",
        "in swap",
        "no frame",
        "no frame",
    ];
    for ((page, words), found) in pages.into_iter().zip(words).zip(found) {
        let wanted =
            format!("{:#x} page: {words} · in {LOCATED:#x} anon rw-p", LOCATED + page * 4096);
        assert!(found.starts_with(&wanted), "{wanted}: {found}");
    }
    // Equal neighbours are one rectangle; the half free page is two.
    let drawn = drawn(browser);
    let classes: Vec<&str> = drawn.iter().map(|(class, ..)| class.as_str()).collect();
    assert_eq!(classes, ["c-live", "c-live", "c-free", "c-free", "c-swapped"], "{drawn:?}");
    let page = drawn[0].2 / 100.0;
    for ((_, x, width, height), (first, count, tall)) in drawn.iter().zip([
        (0.0, 100.0, 110.0),
        (100.0, 1.0, 55.0),
        (100.0, 1.0, 55.0),
        (101.0, 99.0, 110.0),
        (200.0, 100.0, 110.0),
    ]) {
        let wanted = (drawn[0].1 + first * page, count * page, tall);
        let differs = (x - wanted.0).abs() + (width - wanted.1).abs() + (height - wanted.2).abs();
        assert!(differs < 0.1, "{x} {width} {height}: {wanted:?}");
    }
}

pub(super) fn keys_go_from_page_to_page(browser: &Browser) {
    browser.click(ROW);
    browser.press(MAP, ">");
    assert!(shown(browser).starts_with(&format!("{LOCATED:#x} page: live")), "{}", shown(browser));
    browser.press(MAP, ">");
    let second = format!("{:#x} page: live", LOCATED + 4096);
    assert!(shown(browser).starts_with(&second), "{}", shown(browser));
    browser.press(MAP, "<");
    browser.press(MAP, ">");
    // Of the region that is shown, the page.
    browser.press(MAP, "\u{e007}");
    let lines = browser.run("return document.querySelectorAll('[data-draw=map] .page').length");
    assert!(lines.as_u64().is_some_and(|lines| (8..=18).contains(&lines)), "{lines}");
    assert!(shown(browser).starts_with(&second), "{}", shown(browser));
    // It goes on behind what is shown, and keys zoom to what is picked.
    for _ in 0..99 {
        browser.press(MAP, ">");
    }
    let half = format!("{:#x} page: live 2.0 KiB, free 2.0 KiB", LOCATED + 100 * 4096);
    assert!(shown(browser).starts_with(&half), "{}", shown(browser));
    for _ in 0..4 {
        browser.press(MAP, "+");
    }
    let drawn = drawn(browser);
    let halves = drawn.iter().filter(|(.., height)| (height - 55.0).abs() < 0.1);
    assert_eq!(halves.count(), 2, "{drawn:?}");
    // Before the first page is the region before.
    browser.click(ROW);
    browser.press(MAP, ">");
    browser.press(MAP, "<");
    let before = shown(browser);
    assert!(
        !before.contains(" page: ") && !before.starts_with(&format!("{LOCATED:#x}")),
        "{before}"
    );
}

pub(super) fn says_what_it_does_not_know(browser: &Browser) {
    let note = browser.run("return document.querySelector('[data-draw=map] p.note').textContent");
    let note = note.as_str().expect("words");
    for said in [
        "Where their pages lie is not told of 23 regions, which are filled evenly.",
        "1 regions changed while they were looked at",
        "100.0 KiB are in swap of which is not told where.",
    ] {
        assert!(note.contains(said), "{said}: {note}");
    }
    let legend = browser.run("return document.querySelector('[data-draw=map] .keys').textContent");
    assert!(legend.as_str().is_some_and(|keys| keys.contains("in swap")), "{legend}");
    let moved = browser.run(
        "const row = [...document.querySelectorAll('table.map-table tbody tr')]
           .find(row => row.cells[0].textContent === '0x7f1202000000');
         row.querySelector('button').click();
         return document.querySelector('[data-draw=map] output').textContent",
    );
    let moved = moved.as_str().expect("words");
    assert!(
        moved.contains("changed meanwhile: its pages are 240.0 KiB resident, 0 B free"),
        "{moved}"
    );
}

/// The heap has cells of 32 pages, more than there are pixels; lazily free pages are somewhere in it.
pub(super) fn draws_in_proportion(browser: &Browser) {
    browser.click("table.map-table tbody tr:nth-child(1) td button");
    let found = drawn(browser);
    let classes: Vec<&str> = found.iter().map(|(class, ..)| class.as_str()).collect();
    assert_eq!(classes[..2], ["c-free", "c-other"], "{found:?}");
    assert!((found[0].3 - 27.5).abs() < 0.1 && (found[1].3 - 82.5).abs() < 0.1, "{found:?}");
    browser.press(MAP, ">");
    let piece = "0x555555750000 and 256.0 KiB: free 64.0 KiB, resident 192.0 KiB · in ";
    assert!(shown(browser).starts_with(piece), "{}", shown(browser));
    // A region that is a few pixels wide: each of these holds many pages.
    browser.press(MAP, "\u{e011}");
    let sums = browser.run(&format!(
        "return [...document.querySelectorAll(`{MAP} .cells rect`)].filter(r => r.y.baseVal.value < 128)
         .reduce((sums, r) => {{
            const name = r.className.baseVal;
            sums[name] = (sums[name] ?? 0) + r.width.baseVal.value * r.height.baseVal.value;
            return sums;
         }}, {{}})"
    ));
    let share = |name: &str| sums[name].as_f64().expect("an area");
    let ratio = share("c-swapped") / share("c-live");
    assert!((0.6..1.4).contains(&ratio), "400 KiB in swap beside 402 KiB in use: {sums}");
}
