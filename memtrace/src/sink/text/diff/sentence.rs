//! The answer in a sentence.

use crate::{
    model::diff::{Change, Class, Classes, FindingDiff, ProcessDiff, Who},
    sink::{known, printable, size},
};

/// Below so many bytes, or a hundredth of what is there, nothing changed that is worth a word.
const NOTABLE: u64 = 64 << 10;
const NOTABLE_PART: u64 = 100;

/// What the sentence tells: address space is no memory, and parts are in the tables.
const TOLD: [(Class, &str); 4] = [
    (Class::FreedNotReclaimed, "freed but not reclaimed"),
    (Class::Resident, "resident"),
    (Class::Live, "live"),
    (Class::Swapped, "swapped"),
];

/// Tells whether a figure changed by more than any two looks differ.
pub(super) fn is_notable(change: Change) -> bool {
    let larger = change.before.max(change.after).unwrap_or(0);
    change.distance() >= NOTABLE.max(larger / NOTABLE_PART)
}

/// Returns what grew and fell, the most first, and what stayed.
pub(super) fn sentence(memory: &Classes) -> String {
    let told = TOLD.map(|(class, name)| (memory.get(class), name));
    let mut changed: Vec<_> = told.iter().filter(|(change, _)| is_notable(*change)).collect();
    changed.sort_by_key(|(change, _)| std::cmp::Reverse(change.distance()));
    let mut parts: Vec<String> =
        changed.into_iter().map(|(change, name)| moved(*change, name)).collect();
    let same = |change: &Change| change.change.is_some() && !is_notable(*change);
    let stayed: Vec<String> = told
        .iter()
        .filter(|(change, _)| same(change) && (change.before.max(change.after) > Some(0)))
        .map(|(change, name)| format!("{name} at {}", known(change.after)))
        .collect();
    // What neither side knows the table shows.
    let one_knows = |change: &Change| change.before.is_some() != change.after.is_some();
    let unknown: Vec<&str> =
        told.iter().filter(|(change, _)| one_knows(change)).map(|(_, name)| *name).collect();
    if !stayed.is_empty() {
        parts.push(format!("about the same: {}", stayed.join(", ")));
    }
    if !unknown.is_empty() {
        parts.push(format!("known of one side only: {}", unknown.join(", ")));
    }
    if parts.is_empty() {
        return "neither side tells what it holds".to_owned();
    }
    parts.join("; ")
}

/// Returns what a process holds that is in one report alone.
pub(super) fn alone(memory: &Classes) -> String {
    let held = |class| {
        let Change { before, after, .. } = memory.get(class);
        known(before.or(after))
    };
    format!(
        "{} resident, {} freed but not reclaimed",
        held(Class::Resident),
        held(Class::FreedNotReclaimed)
    )
}

fn moved(change: Change, name: &str) -> String {
    let bytes = size(change.distance());
    let to = known(change.after);
    match change.change {
        Some(..0) => format!("{name} fell by {bytes} to {to}"),
        _ => format!("{name} grew by {bytes} to {to}"),
    }
}

/// Returns which process it is.
pub(super) fn who(process: &ProcessDiff) -> String {
    let one = |who: &Who| format!("{} (pid {})", printable(&who.comm), who.tgid);
    match (&process.before, &process.after) {
        (Some(before), Some(after)) if before.comm != after.comm => {
            format!("{} → {}", one(before), one(after))
        }
        (Some(before), Some(after)) if before.tgid != after.tgid => {
            format!("{} (pid {} → {})", printable(&before.comm), before.tgid, after.tgid)
        }
        (Some(before), Some(_)) => one(before),
        (Some(before), None) => format!("{}, only before", one(before)),
        (None, Some(after)) => format!("{}, only after", one(after)),
        (None, None) => String::new(),
    }
}

/// Returns the findings that came, went or stayed.
pub(super) fn findings(process: &ProcessDiff) -> Vec<String> {
    let one = |finding: &FindingDiff| {
        let FindingDiff { id, state, bytes } = finding;
        let id = printable(id);
        match *state {
            "came" => format!("{id} came: {}", known(bytes.after)),
            "went" => format!("{id} went: it was {}", known(bytes.before)),
            "stayed" => {
                format!("{id} stayed: {}, it was {}", known(bytes.after), known(bytes.before))
            }
            _ => format!(
                "{id}: {} before, {} after; the other side was not walked",
                known(bytes.before),
                known(bytes.after)
            ),
        }
    };
    process.findings.iter().map(one).collect()
}
