//! Each way in which memory leaves a process: requested, zapped and freed against what was done.

use std::sync::OnceLock;

use libtest_mimic::{Failed, Trial};

use super::driver::{Figures, Report, run, trial};

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
    case("shmdt", "munmap", N, N, N),
    case("fork_shared", "munmap", N, N, 0),
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
        .collect()
}

impl Case {
    fn check(&self) -> Result<(), Failed> {
        let report = run(&[], &[self.name])?;
        report.check_books()?;
        let without = baseline(self.path, self.name)?;
        let with = report.path(self.path);
        let did = |with: u64, without: u64| with as i64 - without as i64;
        let pairs = [
            ("zapped", self.zapped, did(with.zapped, without.zapped)),
            ("freed", self.freed, did(with.freed, without.freed)),
        ];
        // Exec and exit ask for the whole address space; that is not the workload's doing.
        let requested = ("requested", self.requested, did(with.requested, without.requested));
        let pairs = pairs.into_iter().chain((self.requested > 0).then_some(requested));
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

/// Returns what a program that does nothing does by a path. The exec workload starts it twice.
fn baseline(path: &str, name: &str) -> Result<Figures, Failed> {
    static NOTHING: OnceLock<Report> = OnceLock::new();
    if name == "exec" {
        return Ok(run(&[], &["exec_nothing"])?.path(path));
    }
    let report = match NOTHING.get() {
        Some(report) => report,
        None => {
            let report = run(&[], &["nothing"])?;
            report.check_books()?;
            NOTHING.get_or_init(|| report)
        }
    };
    Ok(report.path(path))
}
