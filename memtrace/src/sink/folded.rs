//! Call stacks as one line each, for flame graphs: frames from the outermost to the innermost with `;`
//! between them, a space, and bytes; or page faults.

use std::collections::BTreeMap;

use super::printable;
use crate::model::report::{Frame, ProcessReport, ProcessStacks, ReclaimedBy, StackKind, Stacks};

/// Returns all call stacks of all processes. What is retained, what was freed, what was given up by
/// each path and page faults, which are no bytes, are towers of each process.
pub fn render(stacks: &Stacks, processes: &[ProcessReport]) -> String {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for process in &stacks.processes {
        let ProcessStacks { tgid, retained_by, freed_by, reclaimed_by, faulted_by, .. } = process;
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
        for row in reclaimed_by.iter().flatten().filter(|row| row.bytes() > 0) {
            add(&format!("[given up by {}]", row.path), &row.frames, row.bytes());
        }
        for row in faulted_by.iter().flatten() {
            add("[page faults]", &row.frames, row.faults);
        }
    }
    lines.iter().map(|(line, bytes)| format!("{line} {bytes}\n")).collect()
}

/// Which figure of a call stack is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Allocated and not freed, by who allocated.
    Retained,
    /// Freed, by who freed.
    Freed,
    /// Freed, and resident at most: by who freed.
    FreedResident,
    /// Given up, by who did: what came back, or, where that was not counted, what was detached. What
    /// has no call stack, such as what came back at exit, is a tower of its own.
    Reclaimed,
    /// Page faults, by who had them: their number.
    Faults,
}

impl Measure {
    /// Returns what is shown of call stacks when nobody says what.
    pub fn of(stacks: &Stacks) -> Self {
        match stacks.kinds.first() {
            Some(StackKind::Allocations) | None => Self::Retained,
            Some(StackKind::Reclaimed) => Self::Reclaimed,
            Some(StackKind::Faults) => Self::Faults,
        }
    }

    /// Returns whose call stacks it needs.
    pub const fn kind(self) -> StackKind {
        match self {
            Self::Retained | Self::Freed | Self::FreedResident => StackKind::Allocations,
            Self::Reclaimed => StackKind::Reclaimed,
            Self::Faults => StackKind::Faults,
        }
    }

    /// Returns what that is called on the command line.
    pub const fn kind_name(self) -> &'static str {
        match self.kind() {
            StackKind::Allocations => "allocations",
            StackKind::Reclaimed => "reclaimed",
            StackKind::Faults => "faults",
        }
    }

    /// Returns what those do.
    pub const fn who(self) -> &'static str {
        match self.kind() {
            StackKind::Allocations => "allocates and frees",
            StackKind::Reclaimed => "gives pages up",
            StackKind::Faults => "has page faults",
        }
    }

    /// Returns what it is called in a title; whether frames were counted matters to what was given up.
    pub const fn title(self, counts_frames: bool) -> &'static str {
        match self {
            Self::Retained => "Bytes allocated and not freed, by who allocated",
            Self::Freed => "Bytes freed, by who freed",
            Self::FreedResident => "Bytes freed and at most still resident, by who freed",
            Self::Reclaimed if counts_frames => "Bytes given back, by who gave them up",
            Self::Reclaimed => "Bytes detached (what came back was not counted), by who did",
            Self::Faults => "Page faults, by who had them",
        }
    }

    /// Returns what is counted.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Retained | Self::Freed | Self::FreedResident | Self::Reclaimed => "bytes",
            Self::Faults => "faults",
        }
    }

    /// Tells whether it was measured: what is resident of a process that exited is not.
    pub const fn is_known(self, process: &ProcessStacks) -> bool {
        match self {
            Self::Retained | Self::Freed | Self::Reclaimed | Self::Faults => true,
            // Of a child nothing was sampled.
            Self::FreedResident => {
                process.freed.is_none() || process.freed_resident_estimate.is_some()
            }
        }
    }
}

/// Returns one measure of all processes: a tower for each process. What was given up has its path on
/// top of each stack, and adds up to what the report tells of the processes.
pub fn by_measure(stacks: &Stacks, processes: &[ProcessReport], measure: Measure) -> String {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for process in &stacks.processes {
        let root = root(process.tgid, processes);
        let retained = process.retained_by.iter().map(|row| (row.bytes, &row.frames));
        let freed = process.freed_by.iter().map(|row| (row.bytes, &row.frames));
        let resident =
            process.freed_by.iter().map(|row| (row.resident_estimate.unwrap_or(0), &row.frames));
        let faults = process.faulted_by.iter().flatten().map(|row| (row.faults, &row.frames));
        let rows: Vec<(u64, &Vec<Frame>)> = match measure {
            Measure::Retained => retained.collect(),
            Measure::Freed => freed.collect(),
            Measure::FreedResident => resident.collect(),
            Measure::Faults => faults.collect(),
            Measure::Reclaimed => Vec::new(),
        };
        let mut add = |bytes: u64, frames: &mut dyn Iterator<Item = String>| {
            let line: Vec<String> = std::iter::once(root.clone()).chain(frames).collect();
            let sum = lines.entry(line.join(";")).or_default();
            *sum = sum.saturating_add(bytes);
        };
        let names = |frames: &[Frame]| -> Vec<String> {
            frames.iter().rev().map(|frame| plain(&name(frame))).collect()
        };
        for (bytes, frames) in rows.into_iter().filter(|(bytes, _)| *bytes > 0) {
            add(bytes, &mut names(frames).into_iter());
        }
        if measure == Measure::Reclaimed {
            for row in process.reclaimed_by.iter().flatten().filter(|row| row.bytes() > 0) {
                let path = format!("[{}]", row.path);
                add(row.bytes(), &mut names(&row.frames).into_iter().chain([path]));
            }
        }
    }
    if measure == Measure::Reclaimed {
        for process in processes {
            for (path, bytes) in without_stack(stacks, process) {
                let line = format!("{};[no call stack];[{path}]", root(process.tgid, processes));
                let sum = lines.entry(line).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
    }
    lines.iter().map(|(line, bytes)| format!("{line} {bytes}\n")).collect()
}

/// Returns what left a process by each path and is no call stack's: what came back late, at exit and
/// exec, under memory pressure, or was given up by another process or thread of the kernel; and what
/// found no room. Together with the call stacks it is all that the report tells of the path.
pub fn without_stack<'a>(
    stacks: &'a Stacks,
    process: &'a ProcessReport,
) -> impl Iterator<Item = (&'static str, u64)> + 'a {
    let mut rows = stacks.processes.iter();
    let rows = rows.find(|known| known.tgid == process.tgid).and_then(|p| p.reclaimed_by.as_ref());
    process.reclaimed.by_path.iter().filter_map(move |(&path, left)| {
        let all = left.freed.or(left.zapped).unwrap_or(0);
        let told = rows.into_iter().flatten().filter(|row| row.path == path);
        let rest = told.map(ReclaimedBy::bytes).fold(all, u64::saturating_sub);
        (rest > 0).then_some((path, rest))
    })
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
    use crate::model::report::{FaultedBy, FreedBy, PathReport, Reclaimed, RetainedBy};

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
            retained: Some(110),
            freed: Some(57),
            freed_resident_estimate: Some(20),
            retained_by: vec![
                retained(100, &["f", "main"]),
                retained(10, &["# f 5", "g 1.5", "#"]),
            ],
            freed_by: vec![freed(50, 20, &["drop"]), freed(7, 0, &[])],
            ..ProcessStacks::default()
        };
        let stacks = Stacks { processes: vec![process.clone()], ..Stacks::default() };
        let report = ProcessReport { tgid: 42, comm: "# x;".into(), ..ProcessReport::default() };
        let lines = |measure| by_measure(&stacks, std::slice::from_ref(&report), measure);
        let sum = |measure| -> u64 {
            let numbers = lines(measure);
            let numbers = numbers.lines().map(|line| line.rsplit_once(' ').expect("a number").1);
            numbers.map(|number| number.parse::<u64>().expect("a number")).sum()
        };
        assert_eq!(Some(sum(Measure::Retained)), process.retained);
        assert_eq!(Some(sum(Measure::Freed)), process.freed);
        assert_eq!(Some(sum(Measure::FreedResident)), process.freed_resident_estimate);
        insta::assert_snapshot!(lines(Measure::Retained), @r"
        \u{23} x: (pid 42);\u{23};g_1.5;\u{23} f_5 10
        \u{23} x: (pid 42);main;f 100
        ");
        insta::assert_snapshot!(lines(Measure::FreedResident), @r"\u{23} x: (pid 42);drop 20");
        let exited = ProcessStacks { freed: Some(0), ..ProcessStacks::default() };
        assert!(Measure::Freed.is_known(&exited) && !Measure::FreedResident.is_known(&exited));
    }

    /// One process that gave up 100 and 20 bytes in calls, of which 60 and 20 came back.
    fn gave_up(freed: impl Fn(u64) -> Option<u64>) -> (Stacks, ProcessReport) {
        let row = |path: &str, zapped, back, functions: &[&str]| ReclaimedBy {
            path: path.into(),
            calls: 1,
            zapped,
            freed: freed(back),
            frames: frames(functions),
        };
        let process = ProcessStacks {
            tgid: 42,
            reclaimed_by: Some(vec![
                row("munmap", 100, 60, &["munmap", "drops", "main"]),
                row("dont_need", 20, 20, &["madvise", "drops", "main"]),
                row("munmap", 5, 0, &[]),
            ]),
            faulted_by: Some(vec![
                FaultedBy { faults: 7, frames: frames(&["touch", "main"]) },
                FaultedBy { faults: 1, frames: vec![] },
            ]),
            ..ProcessStacks::default()
        };
        let left = |zapped, back| PathReport {
            zapped: Some(zapped),
            freed: freed(back),
            ..PathReport::default()
        };
        let by_path =
            [("munmap", left(105, 70)), ("dont_need", left(20, 20)), ("exit", left(9, 3))];
        let reclaimed = Reclaimed { by_path: by_path.into(), ..Reclaimed::default() };
        let report =
            ProcessReport { tgid: 42, comm: "x".into(), reclaimed, ..ProcessReport::default() };
        (Stacks { processes: vec![process], ..Stacks::default() }, report)
    }

    #[test]
    fn what_was_given_up_adds_up_to_what_the_report_tells_of_its_paths() {
        let (stacks, report) = gave_up(Some);
        insta::assert_snapshot!(by_measure(&stacks, &[report], Measure::Reclaimed), @r"
        x (pid 42);[no call stack];[exit] 3
        x (pid 42);[no call stack];[munmap] 10
        x (pid 42);main;drops;madvise;[dont_need] 20
        x (pid 42);main;drops;munmap;[munmap] 60
        ");
        // Where frames were not counted: what was detached.
        let (stacks, report) = gave_up(|_| None);
        insta::assert_snapshot!(by_measure(&stacks, &[report], Measure::Reclaimed), @r"
        x (pid 42);[munmap] 5
        x (pid 42);[no call stack];[exit] 9
        x (pid 42);main;drops;madvise;[dont_need] 20
        x (pid 42);main;drops;munmap;[munmap] 100
        ");
    }

    #[test]
    fn faults_are_counted_by_who_had_them() {
        let (stacks, report) = gave_up(Some);
        insta::assert_snapshot!(by_measure(&stacks, std::slice::from_ref(&report), Measure::Faults), @r"
        x (pid 42) 1
        x (pid 42);main;touch 7
        ");
        insta::assert_snapshot!(render(&stacks, &[report]), @r"
        x (pid 42);[given up by dont_need];main;drops;madvise 20
        x (pid 42);[given up by munmap];main;drops;munmap 60
        x (pid 42);[page faults] 1
        x (pid 42);[page faults];main;touch 7
        ");
    }

    #[test]
    fn what_is_shown_by_default_is_what_was_asked_for_first() {
        for (kinds, measure) in [
            (vec![], Measure::Retained),
            (vec![StackKind::Allocations, StackKind::Faults], Measure::Retained),
            (vec![StackKind::Reclaimed, StackKind::Allocations], Measure::Reclaimed),
            (vec![StackKind::Faults], Measure::Faults),
        ] {
            assert_eq!(Measure::of(&Stacks { kinds, ..Stacks::default() }), measure);
        }
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
