//! Why frames of a living process stayed.

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

use super::{
    super::{
        driver::{Report, no_huge_pages, trial, trial_or_ignored},
        workload::HUGE,
    },
    FEW, check, counts_frames,
    fills::HUGE_PAGES,
    living, pages, workload,
};

/// Pages that a workload pins.
pub(super) const PINNED: u64 = 64;

pub(super) fn trials() -> Vec<Trial> {
    let pinned_name = "afterlife::pinned_frames_stay_when_they_are_unmapped";
    vec![
        trial("afterlife::the_rest_of_a_huge_page_holds_its_frames", || huge(1)),
        trial("afterlife::the_last_part_of_a_huge_page_brings_all_its_frames", || huge(2)),
        trial_or_ignored(pinned_name, || match no_io_uring() {
            None => pinned().map(|()| Completion::Completed),
            Some(why) => Ok(Completion::ignored_with(format!("optional: {why}"))),
        }),
    ]
}

/// Returns what left by munmap, if frames were counted.
fn munmap(report: &Report) -> Result<Option<&Value>, Failed> {
    let munmap = &report.process()["reclaimed"]["by_path"]["munmap"];
    let unknown = ["zapped", "freed", "late", "kept_elsewhere", "kept_by_reason"];
    Ok(counts_frames(report, &unknown.map(|key| &munmap[key]))?.then_some(munmap))
}

/// One half of each huge page is given up, then the other.
fn huge(halves: usize) -> Result<(), Failed> {
    let steps = ["first halves gone", "second halves gone"];
    let report = living("huge_halves", &steps[..halves])?;
    let Some(munmap) = munmap(&report)? else { return Ok(()) };
    let half = HUGE_PAGES * HUGE / 2;
    let gone = half * halves as u64;
    // Without huge pages no frame waits for another.
    let (held, late) = match (no_huge_pages()?, halves) {
        (true, _) => (0, 0),
        (false, 1) => (half, 0),
        (false, _) => (0, half),
    };
    let by_reason = &munmap["kept_by_reason"];
    let figures = [
        ("zapped", pages(&munmap["zapped"])?, gone, 0),
        ("freed", pages(&munmap["freed"])?, gone - held, FEW),
        ("late", pages(&munmap["late"])?, late, FEW),
        ("kept", pages(&munmap["kept_elsewhere"])?, held, FEW),
        ("huge_page", pages(&by_reason["huge_page"])?, held, FEW),
        ("unknown", pages(&by_reason["unknown"])?, 0, FEW),
    ];
    check(&figures, munmap)
}

/// Returns why a program of no rights cannot have an io_uring, if it cannot.
fn no_io_uring() -> Option<String> {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if let Ok(setting) = setting
        && setting.trim() != "0"
    {
        return Some(format!("kernel.io_uring_disabled is {}", setting.trim()));
    }
    workload::ring().err().map(|error| format!("io_uring_setup: {error}"))
}

fn pinned() -> Result<(), Failed> {
    let report = living("pinned", &["stopped"])?;
    let Some(munmap) = munmap(&report)? else { return Ok(()) };
    let by_reason = &munmap["kept_by_reason"];
    let figures = [
        ("zapped", pages(&munmap["zapped"])?, PINNED, 0),
        ("freed", pages(&munmap["freed"])?, 0, 0),
        ("kept", pages(&munmap["kept_elsewhere"])?, PINNED, 0),
        ("pinned", pages(&by_reason["pinned"])?, PINNED, 0),
        ("unknown", pages(&by_reason["unknown"])?, 0, 0),
    ];
    check(&figures, munmap)
}
