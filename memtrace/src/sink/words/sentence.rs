//! The answer in a sentence, and what to know to take it right.

use memtrace_common::Path;

use super::{Figure, label, path, total};
use crate::{
    model::report::{Balance, Evidence, KeptByReason, Memory, PathReport, ProcessReport},
    sink::{exit_code, known, printable, size},
};

/// Paths that the sentence names one by one.
const NAMED_PATHS: usize = 3;

/// Returns the bytes that went back to the kernel before the process exited.
pub(in crate::sink) fn given_back(process: &ProcessReport) -> Option<u64> {
    let at_exit = path(process, Path::Exit).map_or(Some(0), |exit| exit.freed)?;
    Some(process.reclaimed.total?.saturating_sub(at_exit))
}

/// Returns the answer: what went back, and what is left.
pub(in crate::sink) fn sentence(process: &ProcessReport, traced: Option<Evidence>) -> String {
    let evidence = traced.unwrap_or_default();
    let who = format!("{} (pid {})", printable(&process.comm), process.tgid);
    match process.state {
        _ if process.of_core => {
            // A core file may not say whose it is.
            let who = if process.tgid == 0 { "a process" } else { &who };
            format!("{who}, from a core file: {}", held_in_core(process))
        }
        "exited" => {
            let code = process.exit_code.map_or_else(
                || "exited".to_owned(),
                |code| format!("exited with {}", exit_code(code)),
            );
            let back = back(process, evidence, "had");
            format!("{who} {code}: at exit {back}; {}", left(process))
        }
        "running" if traced.is_some() => {
            let back = back(process, evidence, "has");
            format!("{who} is running: since tracing began {back}; {}", held(process))
        }
        "running" => format!("{who} is running: {}", held(process)),
        _ => {
            let back = back(process, evidence, "had");
            format!("{who}, whose end was not seen: {back}; {}", held(process))
        }
    }
}

/// Returns what went back before the exit, by the best figure that there is.
fn back(process: &ProcessReport, evidence: Evidence, had: &str) -> String {
    let (figure, what, but): (Figure<PathReport>, _, _) = match evidence {
        Evidence::Frames => (|path| path.freed, "been given back", ""),
        Evidence::Rss => {
            (|path| path.zapped, "been detached", " (how much of it was freed was not counted)")
        }
        Evidence::Args => (
            |path| path.requested,
            "been given up",
            " (address space: how much of it was memory was not counted)",
        ),
    };
    let mut parts: Vec<(Path, u64)> = Path::ALL
        .into_iter()
        .filter(|path| !matches!(path, Path::Exit))
        .filter_map(|p| Some((p, figure(path(process, p)?)?)))
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    let all = total(parts.iter().map(|(_, bytes)| *bytes));
    if all == 0 {
        return format!("nothing {had} {what}");
    }
    parts.retain(|(path, _)| !matches!(path, Path::Other));
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    parts.truncate(NAMED_PATHS);

    let rest = all.saturating_sub(total(parts.iter().map(|(_, bytes)| *bytes)));
    let mut by: Vec<String> =
        parts.iter().map(|(path, bytes)| format!("{} by {}", size(*bytes), label(*path))).collect();
    if rest > 0 {
        by.push(format!("{} by other paths", size(rest)));
    }
    let have = if had == "has" { "have" } else { had };
    let all_shown = size(all);
    match by.as_slice() {
        [only] if only.starts_with(&all_shown) => {
            let by = &only[all_shown.len()..];
            format!("{all_shown} {have} {what}{by}{but}")
        }
        _ => format!("{all_shown} {have} {what}: {}{but}", by.join(", ")),
    }
}

/// Returns what was there when the process exited, and how much of it went back then.
fn left(process: &ProcessReport) -> String {
    let exit = path(process, Path::Exit);
    let Some(left) = process.memory.resident.or(exit.and_then(|exit| exit.zapped)) else {
        return "what was left is not known".into();
    };
    if left == 0 {
        return "nothing was left".into();
    }
    let left_shown = size(left);
    let Some(exit) = exit else {
        return format!("{left_shown} were left, whose teardown was not seen");
    };
    match exit.freed {
        None => format!("{left_shown} were left"),
        Some(0) => format!("{left_shown} were left, none of which went back at exit"),
        Some(freed) if size(freed) == left_shown => {
            format!("{left_shown} were left and went back at exit")
        }
        Some(freed) if freed < left => {
            format!("{left_shown} were left, of which {} went back at exit", size(freed))
        }
        Some(freed) => format!("{left_shown} were left and {} went back at exit", size(freed)),
    }
}

/// Returns what a process that did not exit holds.
fn held(process: &ProcessReport) -> String {
    let Memory { resident, freed_not_reclaimed: freed, .. } = &process.memory;
    let (is, now) = if process.state == "running" { ("are", " now") } else { ("were", "") };
    let Some(resident) = resident else {
        return format!("what is resident{now} is not known");
    };
    let freed = match freed.total {
        Some(freed) if freed > 0 => {
            format!(", {} of them freed by the program but not reclaimed", size(freed))
        }
        _ => String::new(),
    };
    let trimmable: Vec<u64> = process.allocators.iter().filter_map(|a| a.trimmable).collect();
    let trim = match (total(trimmable.iter().copied()), trimmable.is_empty()) {
        (_, true) => String::new(),
        (0, false) => "; a trim would give none of it back".to_owned(),
        (bytes, false) => format!("; a trim would give {} back", size(bytes)),
    };
    let trim = if freed.is_empty() { String::new() } else { trim };
    format!("{} {is} resident{now}{freed}{trim}", size(*resident))
}

/// Returns what a process held of which a core file is left.
fn held_in_core(process: &ProcessReport) -> String {
    let allocators = process.allocators.iter();
    let free = total(allocators.flat_map(|allocator| allocator.free.values().copied()));
    let free = match free {
        0 => String::new(),
        _ => format!(", and {} were free in its allocators", size(free)),
    };
    let mapped = known(process.memory.mapped);
    format!("{mapped} were mapped{free}; what was resident is not known")
}

/// Returns what a reader has to know to take the sentence right.
pub(in crate::sink) fn notes(process: &ProcessReport) -> Vec<String> {
    let mut notes = vec![];
    let kept = total(process.reclaimed.by_path.values().filter_map(|path| path.kept_elsewhere));
    if kept > 0 {
        let reasons = reasons(process);
        let why =
            if reasons.is_empty() { "why is not known".to_owned() } else { reasons.join(", ") };
        let kept = size(kept);
        notes.push(format!("kept elsewhere: {kept} left this process without being freed: {why}"));
    }
    notes.extend(process.unwalked.iter().map(|why| printable(why)));
    let Balance { r#in, unexplained, .. } = process.balance;
    if let (Some(came), Some(rest)) = (r#in, unexplained) {
        // Up to a hundredth, the balance line says it.
        if rest.unsigned_abs() > came.unsigned_abs() / 100 {
            let what = if rest > 0 {
                "came in, but neither left nor is there"
            } else {
                "left or are there, but were not seen coming in"
            };
            notes.push(format!("unexplained: {} {what}", size(rest.unsigned_abs())));
        }
    }
    notes
}

/// Returns why frames stayed, the most of them first.
fn reasons(process: &ProcessReport) -> Vec<String> {
    let mut sum = KeptByReason::default();
    for kept in process.reclaimed.by_path.values().filter_map(|path| path.kept_by_reason) {
        sum.add(kept);
    }
    let KeptByReason { page_cache, shmem, shared, huge_page, pinned, swap, unknown } = sum;
    let mut reasons = [
        (page_cache, "in the page cache"),
        (shmem, "in tmpfs objects that live on"),
        (shared, "shared with another process since a fork"),
        (huge_page, "in huge pages of which other parts are mapped"),
        (pinned, "pinned for devices"),
        (swap, "on their way to swap"),
        (unknown, "not told apart"),
    ];
    reasons.sort_by_key(|&(bytes, _)| std::cmp::Reverse(bytes));
    let known = reasons.into_iter().filter(|(bytes, _)| *bytes > 0);
    known.map(|(bytes, reason)| format!("{} {reason}", size(bytes))).collect()
}
