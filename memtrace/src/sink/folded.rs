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
        let process = processes.iter().find(|process| process.tgid == *tgid);
        let comm = process.map_or("", |process| process.comm.as_str());
        let root = plain(&format!("{comm} (pid {tgid})"));
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

/// Returns a name that cannot end its frame or its line.
fn plain(name: &str) -> String {
    printable(name).replace(';', ":")
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
