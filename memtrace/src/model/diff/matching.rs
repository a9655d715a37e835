//! Which process of one report is held against which of the other.

use super::kept::KeptProcess;

/// Two processes, or one that has no counterpart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) before: Option<&'a KeptProcess>,
    pub(super) after: Option<&'a KeptProcess>,
    pub(super) matched_by: Option<&'static str>,
}

impl Pair<'_> {
    /// Tells whether it is the very same process, of which addresses mean the same on both sides.
    pub(super) fn is_same(&self) -> bool {
        self.matched_by == Some("process")
    }
}

/// A way to find a counterpart.
type Way = (&'static str, fn(&KeptProcess, &KeptProcess) -> bool);

const WAYS: [Way; 3] = [
    // Of a core file nobody knows when its process started.
    ("process", |a, b| (a.tgid, a.start_time) == (b.tgid, b.start_time) && a.start_time != 0),
    ("exe", |a, b| a.exe.is_some() && a.exe == b.exe && a.comm == b.comm),
    ("comm", |a, b| a.comm == b.comm),
];

/// Returns every process of both reports once: those with a counterpart first.
///
/// Processes of the same name are held against each other in the order in which they were seen.
pub(super) fn pairs<'a>(first: &'a [KeptProcess], second: &'a [KeptProcess]) -> Vec<Pair<'a>> {
    let mut before: Vec<&KeptProcess> = first.iter().collect();
    let mut after: Vec<&KeptProcess> = second.iter().collect();
    let mut pairs = Vec::new();
    for (name, is_counterpart) in WAYS {
        before.retain(|a| {
            let Some(index) = after.iter().position(|b| is_counterpart(a, b)) else { return true };
            let (before, after) = (Some(*a), Some(after.remove(index)));
            pairs.push(Pair { before, after, matched_by: Some(name) });
            false
        });
    }
    if let ([before], [after], true) = (&before[..], &after[..], pairs.is_empty()) {
        let (before, after) = (Some(*before), Some(*after));
        return vec![Pair { before, after, matched_by: Some("only") }];
    }
    let alone = |before, after| Pair { before, after, matched_by: None };
    pairs.extend(before.into_iter().map(|process| alone(Some(process), None)));
    pairs.extend(after.into_iter().map(|process| alone(None, Some(process))));
    pairs
}
