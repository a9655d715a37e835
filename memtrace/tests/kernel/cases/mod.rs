//! The case table: each row of it, with huge pages always, by advice and never, on one CPU and on
//! two, against what the kernel does; and the sum of several ways against the kernel's own counts.

mod count;
pub(crate) mod mode;
mod table;
mod trace;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

use self::{
    mode::Mode,
    table::{Left, Machine, ROWS, Row, Whose},
    trace::{Own, Trace, is_known},
};
use super::driver::{Figures, kernel, trial, trial_or_ignored};

pub(crate) fn trials() -> Vec<Trial> {
    let all = |mode: Mode| {
        ROWS.iter().map(move |row| {
            let name = format!("cases::{}::{}", row.name, mode.name());
            trial_or_ignored(&name, move || check(row, mode))
        })
    };
    let independent = trial("cases::independent_count", count::independent);
    Mode::all().flat_map(all).chain([independent]).collect()
}

fn check(row: &Row, mode: Mode) -> Result<Completion, Failed> {
    if !is_known(row)? {
        return Ok(Completion::ignored_with("optional: this kernel does not know the call"));
    }
    let trace = match traced(mode)? {
        Ok(trace) => trace,
        Err(why) => return Ok(Completion::ignored_with(why)),
    };
    let done = trace.program(row)?;
    let machine = mode.machine(kernel()?);
    let mut wrong = Vec::new();
    for left in row.left {
        let process = trace.process(done, left.whose)?;
        trace.report.check_balance(process)?;
        let unknown = |failed: String| format!("{}: {failed}", left.path);
        let found = match (trace.report.counts(), left.whose) {
            (true, _) => left.compare(process, machine, done.own),
            (false, Whose::Program) => left.compare_arguments(process),
            (false, Whose::Child) => Vec::new(),
        };
        wrong.extend(found.into_iter().map(unknown));
    }
    if wrong.is_empty() { Ok(Completion::Completed) } else { Err(wrong.join("\n").into()) }
}

/// Traces all rows in a mode, or returns what came of that when it was done before; or why it
/// cannot be done here.
fn traced(mode: Mode) -> Result<Result<Arc<Trace>, &'static str>, Failed> {
    type Known = BTreeMap<String, Result<Arc<Trace>, String>>;
    static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().map_err(|_| "another test failed here")?;
    let trace = match known.get(&mode.name()) {
        Some(trace) => trace.clone(),
        None => {
            let setting = match mode.set()? {
                Ok(setting) => setting,
                Err(why) => return Ok(Err(why)),
            };
            let trace = Trace::of_all(&setting).and_then(|trace| {
                trace.report.check_complete()?;
                Ok(Arc::new(trace))
            });
            let trace = trace.map_err(|failed| failed.message().unwrap_or("no trace").to_owned());
            known.insert(mode.name(), trace.clone());
            trace
        }
    };
    Ok(Ok(trace?))
}

/// The most pages of a child that a fork shares, or that it needs for itself.
const CHILDS_OWN: u64 = 256;

impl Left {
    /// Returns what is not as the table says.
    fn compare(&self, process: &Value, machine: Machine, own: Own) -> Vec<String> {
        let figures = Figures::of(process, self.path);
        let frames = self.frames(machine);
        let (least, most) = frames.held(machine);
        let more = if self.whose == Whose::Child { CHILDS_OWN } else { 0 };
        let exactly = |pages: u64| pages..=pages + more;
        let anon = frames.in_call + own.anon;
        let expected: [(&str, RangeInclusive<u64>, u64); _] = [
            ("zapped", exactly(frames.zapped + own.anon + own.file), figures.zapped),
            ("freed in the call", anon - most..=anon - least + more, figures.freed - figures.late),
            ("late", frames.late + least..=frames.late + most, figures.late),
            ("freed", exactly(anon + frames.late), figures.freed),
            ("kept", exactly(frames.kept + own.file), figures.kept),
        ];
        let asked = self.requested.map(|pages| ("requested", pages..=pages, figures.requested));
        let all = expected.into_iter().chain(asked);
        let wrong = all.filter(|(_, expected, got)| !expected.contains(got));
        wrong
            .map(|(what, expected, got)| {
                format!("{what}: {got} instead of {expected:?} ({figures:?}, {frames:?})")
            })
            .collect()
    }

    /// Returns what arguments alone tell otherwise. They do not tell what a new mapping replaces.
    fn compare_arguments(&self, process: &Value) -> Vec<String> {
        let got = Figures::of(process, self.path).requested;
        match self.requested {
            Some(expected) if self.path != "overmap" && got != expected => {
                vec![format!("requested: {got} instead of {expected}")]
            }
            _ => Vec::new(),
        }
    }
}
