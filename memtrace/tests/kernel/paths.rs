//! Each way in which memory leaves a process: requested, zapped and freed against what was done.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex},
};

use libtest_mimic::{Failed, Trial};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::driver::{PAGE, Report, no_huge_pages, run, trial};

/// Pages of most workloads.
pub(crate) const N: u64 = 16_384;

/// What a workload does by one path, in pages.
struct Case {
    name: &'static str,
    path: &'static str,
    requested: u64,
    zapped: u64,
    freed: u64,
}

const CASES: &[Case] = &[
    case("munmap", "munmap", N, N, N),
    case("munmap_half_touched", "munmap", 2 * N, N, N),
    case("munmap_many_small", "munmap", 5 * N, 5 * N, 5 * N),
    case("munmap_read_only_touch", "munmap", N, 0, 0),
    case("dont_need", "dont_need", N, N, N),
    case("free_then_munmap", "free", N, 0, 0),
    case("free_then_munmap", "munmap", N, N, N),
    case("page_out", "free", N, 0, 0),
    case("page_out", "pressure", N, N, N),
    // Only the first of three trims has something to give back.
    case("dont_need_thrice", "dont_need", 3 * N, N, N),
    case("mlocked", "munmap", N, N, N),
    case("brk", "brk", N, N, N),
    case("mremap_shrink", "mremap", N - N / 4, N - N / 4, N - N / 4),
    case("mremap_move", "munmap", N, N, N),
    case("overmap", "overmap", N, N, N),
    // Each thread's allocator unmaps what aligns its arena.
    case("threads", "munmap", 0, 8 * N, 8 * N),
    case("thp", "munmap", N, N, N),
    case("file_private", "munmap", N, N, 0),
    case("file_cow", "munmap", N, N, N / 2),
    case("file_shared", "munmap", N, N, 0),
    case("shared_anon", "munmap", N, N, N),
    case("shared_anon_dont_need", "dont_need", N, N, 0),
    case("remove", "remove", N, N, N),
    case("punch_hole", "remove", N, N, N),
    case("punch_hole_unmapped", "munmap", N, N, 0),
    case("punch_hole_unmapped", "remove", N, 0, N),
    case("shmdt", "munmap", N, N, N),
    case("fork_shared", "munmap", N, N, 0),
    case("fork_trim", "munmap", N, N, N),
    case("exec", "exec", 0, N, N),
    case("exit", "exit", 0, N, N),
    case("sigkill", "exit", 0, N, N),
    case("exit_with_threads", "exit", 0, N, N),
];

const fn case(
    name: &'static str,
    path: &'static str,
    requested: u64,
    zapped: u64,
    freed: u64,
) -> Case {
    Case { name, path, requested, zapped, freed }
}

pub(crate) fn trials() -> Vec<Trial> {
    CASES
        .iter()
        .map(|case| trial(&format!("paths::{}_by_{}", case.name, case.path), || case.check()))
        .chain([
            trial("paths::late_frames_have_a_delay", late),
            trial("paths::frames_that_stay_have_a_reason", reasons),
            trial("paths::half_of_a_huge_page_stays", huge_halves),
        ])
        .collect()
}

/// What keeps the frames of a temporary file.
fn keeper_of_files() -> Result<&'static str, Failed> {
    let on_tmpfs = statfs(&std::env::temp_dir())?.filesystem_type() == TMPFS_MAGIC;
    Ok(if on_tmpfs { "shmem" } else { "page_cache" })
}

fn reasons() -> Result<(), Failed> {
    let files = keeper_of_files()?;
    // Workload, options, path and reason of `N` pages that stay.
    let staying: [(&str, &[&str], &str, &str); _] = [
        ("file_private", &[], "munmap", files),
        ("file_shared", &[], "munmap", files),
        ("shared_anon_dont_need", &[], "dont_need", "shmem"),
        ("fork_shared", &[], "munmap", "shared"),
        ("fork_shared", &["--follow"], "munmap", "shared"),
    ];
    for (workload, options, path, reason) in staying {
        let report = traced(options, workload)?;
        let left = &report.process()["reclaimed"]["by_path"][path];
        let (all, by_reason) = (&left["kept_elsewhere"], &left["kept_by_reason"]);
        if !report.counts() {
            let known = !all.is_null() || !by_reason.is_null();
            return if known { Err("nobody counted that".into()) } else { Ok(()) };
        }
        let pages = |key: &str| by_reason[key].as_u64().unwrap_or(0) / PAGE;
        let sum: u64 = ["page_cache", "shmem", "shared", "unknown"].into_iter().map(pages).sum();
        let told = pages(reason).abs_diff(N) <= N / 100 && pages("unknown") <= N / 100;
        if !told || all.as_u64() != Some(sum * PAGE) {
            return Err(format!("{workload} {options:?}: {reason}: {left}").into());
        }
    }
    Ok(())
}

/// The first half of each huge page is given up: no frame comes back before the other half goes.
fn huge_halves() -> Result<(), Failed> {
    let report = run(&[], &["thp_halves"])?;
    report.check_books()?;
    let munmap = report.path("munmap");
    let kept = &report.process()["reclaimed"]["by_path"]["munmap"]["kept_by_reason"]["unknown"];
    if !report.counts() {
        return if munmap.zapped == 0 { Ok(()) } else { Err("nobody counted that".into()) };
    }
    let stay = if no_huge_pages()? { 0 } else { N / 2 };
    let unknown = kept.as_u64().unwrap_or(0) / PAGE;
    let few = N / 50;
    let is_right = munmap.zapped.abs_diff(N / 2) <= few
        && munmap.freed.abs_diff(N / 2 - stay) <= few
        && unknown.abs_diff(stay) <= few;
    if !is_right {
        return Err(format!("of {stay} to stay: {munmap:?}, kept {unknown}").into());
    }
    Ok(())
}

/// The last reference to shared memory goes in task work, after the call that gave it up.
fn late() -> Result<(), Failed> {
    let report = traced(&[], "shared_anon")?;
    let reclaimed = &report.process()["reclaimed"];
    let (munmap, delay) = (&reclaimed["by_path"]["munmap"], &reclaimed["late_delay"]);
    if !report.counts() {
        return if delay.is_null() { Ok(()) } else { Err("nobody measured that".into()) };
    }
    let late = munmap["late"].as_u64().unwrap_or(0) / PAGE;
    let [half, most, longest] =
        ["p50_ns", "p99_ns", "max_ns"].map(|key| delay[key].as_u64().unwrap_or(0));
    const MINUTE_NS: u64 = 60_000_000_000;
    let in_order = 0 < half && half <= most && most <= longest && longest < MINUTE_NS;
    if late < N - N / 100 || !in_order {
        return Err(format!("{late} pages: {reclaimed}").into());
    }
    Ok(())
}

/// Checks the cases that `wanted` names, or all in which a call asks for something, with the figures that a lower level of evidence has.
pub(crate) fn check_at(level: &'static str, wanted: &[&str]) -> Result<(), Failed> {
    let asks = |case: &&Case| wanted.is_empty() && case.requested > 0;
    for case in CASES.iter().filter(|case| asks(case) || wanted.contains(&case.name)) {
        let checked = case.check_at(&["--evidence", level]);
        let at = |failed: Failed| {
            let said = failed.message().unwrap_or_default();
            format!("{} by {}: {said}", case.name, case.path)
        };
        checked.map_err(at)?;
    }
    Ok(())
}

impl Case {
    fn check(&self) -> Result<(), Failed> {
        self.check_at(&[])
    }

    fn check_at(&self, options: &[&'static str]) -> Result<(), Failed> {
        let report = traced(options, self.name)?;
        // What a program that does nothing does. The exec workload starts it twice.
        let nothing = if self.name == "exec" { "exec_nothing" } else { "nothing" };
        let without = traced(options, nothing)?.path(self.path);
        let with = report.path(self.path);
        let did = |with: u64, without: u64| with as i64 - without as i64;
        let mut pairs = Vec::new();
        if report.counts() {
            pairs.push(("zapped", self.zapped, did(with.zapped, without.zapped)));
        }
        if report.0["window"]["evidence"] == "frames" {
            pairs.push(("freed", self.freed, did(with.freed, without.freed)));
        } else if report.0["processes"].to_string().contains("\"freed\":0") {
            return Err(format!("nobody counted that: {}", report.process()).into());
        }
        // Exec and exit ask for the whole address space; that is not the workload's doing. And
        // arguments alone do not tell whether there was something under a new mapping, nor how long
        // a segment of shared memory is.
        let told = report.counts() || !["overmap", "shmdt"].contains(&self.name);
        if self.requested > 0 && told {
            pairs.push(("requested", self.requested, did(with.requested, without.requested)));
        }
        for (figure, expected, measured) in pairs {
            // Within 1 % of the pages touched; a start of the program differs by a few.
            let allowed = (self.requested.max(self.zapped) / 100).max(8) as i64;
            if (measured - expected as i64).abs() > allowed {
                return Err(format!(
                    "{figure} by {}: {measured} pages instead of {expected} (± {allowed}); with \
                     {with:?}, without {without:?}; {}",
                    self.path,
                    report.process()["reclaimed"]
                )
                .into());
            }
        }
        Ok(())
    }
}

/// Traces a workload, or returns what came of it when that was done before.
fn traced(options: &[&'static str], workload: &'static str) -> Result<Arc<Report>, Failed> {
    type Known = BTreeMap<(Vec<&'static str>, &'static str), Arc<Report>>;
    static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().map_err(|_| "another test failed here")?;
    match known.entry((options.to_vec(), workload)) {
        Entry::Occupied(known) => Ok(Arc::clone(known.get())),
        Entry::Vacant(unknown) => {
            let report = run(options, &[workload])?;
            report.check_books()?;
            Ok(Arc::clone(unknown.insert(Arc::new(report))))
        }
    }
}
