//! Figures that belong together, in one line.

use memtrace_common::Path;

use super::path;
use crate::{
    model::report::{
        AllocatorReport, Faults, LateDelay, MadvFree, ProcessReport, Remains, Remanence, Reuse,
        Swap, ZeroedByKind,
    },
    sink::{known, known_number, printable, size},
};

/// Returns what a process asked for.
pub(in crate::sink) fn asked_for(process: &ProcessReport) -> String {
    let mapped = &process.mapped;
    format!(
        "{} in {} {}; at most {} were mapped at once",
        known(mapped.requested),
        mapped.calls,
        if mapped.calls == 1 { "call" } else { "calls" },
        known(mapped.peak),
    )
}

/// Returns how late frames came back, if any did.
pub(in crate::sink) fn late(process: &ProcessReport) -> Option<String> {
    let LateDelay { p50_ns, p99_ns, max_ns } = process.reclaimed.late_delay?;
    let [half, most, longest] = [p50_ns, p99_ns, max_ns].map(time);
    Some(format!("half of the frames within {half}, 99 % within {most}, the last after {longest}"))
}

/// Returns what became of what was given up by `MADV_FREE`, if anything was.
pub(in crate::sink) fn madv_free(process: &ProcessReport) -> Option<String> {
    let MadvFree { now, used_again, taken } = process.madv_free;
    path(process, Path::Free)?;
    now.or(used_again).or(taken)?;
    let [now, again, taken] = [now, used_again, taken].map(known);
    Some(format!("{now} there for the taking, {again} in use again, {taken} taken"))
}

/// Returns what went to swap and came back, if anything did.
pub(in crate::sink) fn swap(process: &ProcessReport) -> Option<String> {
    let Swap { out: Some(out), r#in: Some(back) } = process.swap else { return None };
    (out.max(back) > 0).then(|| format!("{} out, {} back in", size(out), size(back)))
}

/// Returns the faults, and what they zeroed and copied.
pub(in crate::sink) fn faults(faults: &Faults) -> String {
    let Faults { minor, major, zeroed, ref zeroed_by_kind, copied } = *faults;
    let ZeroedByKind { anon, huge, shmem } = *zeroed_by_kind;
    let mut text = format!("{} minor, {} major", known_number(minor), known_number(major));
    let kinds = [(anon, "anon"), (huge, "huge"), (shmem, "shmem")];
    let kinds: Vec<String> = kinds
        .iter()
        .filter_map(|&(count, kind)| Some(format!("{} {kind}", count.filter(|&n| n > 0)?)))
        .collect();
    if !kinds.is_empty() || zeroed.is_some() {
        text += &format!("; frames zeroed {}", known_number(zeroed));
    }
    if !kinds.is_empty() {
        text += &format!(" ({})", kinds.join(", "));
    }
    if let Some(copied) = copied {
        text += &format!(", copied {copied}");
    }
    text
}

/// Returns what became of freed frames.
pub(in crate::sink) fn reuses(remanence: &Remanence) -> String {
    let &Remanence { freed, still_free, zeroed_for_others, ref to_itself, ref to_others } =
        remanence;
    let after = |&Reuse { frames, p50_ns, p99_ns, max_ns, .. }: &Reuse| {
        let [half, most, longest] = [p50_ns, p99_ns, max_ns].map(time);
        match frames {
            0 => String::new(),
            _ => format!(" (half within {half}, 99 % within {most}, the last after {longest})"),
        }
    };
    format!(
        "of {freed} freed frames it got {} again{}; others got {}{}, {zeroed_for_others} of them \
         zeroed; {still_free} nobody got yet",
        to_itself.frames,
        after(to_itself),
        to_others.frames,
        after(to_others),
    )
}

/// Returns a time in the largest unit that keeps it at 1 or more.
pub(in crate::sink) fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// Returns what people call an allocator.
pub(in crate::sink) fn allocator_name(allocator: &AllocatorReport) -> String {
    match &allocator.version {
        Some(version) => format!("{} {}", allocator.name, printable(version)),
        None => allocator.name.to_owned(),
    }
}

pub(in crate::sink) fn stays(remains: Remains) -> String {
    let Remains { partly_used, other_tops, cached, shared, held, edges } = remains;
    let mut parts = [
        (partly_used, "on pages that are partly in use"),
        (other_tops, "at the top of arenas that a trim does not touch"),
        (cached, "on pages that only thread caches keep"),
        (shared, "shared with other processes since a fork"),
        (held, "on whole pages that it keeps while others beside them are in use"),
        (edges, "at the edges of free memory"),
    ];
    parts.sort_by_key(|&(bytes, _)| std::cmp::Reverse(bytes));
    sizes(&parts)
}

/// Returns the figures above 0 with what they are of.
fn sizes(parts: &[(u64, &str)]) -> String {
    let known = parts.iter().filter(|(bytes, _)| *bytes > 0);
    let known: Vec<String> =
        known.map(|(bytes, what)| format!("{} {what}", size(*bytes))).collect();
    known.join(", ")
}
