//! The report as one page: the answer first, then the figures, then pictures of them.
//!
//! Everything that is a figure is in the HTML. Scripts draw pictures from the JSON report, the history
//! and the cells of the regions that the page carries, and sort tables; nothing is loaded from anywhere.

mod about;
mod cells;
mod escape;
mod process;
mod stacks;
mod table;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use self::table::{Cell, Column, table};
use super::words::{given_back, origin, warnings, was_traced};
use crate::model::{
    history::{History, Lifeline},
    report::{ProcessReport, Report},
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(
    "'use strict';(()=>{\n",
    include_str!("common.js"),
    include_str!("view.js"),
    include_str!("time.js"),
    include_str!("cells.js"),
    include_str!("map.js"),
    include_str!("page.js"),
    "})();\n"
);

/// Processes whose sections are open; with more of them a table comes first.
const OPEN: usize = 4;
/// Processes that have a section. The JSON report has all.
const SECTIONS: usize = 64;

/// Returns the report as a page that needs nothing else. Without a `history` it has no pictures of time.
pub fn render(report: &Report, history: Option<&History>) -> String {
    let title = title(report);
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text.as_bytes()));
    let (style_hash, script_hash) = (hash(STYLE), hash(SCRIPT));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; base-uri 'none'; \
         form-action 'none'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{PATTERNS}\
         <header><p class=\"brand\">memtrace report</p></header>\n<main>\n"
    );
    let shown = body(&mut page, report, history);
    page.push_str("</main>\n");
    data(&mut page, "report", report);
    data(&mut page, "history", &Lifelines::of(report, history));
    data(&mut page, "cells", &cells::of(report, &shown));
    page.push_str(&format!("<script>{SCRIPT}</script>\n</body>\n</html>\n"));
    page
}

/// Returns which processes have a section.
fn body(page: &mut String, report: &Report, history: Option<&History>) -> Vec<usize> {
    for warning in warnings(&report.window) {
        let warning = escape::sentence(&warning);
        page.push_str(&format!("<p class=\"warning\"><strong>Note</strong> {warning}</p>\n"));
    }
    let mut processes: Vec<(usize, &ProcessReport)> = report.processes.iter().enumerate().collect();
    if processes.is_empty() {
        page.push_str("<p class=\"lead\">no process was traced</p>\n");
    }
    let many = processes.len() > OPEN;
    if many {
        let bytes = |process: &ProcessReport| {
            let resident = process.memory.resident.unwrap_or(0);
            if was_traced(&report.window) {
                resident.saturating_add(given_back(process).unwrap_or(0))
            } else {
                process.memory.freed_not_reclaimed.total.unwrap_or(0)
            }
        };
        processes.sort_by_key(|(_, process)| Reverse((bytes(process), process.memory.resident)));
        overview(page, report, &processes);
    }
    let told = processes.len().min(SECTIONS);
    for (place, &(index, process)) in processes[..told].iter().enumerate() {
        let lifeline = history.and_then(|history| lifeline(report, history, index));
        let placed = process::Placed { report, index, lifeline, has_history: history.is_some() };
        if many {
            let open = if place < OPEN { " open" } else { "" };
            let who = escape::text(&who(process));
            page.push_str(&format!(
                "<details class=\"process\" id=\"p{index}\"{open}><summary><h2>{who}</h2></summary>\n"
            ));
            process::render(page, process, &placed);
            page.push_str("</details>\n");
        } else {
            page.push_str(&format!("<section class=\"process\" id=\"p{index}\">\n"));
            page.push_str(&format!("<h1>{}</h1>\n", escape::text(&who(process))));
            process::render(page, process, &placed);
            page.push_str("</section>\n");
        }
    }
    if processes.len() > told {
        let more = processes.len() - told;
        page.push_str(&format!("<p>… and {more} more, which the table above lists.</p>\n"));
    }
    if let Some(stacks) = &report.stacks {
        stacks::render(page, stacks, &report.processes);
    }
    about::render(page, report);
    page.push_str(&format!("<footer><p>{}</p></footer>\n", escape::sentence(&origin(report))));
    processes[..told].iter().map(|&(index, _)| index).collect()
}

/// Adds a line for each of many processes.
fn overview(page: &mut String, report: &Report, processes: &[(usize, &ProcessReport)]) {
    page.push_str(&format!("<h1>{} processes</h1>\n", processes.len()));
    /// Its place in this table, its place in the report, and itself.
    type Row<'a> = (usize, usize, &'a ProcessReport);
    let link = |&(place, index, process): &Row<'_>| match place {
        0..SECTIONS => {
            let name = escape::text(&process.comm);
            Cell::Html(format!("<a href=\"#p{index}\">{name}</a>"))
        }
        _ => Cell::Text(process.comm.clone()),
    };
    let mut columns: Vec<Column<'_, Row<'_>>> = vec![
        Column::figure("pid", "tgid", |(_, _, p): &Row<'_>| Cell::Id(p.tgid.into())),
        Column::words("name", link),
        Column::words("state", |(_, _, p): &Row<'_>| Cell::Text(p.state.to_owned())),
        Column::figure("resident", "memory/resident", |(_, _, p): &Row<'_>| {
            Cell::Size(p.memory.resident)
        }),
        Column::figure("live", "memory/live", |(_, _, p): &Row<'_>| Cell::Size(p.memory.live)),
        Column::figure("free", "memory/freed_not_reclaimed/allocator", |(_, _, p): &Row<'_>| {
            Cell::Size(p.memory.freed_not_reclaimed.allocator)
        }),
        Column::figure(
            "lazy free",
            "memory/freed_not_reclaimed/lazy_free",
            |(_, _, p): &Row<'_>| Cell::Size(p.memory.freed_not_reclaimed.lazy_free),
        ),
    ];
    if was_traced(&report.window) {
        columns.push(Column::figure("reclaimed", "reclaimed/total", |(_, _, p): &Row<'_>| {
            Cell::Size(p.reclaimed.total)
        }));
    }
    let rows = processes
        .iter()
        .enumerate()
        .map(|(place, &(index, process))| (format!("/processes/{index}"), (place, index, process)));
    table(page, "Processes", "overview", &columns, rows);
}

/// Returns who a process is.
fn who(process: &ProcessReport) -> String {
    match process.tgid {
        0 => "a process".to_owned(),
        tgid => format!("{} (pid {tgid})", process.comm),
    }
}

fn title(report: &Report) -> String {
    let of = match report.processes.as_slice() {
        [process] => escape::text(&who(process)),
        processes => format!("{} processes", processes.len()),
    };
    format!("memtrace: {of}")
}

fn data(page: &mut String, id: &str, document: &impl Serialize) {
    let json = escape::data(document);
    page.push_str(&format!("<script type=\"application/json\" id=\"{id}\">{json}</script>\n"));
}

/// What each process of a report did over time, in the order of the report.
#[derive(Serialize)]
struct Lifelines<'a>(Vec<Option<&'a Lifeline>>);

impl<'a> Lifelines<'a> {
    fn of(report: &Report, history: Option<&'a History>) -> Self {
        let of = |index| history.and_then(|history| lifeline(report, history, index));
        Self((0..report.processes.len()).map(of).collect())
    }
}

/// Returns what the process at `index` did. Of several that had the same number one after the other,
/// each has its own.
fn lifeline<'a>(report: &Report, history: &'a History, index: usize) -> Option<&'a Lifeline> {
    let tgid = report.processes[index].tgid;
    let before = report.processes[..index].iter().filter(|process| process.tgid == tgid).count();
    history.processes().iter().filter(|lifeline| lifeline.tgid == tgid).nth(before)
}

/// How classes of memory are told apart without colour.
const PATTERNS: &str = include_str!("patterns.svg");
