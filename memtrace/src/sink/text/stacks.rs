//! Who allocated what is not freed, and who freed; who gave pages up, and who faulted.

use super::{Style, layout::Ink};
use crate::{
    model::report::{
        FaultedBy, Frame, FreedBy, ProcessReport, ProcessStacks, ReclaimedBy, RetainedBy, Stacks,
    },
    sink::{
        folded, printable, size,
        words::{counted, gave_up, lost_samples, page_faults, sampled, still_resident},
    },
};

/// Call stacks that are shown of each kind that is sampled, and of each that is summed.
const STACKS: usize = 10;
const SUMS: usize = 5;
/// Frames that are shown of each.
const FRAMES: usize = 16;
/// Processes whose call stacks are shown.
const PROCESSES: usize = 4;

/// Adds what was sampled to `out`.
pub(super) fn render(out: &mut String, stacks: &Stacks, all: &[ProcessReport], style: Style) {
    if let Some(lost) = lost_samples(stacks) {
        style.paragraph(out, Some(Ink::Red), 4, &format!("incomplete: {lost}"));
    }
    // Where allocations are sampled the processes were named.
    let most = if stacks.sample_bytes.is_some() { usize::MAX } else { PROCESSES };
    for process in stacks.processes.iter().take(most) {
        let (who, what) = sampled(process, all);
        let every = match (stacks.sample_bytes, process.retained) {
            (Some(bytes), Some(_)) => format!("; one byte of {} was sampled", size(bytes)),
            _ => String::new(),
        };
        let text = format!("{who}, by call stacks: {what}{every}");
        style.paragraph(out, Some(Ink::Bold), 4, &text);
        let ProcessStacks { retained_by, freed_by, reclaimed_by, faulted_by, .. } = process;
        let bytes = |bytes| format!(", {}", size(bytes));
        let list = |title, most| List { title, most, unit: bytes };
        section(out, &list("allocated and not freed", STACKS), retained_by, style, retained_row);
        section(out, &list("freed", STACKS), freed_by, style, freed_row);
        let rows = reclaimed_by.as_deref().unwrap_or_default();
        section(out, &list("given up in calls", SUMS), rows, style, reclaimed_row);
        let rows = faulted_by.as_deref().unwrap_or_default();
        let count = |count| format!(", {}", page_faults(count));
        let list = List { title: "page faults", most: SUMS, unit: count };
        section(out, &list, rows, style, faulted_row);
        out.push('\n');
    }
    if let Some(more @ 1..) = stacks.processes.len().checked_sub(most) {
        out.push_str(&format!("  … and {more} more processes\n\n"));
    }
}

/// Which call stacks are listed, how many at most, and in what those are summed that are not.
struct List {
    title: &'static str,
    most: usize,
    unit: fn(u64) -> String,
}

fn section<T>(
    out: &mut String,
    &List { title, most, unit }: &List,
    rows: &[T],
    style: Style,
    row: fn(&T) -> (String, u64, &[Frame]),
) {
    if rows.is_empty() {
        return;
    }
    out.push_str(&format!("\n  {}\n", style.paint(Ink::Dim, title)));
    let (listed, more) = rows.split_at(rows.len().min(most));
    for (text, _, frames) in listed.iter().map(row) {
        out.push_str(&format!("  {text}\n"));
        stack(out, frames);
    }
    if !more.is_empty() {
        let sum = more.iter().map(|more| row(more).1).fold(0, u64::saturating_add);
        out.push_str(&format!("  … and {} more stacks{}\n", more.len(), unit(sum)));
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

fn reclaimed_row(row: &ReclaimedBy) -> (String, u64, &[Frame]) {
    let bytes = row.bytes();
    (format!("{:>10}  {}", size(bytes), gave_up(row)), bytes, &row.frames)
}

fn faulted_row(row: &FaultedBy) -> (String, u64, &[Frame]) {
    let FaultedBy { faults, frames } = row;
    (format!("{faults:>10}"), *faults, frames)
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
    use crate::model::report::StackKind;

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
            retained: Some(14 << 20),
            freed: Some(3 << 20),
            freed_resident_estimate: Some(1 << 20),
            retained_by,
            freed_by: vec![freed(2 << 20, Some(1 << 20), vec![]), freed(1 << 20, None, frames(1))],
            ..ProcessStacks::default()
        };
        let stacks = Stacks {
            sample_bytes: Some(1 << 19),
            samples: Some(9),
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

    #[test]
    fn who_gave_up_and_who_faulted_is_told_in_short() {
        let gave_up = |path: &str, calls, zapped: u64, freed| ReclaimedBy {
            path: path.into(),
            calls,
            zapped: zapped << 20,
            freed,
            frames: frames(1),
        };
        let faulted = |faults| FaultedBy { faults, frames: frames(1) };
        let process = ProcessStacks {
            tgid: 42,
            reclaimed_by: Some(vec![
                gave_up("munmap", 2, 3, Some(2 << 20)),
                gave_up("dont_need", 1, 1, Some(0)),
            ]),
            faulted_by: Some((1..8).rev().map(faulted).collect()),
            ..ProcessStacks::default()
        };
        let mut stacks = Stacks {
            kinds: vec![StackKind::Reclaimed, StackKind::Faults],
            lost_faults: 3,
            processes: vec![process; PROCESSES + 1],
            ..Stacks::default()
        };
        let report = ProcessReport { tgid: 42, comm: "x".into(), ..ProcessReport::default() };
        let style = Style { color: false, width: 100 };
        let mut out = String::new();
        render(&mut out, &stacks, std::slice::from_ref(&report), style);
        assert!(out.ends_with("  … and 1 more processes\n\n"), "{out}");
        stacks.processes.truncate(1);
        out.clear();
        render(&mut out, &stacks, &[report], style);
        insta::assert_snapshot!(out, @r"
        incomplete: 0 calls that gave pages up, 3 page faults and 0 call stacks found no room
        x (pid 42), by call stacks: 2.0 MiB given back in calls, of 4.0 MiB detached; 28 page faults

          given up in calls
             2.0 MiB  by munmap (2 calls, 3.0 MiB detached)
                      f0
                 0 B  by dont_need (1 call, 1.0 MiB detached)
                      f0

          page faults
                   7
                      f0
                   6
                      f0
                   5
                      f0
                   4
                      f0
                   3
                      f0
          … and 2 more stacks, 3 page faults
        ");
    }
}
