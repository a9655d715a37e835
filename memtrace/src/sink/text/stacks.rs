//! Who allocated what is not freed, and who freed.

use super::{Style, layout::Ink};
use crate::{
    model::report::{Frame, FreedBy, ProcessReport, ProcessStacks, RetainedBy, Stacks},
    sink::{
        folded, printable, size,
        words::{counted, lost_samples, sampled, still_resident},
    },
};

/// Call stacks that are shown of each kind.
const STACKS: usize = 10;
/// Frames that are shown of each.
const FRAMES: usize = 16;

/// Adds what was sampled to `out`.
pub(super) fn render(out: &mut String, stacks: &Stacks, all: &[ProcessReport], style: Style) {
    if let Some(lost) = lost_samples(stacks) {
        style.paragraph(out, Some(Ink::Red), 4, &format!("incomplete: {lost}"));
    }
    for process in &stacks.processes {
        let (who, what) = sampled(process, all);
        let every = size(stacks.sample_bytes);
        let text = format!("{who}, by call stacks: {what}; one byte of {every} was sampled");
        style.paragraph(out, Some(Ink::Bold), 4, &text);
        let ProcessStacks { retained_by, freed_by, .. } = process;
        section(out, "allocated and not freed", retained_by, style, retained_row);
        section(out, "freed", freed_by, style, freed_row);
        out.push('\n');
    }
}

fn section<T>(
    out: &mut String,
    title: &str,
    rows: &[T],
    style: Style,
    row: fn(&T) -> (String, u64, &[Frame]),
) {
    if rows.is_empty() {
        return;
    }
    out.push_str(&format!("\n  {}\n", style.paint(Ink::Dim, title)));
    let (listed, more) = rows.split_at(rows.len().min(STACKS));
    for (text, _, frames) in listed.iter().map(row) {
        out.push_str(&format!("  {text}\n"));
        stack(out, frames);
    }
    if !more.is_empty() {
        let bytes = more.iter().map(|more| row(more).1).fold(0, u64::saturating_add);
        out.push_str(&format!("  … and {} more stacks, {}\n", more.len(), size(bytes)));
    }
}

fn retained_row(row: &RetainedBy) -> (String, u64, &[Frame]) {
    let RetainedBy { bytes, samples, frames } = row;
    (format!("{:>10}  {}", size(*bytes), counted(*samples)), *bytes, frames)
}

fn freed_row(row: &FreedBy) -> (String, u64, &[Frame]) {
    let FreedBy { bytes, samples, frames, .. } = row;
    let resident = still_resident(row);
    (format!("{:>10}{resident}  {}", size(*bytes), counted(*samples)), *bytes, frames)
}

fn stack(out: &mut String, frames: &[Frame]) {
    if frames.is_empty() {
        out.push_str("              the call stack is not known\n");
    }
    for frame in frames.iter().take(FRAMES) {
        out.push_str(&format!("              {}\n", printable(&folded::name(frame))));
    }
    if frames.len() > FRAMES {
        out.push_str(&format!("              … and {} more\n", frames.len() - FRAMES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(count: usize) -> Vec<Frame> {
        let frame = |number| Frame {
            function: Some(format!("f{number}")),
            file: Some("/bin/x".into()),
            offset: format!("{number:#x}"),
        };
        (0..count).map(frame).collect()
    }

    #[test]
    fn the_largest_stacks_are_shown_with_what_they_rest_on() {
        let row = |bytes| RetainedBy { bytes, samples: bytes >> 19, frames: frames(2) };
        let mut retained_by: Vec<RetainedBy> = (1..=11).rev().map(|n| row(n << 20)).collect();
        retained_by.drain(1..9);
        retained_by[1].frames = frames(FRAMES + 1);
        let freed = |bytes, resident_estimate, frames| FreedBy {
            bytes,
            resident_estimate,
            samples: 1,
            frames,
        };
        let process = ProcessStacks {
            tgid: 42,
            retained: 14 << 20,
            freed: 3 << 20,
            freed_resident_estimate: Some(1 << 20),
            retained_by,
            freed_by: vec![freed(2 << 20, Some(1 << 20), vec![]), freed(1 << 20, None, frames(1))],
        };
        let stacks = Stacks {
            sample_bytes: 1 << 19,
            samples: 9,
            lost: 1,
            processes: vec![process],
            ..Stacks::default()
        };
        let report = ProcessReport { tgid: 42, comm: "x\n".into(), ..ProcessReport::default() };
        let mut out = String::new();
        render(&mut out, &stacks, &[report], Style { color: false, width: 100 });
        insta::assert_snapshot!(out, @r"
        incomplete: 1 of 9 samples and 0 call stacks found no room; sample less with a larger --sample-bytes
        x\n (pid 42), by call stacks: about 14.0 MiB allocated and not freed, 3.0 MiB freed, of which
            1.0 MiB at most may still be resident; one byte of 512.0 KiB was sampled

          allocated and not freed
            11.0 MiB  (22 samples)
                      f0
                      f1
             2.0 MiB  (4 samples)
                      f0
                      f1
                      f2
                      f3
                      f4
                      f5
                      f6
                      f7
                      f8
                      f9
                      f10
                      f11
                      f12
                      f13
                      f14
                      f15
                      … and 1 more
             1.0 MiB  (2 samples)
                      f0
                      f1

          freed
             2.0 MiB, at most 1.0 MiB still resident (estimate)  (1 sample)
                      the call stack is not known
             1.0 MiB  (1 sample)
                      f0
        ");
    }
}
