//! What each level of evidence costs here: two short loops, with and without probes.

use std::{io, process, ptr, time::Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{
    model::{region_map::PAGE, report::Evidence},
    probe::attach::{Options, Probes},
};

/// Nanoseconds of the two loops.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Cost {
    /// To fault a page in and to unmap it.
    pub(super) page_ns: f64,
    /// To map and to unmap a page that is not touched.
    pub(super) pair_ns: f64,
}

/// What a level adds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Level {
    pub(super) evidence: Evidence,
    /// To a process that is not traced, while another is.
    pub(super) untraced: Cost,
    /// To the process that is traced.
    pub(super) traced: Cost,
}

/// What was measured, as medians of interleaved rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Costs {
    /// Without memtrace.
    pub(super) bare: Cost,
    /// What each level adds to it.
    pub(super) levels: Vec<Level>,
}

const ROUNDS: usize = 3;
/// Pages of 4 KiB that are touched in a round.
const PAGES: usize = 16_384;
/// Pages that are unmapped at once.
const BLOCK: usize = 1_024;
/// Pairs of mmap and munmap in a round.
const PAIRS: u32 = 4_000;

/// Measures every level up to `most`.
pub(super) fn measure(most: Evidence) -> Result<Costs> {
    let levels: Vec<Evidence> =
        Evidence::ALL.into_iter().filter(|&evidence| evidence <= most).collect();
    let mut bare = Vec::new();
    let mut added: Vec<(Vec<Cost>, Vec<Cost>)> = vec![Default::default(); levels.len()];
    run_loops()?; // warms up
    for _ in 0..ROUNDS {
        for (&evidence, (untraced, traced)) in levels.iter().zip(&mut added) {
            // The machine's speed drifts: each is compared with what was just before it.
            let before = run_loops()?;
            bare.push(before);
            let options =
                Options { evidence: Some(evidence), buffer_bytes: 16 << 20, ..Options::default() };
            let mut probes = Probes::attach(options)?;
            untraced.push(run_loops()? - before);
            probes.seed(process::id())?;
            traced.push(run_loops()? - before);
        }
    }
    let added = levels.into_iter().zip(added);
    Ok(Costs {
        bare: median(&bare),
        levels: added
            .map(|(evidence, (untraced, traced))| Level {
                evidence,
                untraced: median(&untraced),
                traced: median(&traced),
            })
            .collect(),
    })
}

impl std::ops::Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { page_ns: self.page_ns - other.page_ns, pair_ns: self.pair_ns - other.pair_ns }
    }
}

/// Returns the middle of each figure.
fn median(costs: &[Cost]) -> Cost {
    let middle = |figure: fn(&Cost) -> f64| {
        let mut sorted: Vec<f64> = costs.iter().map(figure).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Cost { page_ns: middle(|cost| cost.page_ns), pair_ns: middle(|cost| cost.pair_ns) }
}

fn run_loops() -> Result<Cost> {
    let start = Instant::now();
    for _ in 0..PAGES / BLOCK {
        let mapped = Mapped::new(BLOCK)?;
        mapped.touch();
    }
    let page_ns = start.elapsed().as_nanos() as f64 / PAGES as f64;
    let start = Instant::now();
    for _ in 0..PAIRS {
        drop(Mapped::new(1)?);
    }
    Ok(Cost { page_ns, pair_ns: start.elapsed().as_nanos() as f64 / f64::from(PAIRS) })
}

/// Anonymous memory in small pages.
struct Mapped {
    start: *mut libc::c_void,
    len: usize,
}

impl Mapped {
    fn new(pages: usize) -> Result<Self> {
        let len = pages * PAGE as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, where the kernel likes.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map memory");
        }
        Ok(Self { start, len })
    }

    /// Writes to each page.
    fn touch(&self) {
        // SAFETY: the mapping is ours; without huge pages, which a kernel may not know.
        unsafe { libc::madvise(self.start, self.len, libc::MADV_NOHUGEPAGE) };
        for at in (0..self.len).step_by(PAGE as usize) {
            // SAFETY: within the mapping.
            unsafe { self.start.cast::<u8>().add(at).write_volatile(1) };
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nobody keeps a pointer into it.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_each_figure_is_its_own() {
        let costs = [(1.0, 9.0), (3.0, 7.0), (2.0, 8.0)];
        let costs = costs.map(|(page_ns, pair_ns)| Cost { page_ns, pair_ns });
        assert_eq!(median(&costs), Cost { page_ns: 2.0, pair_ns: 8.0 });
    }

    #[test]
    fn a_page_that_is_touched_costs_more_than_nothing() {
        let cost = run_loops().expect("memory");
        assert!(cost.page_ns > 0.0 && cost.pair_ns > 0.0, "{cost:?}");
    }
}
