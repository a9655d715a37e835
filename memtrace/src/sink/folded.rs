//! Call stacks as one line each, for flame graphs: frames from the outermost to the innermost with `;`
//! between them, a space, and bytes.

use std::collections::BTreeMap;

use super::printable;
use crate::model::report::{Frame, ProcessReport, ProcessStacks, Stacks};

/// Returns all call stacks of all processes. What is retained and what was freed are two towers of
/// each process.
pub fn render(stacks: &Stacks, processes: &[ProcessReport]) -> String {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for ProcessStacks { tgid, retained_by, freed_by, .. } in &stacks.processes {
        let root = root(*tgid, processes);
        let mut add = |tower: &str, frames: &[Frame], bytes: u64| {
            let names = frames.iter().rev().map(|frame| plain(&name(frame)));
            let line = [root.clone(), tower.to_owned()].into_iter().chain(names);
            let sum = lines.entry(line.collect::<Vec<_>>().join(";")).or_default();
            *sum = sum.saturating_add(bytes);
        };
        for row in retained_by {
            add("[retained]", &row.frames, row.bytes);
        }
        for row in freed_by {
            let resident = row.resident_estimate.unwrap_or(0).min(row.bytes);
            for (tower, bytes) in
                [("[freed]", row.bytes - resident), ("[freed, perhaps resident]", resident)]
            {
                if bytes > 0 {
                    add(tower, &row.frames, bytes);
                }
            }
        }
    }
    lines.iter().map(|(line, bytes)| format!("{line} {bytes}\n")).collect()
}

/// Which bytes of a call stack are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Allocated and not freed, by who allocated.
    Retained,
    /// Freed, by who freed.
    Freed,
    /// Freed, and resident at most: by who freed.
    FreedResident,
}

impl Measure {
    /// Returns what it is called in a title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Retained => "allocated and not freed, by who allocated",
            Self::Freed => "freed, by who freed",
            Self::FreedResident => "freed and at most still resident, by who freed",
        }
    }

    /// Tells whether it was measured: what is resident of a process that exited is not.
    pub const fn is_known(self, process: &ProcessStacks) -> bool {
        match self {
            Self::Retained | Self::Freed => true,
            Self::FreedResident => process.freed_resident_estimate.is_some(),
        }
    }
}

/// Returns one measure of all processes: a tower for each process.
pub fn by_measure(stacks: &Stacks, processes: &[ProcessReport], measure: Measure) -> String {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for process in &stacks.processes {
        let root = root(process.tgid, processes);
        let retained = process.retained_by.iter().map(|row| (row.bytes, &row.frames));
        let freed = process.freed_by.iter().map(|row| (row.bytes, &row.frames));
        let resident =
            process.freed_by.iter().map(|row| (row.resident_estimate.unwrap_or(0), &row.frames));
        let rows: Vec<(u64, &Vec<Frame>)> = match measure {
            Measure::Retained => retained.collect(),
            Measure::Freed => freed.collect(),
            Measure::FreedResident => resident.collect(),
        };
        for (bytes, frames) in rows.into_iter().filter(|(bytes, _)| *bytes > 0) {
            let names = frames.iter().rev().map(|frame| plain(&name(frame)));
            let line: Vec<String> = std::iter::once(root.clone()).chain(names).collect();
            let sum = lines.entry(line.join(";")).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
    lines.iter().map(|(line, bytes)| format!("{line} {bytes}\n")).collect()
}

/// Returns the lowest frame of a process.
fn root(tgid: u32, processes: &[ProcessReport]) -> String {
    let process = processes.iter().find(|process| process.tgid == tgid);
    let comm = process.map_or("", |process| process.comm.as_str());
    plain(&format!("{comm} (pid {tgid})"))
}

/// Returns what a frame is called: its function, or where it lies.
pub fn name(Frame { function, file, offset }: &Frame) -> String {
    match (function, file) {
        (Some(function), _) => function.clone(),
        (None, Some(file)) => {
            format!("{}+{offset}", file.rsplit('/').next().unwrap_or(file))
        }
        (None, None) => offset.clone(),
    }
}

/// Returns a name that cannot end its frame or its line, make it a comment, nor add a number to it.
fn plain(name: &str) -> String {
    let name = printable(name).replace(';', ":");
    let name = match name.strip_prefix('#') {
        Some(rest) => format!("\\u{{23}}{rest}"),
        None => name,
    };
    match name.rsplit_once(' ') {
        Some((start, end)) if !end.contains(|c: char| !c.is_ascii_digit() && c != '.') => {
            format!("{start}_{end}")
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::{FreedBy, RetainedBy};

    fn frames(functions: &[&str]) -> Vec<Frame> {
        let frame = |function: &&str| Frame {
            function: (!function.is_empty()).then(|| (*function).to_owned()),
            file: Some("/usr/lib/libx.so".into()),
            offset: "0x10".into(),
        };
        functions.iter().map(frame).collect()
    }

    #[test]
    fn one_measure_is_what_the_report_sums() {
        let freed = |bytes, resident, functions: &[&str]| FreedBy {
            bytes,
            resident_estimate: Some(resident),
            samples: 1,
            frames: frames(functions),
        };
        let retained =
            |bytes, functions: &[&str]| RetainedBy { bytes, samples: 1, frames: frames(functions) };
        let process = ProcessStacks {
            tgid: 42,
            retained: 110,
            freed: 57,
            freed_resident_estimate: Some(20),
            retained_by: vec![
                retained(100, &["f", "main"]),
                retained(10, &["# f 5", "g 1.5", "#"]),
            ],
            freed_by: vec![freed(50, 20, &["drop"]), freed(7, 0, &[])],
        };
        let stacks = Stacks { processes: vec![process.clone()], ..Stacks::default() };
        let report = ProcessReport { tgid: 42, comm: "# x;".into(), ..ProcessReport::default() };
        let lines = |measure| by_measure(&stacks, std::slice::from_ref(&report), measure);
        let sum = |measure| -> u64 {
            let numbers = lines(measure);
            let numbers = numbers.lines().map(|line| line.rsplit_once(' ').expect("a number").1);
            numbers.map(|number| number.parse::<u64>().expect("a number")).sum()
        };
        assert_eq!(sum(Measure::Retained), process.retained);
        assert_eq!(sum(Measure::Freed), process.freed);
        assert_eq!(Some(sum(Measure::FreedResident)), process.freed_resident_estimate);
        insta::assert_snapshot!(lines(Measure::Retained), @r"
        \u{23} x: (pid 42);\u{23};g_1.5;\u{23} f_5 10
        \u{23} x: (pid 42);main;f 100
        ");
        insta::assert_snapshot!(lines(Measure::FreedResident), @r"\u{23} x: (pid 42);drop 20");
        let exited = ProcessStacks::default();
        assert!(Measure::Freed.is_known(&exited) && !Measure::FreedResident.is_known(&exited));
    }

    #[test]
    fn a_stack_is_a_line_from_the_outermost_frame_to_the_innermost() {
        let retained =
            |functions: &[&str], bytes| RetainedBy { bytes, samples: 1, frames: frames(functions) };
        let process = ProcessStacks {
            tgid: 42,
            retained_by: vec![
                retained(&["inner", "", "main"], 100),
                retained(&["a;b\n"], 7),
                retained(&["a;b\n"], 3),
                retained(&[], 1),
            ],
            freed_by: vec![FreedBy {
                bytes: 50,
                resident_estimate: Some(20),
                samples: 1,
                frames: frames(&["drop"]),
            }],
            ..ProcessStacks::default()
        };
        let stacks = Stacks { processes: vec![process], ..Stacks::default() };
        let report = ProcessReport { tgid: 42, comm: "x".into(), ..ProcessReport::default() };
        insta::assert_snapshot!(render(&stacks, &[report]), @r"
        x (pid 42);[freed, perhaps resident];drop 20
        x (pid 42);[freed];drop 30
        x (pid 42);[retained] 1
        x (pid 42);[retained];a:b\n 10
        x (pid 42);[retained];main;libx.so+0x10;inner 100
        ");
    }
}
