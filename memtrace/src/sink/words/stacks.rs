//! What was sampled of call stacks, in words.

use crate::{
    model::report::{FreedBy, ProcessReport, ProcessStacks, Stacks},
    sink::{printable, size},
};

/// Returns what is missing, if anything is.
pub(in crate::sink) fn lost_samples(stacks: &Stacks) -> Option<String> {
    let Stacks { samples, lost, lost_stacks, .. } = *stacks;
    (lost > 0 || lost_stacks > 0).then(|| {
        format!(
            "{lost} of {samples} samples and {lost_stacks} call stacks found no room; sample less \
             with a larger --sample-bytes"
        )
    })
}

/// Returns which of all processes was sampled, and what it allocated and freed.
pub(in crate::sink) fn sampled(process: &ProcessStacks, all: &[ProcessReport]) -> (String, String) {
    let ProcessStacks { tgid, retained, freed, freed_resident_estimate, .. } = *process;
    let comm = all.iter().find(|report| report.tgid == tgid).map_or("", |report| &report.comm);
    let resident = freed_resident_estimate.map_or_else(String::new, |bytes| {
        format!(", of which {} at most may still be resident", size(bytes))
    });
    let who = format!("{} (pid {tgid})", printable(comm));
    let what = format!(
        "about {} allocated and not freed, {} freed{resident}",
        size(retained),
        size(freed)
    );
    (who, what)
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
