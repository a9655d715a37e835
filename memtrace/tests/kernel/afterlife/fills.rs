//! How the kernel filled the frames that a process got.

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::{
    super::{
        driver::{Report, kernel, no_huge_pages, run, trial},
        paths::N,
        workload::HUGE,
    },
    FEW, check, counts_frames,
};

/// Huge pages that a workload has.
pub(super) const HUGE_PAGES: u64 = 8;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("afterlife::each_frame_is_zeroed_or_copied_as_it_was", each),
        trial("afterlife::a_file_that_must_be_read_first_is_copied_once", cold_file),
        trial("afterlife::what_needs_no_new_frame_hides_no_copy", copies_among_others),
    ]
}

/// The figures of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) anon: Option<u64>,
    pub(super) huge: Option<u64>,
    pub(super) shmem: Option<u64>,
    pub(super) copied: Option<u64>,
    zeroed: Option<u64>,
}

impl Filled {
    /// Errors: known is not what the kernel tells, or the sum is no sum.
    pub(super) fn of(process: &Value, report: &Report) -> Result<Option<Self>, Failed> {
        let faults = &process["faults"];
        let kinds = &faults["zeroed_by_kind"];
        let figures = ["anon", "huge", "shmem"].map(|kind| &kinds[kind]);
        let all = [&figures[..], &[&faults["zeroed"], &faults["copied"]]].concat();
        if !counts_frames(report, &all)? {
            return Ok(None);
        }
        let [anon, huge, shmem] = figures.map(Value::as_u64);
        let [zeroed, copied] = ["zeroed", "copied"].map(|key| faults[key].as_u64());
        // Before that a thread counts 64 faults before the kernel says what they mapped.
        let tells_each = kernel()? >= (6, 2);
        let sum = anon.zip(huge).zip(shmem).map(|((anon, huge), shmem)| anon + huge + shmem);
        let is_known = anon.is_some() && huge.is_some() && sum == zeroed;
        if !is_known || [shmem, copied, zeroed].map(|known| known.is_some()) != [tells_each; 3] {
            return Err(format!("the kernel tells each page: {tells_each}; {faults}").into());
        }
        Ok(Some(Self { anon, huge, shmem, copied, zeroed }))
    }

    /// Checks what is known, beyond what a program does that does nothing.
    fn check(self, without: Self, wanted: [u64; 4], faults: &Value) -> Result<(), Failed> {
        let names = ["anon", "huge", "shmem", "copied"];
        let figures = |of: Self| [of.anon, of.huge, of.shmem, of.copied];
        let mut compared = Vec::new();
        for (at, name) in names.into_iter().enumerate() {
            if let Some((with, without)) = figures(self)[at].zip(figures(without)[at]) {
                compared.push((name, with, wanted[at] + without, FEW));
            }
        }
        check(&compared, faults)
    }
}

const NONE: Filled =
    Filled { anon: Some(0), huge: Some(0), shmem: Some(0), copied: Some(0), zeroed: Some(0) };

/// Traces a program and its child.
fn family(program: &str) -> Result<Report, Failed> {
    let report = run(&["--follow"], &["afterlife", program])?;
    report.check_books()?;
    Ok(report)
}

/// Returns what a program does that does nothing.
fn nothing() -> Result<Filled, Failed> {
    let report = family("huge_nothing")?;
    Ok(Filled::of(report.process(), &report)?.unwrap_or(NONE))
}

fn each() -> Result<(), Failed> {
    let in_huge = HUGE_PAGES * HUGE;
    let (single, huge) = if no_huge_pages()? { (in_huge, 0) } else { (0, in_huge) };
    let report = family("huge_and_other_fills")?;
    let [parent, child] = report.family()?;
    let (Some(did), Some(its)) = (Filled::of(parent, &report)?, Filled::of(child, &report)?) else {
        return Ok(());
    };
    did.check(nothing()?, [N + single, huge, N / 4, N / 8], &parent["faults"])?;
    its.check(NONE, [0, 0, 0, N / 16], &child["faults"])
}

fn cold_file() -> Result<(), Failed> {
    let report = family("cold_file")?;
    let Some(did) = Filled::of(report.process(), &report)? else { return Ok(()) };
    did.check(nothing()?, [0, 0, 0, N / 8], &report.process()["faults"])
}

fn copies_among_others() -> Result<(), Failed> {
    let report = family("copies_among_others")?;
    let [parent, child] = report.family()?;
    let (Some(did), Some(its)) = (Filled::of(parent, &report)?, Filled::of(child, &report)?) else {
        return Ok(());
    };
    did.check(nothing()?, [N / 8, 0, N / 8, 0], &parent["faults"])?;
    its.check(NONE, [0, 0, 0, N / 8], &child["faults"])
}
