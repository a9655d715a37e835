//! What is known of call stacks, in words.

use crate::{
    model::report::{FreedBy, ProcessReport, ProcessStacks, ReclaimedBy, Stacks},
    sink::{printable, size},
};

/// Returns what is missing, if anything is.
pub(in crate::sink) fn lost_samples(stacks: &Stacks) -> Option<String> {
    let Stacks { samples, lost, lost_stacks, lost_reclaims, lost_faults, .. } = *stacks;
    let Some(samples) = samples else {
        return (lost_reclaims > 0 || lost_faults > 0 || lost_stacks > 0).then(|| {
            format!(
                "{lost_reclaims} calls that gave pages up, {lost_faults} page faults and \
                 {lost_stacks} call stacks found no room"
            )
        });
    };
    let others = if lost_reclaims > 0 || lost_faults > 0 {
        format!(", {lost_reclaims} calls that gave pages up, {lost_faults} page faults")
    } else {
        String::new()
    };
    (lost > 0 || lost_stacks > 0 || !others.is_empty()).then(|| {
        format!(
            "{lost} of {samples} samples{others} and {lost_stacks} call stacks found no room; \
             sample less with a larger --sample-bytes"
        )
    })
}

/// Returns which of all processes call stacks were taken of, and what it did.
pub(in crate::sink) fn sampled(process: &ProcessStacks, all: &[ProcessReport]) -> (String, String) {
    let ProcessStacks {
        tgid,
        retained,
        freed,
        freed_resident_estimate,
        reclaimed_by,
        faulted_by,
        ..
    } = process;
    let comm = all.iter().find(|report| report.tgid == *tgid).map_or("", |report| &report.comm);
    let who = format!("{} (pid {tgid})", printable(comm));
    let mut what = Vec::new();
    if let (Some(retained), Some(freed)) = (retained, freed) {
        let resident = freed_resident_estimate.map_or_else(String::new, |bytes| {
            format!(", of which {} at most may still be resident", size(bytes))
        });
        let (retained, freed) = (size(*retained), size(*freed));
        what.push(format!("about {retained} allocated and not freed, {freed} freed{resident}"));
    }
    if let Some(rows) = reclaimed_by {
        let sum = |bytes: fn(&ReclaimedBy) -> u64| {
            size(rows.iter().map(bytes).fold(0, u64::saturating_add))
        };
        let zapped = sum(|row| row.zapped);
        what.push(if rows.iter().all(|row| row.freed.is_some()) {
            format!("{} given back in calls, of {zapped} detached", sum(ReclaimedBy::bytes))
        } else {
            format!("{zapped} detached in calls")
        });
    }
    if let Some(rows) = faulted_by {
        what.push(page_faults(rows.iter().map(|row| row.faults).fold(0, u64::saturating_add)));
    }
    (who, what.join("; "))
}

/// Returns what a call stack gave up.
pub(in crate::sink) fn gave_up(row: &ReclaimedBy) -> String {
    let ReclaimedBy { path, calls, zapped, freed, .. } = row;
    let calls = if *calls == 1 { "1 call".to_owned() } else { format!("{calls} calls") };
    let detached = match freed {
        Some(_) => format!(", {} detached", size(*zapped)),
        None => String::new(),
    };
    format!("by {} ({calls}{detached})", printable(path))
}

/// Returns a number of page faults.
pub(in crate::sink) fn page_faults(count: u64) -> String {
    if count == 1 { "1 page fault".to_owned() } else { format!("{count} page faults") }
}

/// Returns how much of what a call stack freed may still be resident, if that is known.
pub(in crate::sink) fn still_resident(row: &FreedBy) -> String {
    row.resident_estimate.map_or_else(String::new, |bytes| {
        format!(", at most {} still resident (estimate)", size(bytes))
    })
}

/// Returns what a figure rests on.
pub(in crate::sink) fn counted(samples: u64) -> String {
    match samples {
        1 => "(1 sample)".to_owned(),
        _ => format!("({samples} samples)"),
    }
}
