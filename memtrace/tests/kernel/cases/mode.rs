//! How the machine is set while a row runs: huge pages and CPUs.
//!
//! The settings belong to everyone on the machine. Only a guest of `cargo xtask vm`, which is ours
//! and says so in its environment, has them changed, and changed back. Elsewhere the workload
//! alone is made to run as if they were so.

use std::{env, fs};

use libtest_mimic::Failed;
use nix::{sched::sched_getaffinity, unistd::Pid};

use super::{
    super::driver::{HUGE_PAGES, no_huge_pages},
    table::Machine,
};

const SECOND_CPU: &str = "/sys/devices/system/cpu/cpu1/online";

/// A machine's setting of transparent huge pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Thp {
    Always,
    Madvise,
    Never,
}

/// What a workload says about huge pages for memory in which it does not matter to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Huge {
    /// Nothing: the machine is set.
    AsSet,
    /// It would like them.
    Advised,
    /// It would not.
    Unwanted,
    /// It may have none at all.
    Forbidden,
}

/// One way to set the machine.
#[derive(Clone, Copy)]
pub(super) struct Mode {
    pub(super) thp: Thp,
    /// One or two.
    pub(super) cpus: usize,
}

/// A mode that is in effect until this is dropped.
pub(super) struct Setting {
    pub(super) huge: Huge,
    pub(super) cpus: Vec<usize>,
    _changed: Vec<Changed>,
}

/// A file of the kernel's, and what is written back.
struct Changed {
    file: &'static str,
    before: String,
}

impl Huge {
    const ALL: [Self; 4] = [Self::AsSet, Self::Advised, Self::Unwanted, Self::Forbidden];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AsSet => "as_set",
            Self::Advised => "advised",
            Self::Unwanted => "unwanted",
            Self::Forbidden => "forbidden",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|huge| huge.name() == name)
    }
}

impl Thp {
    fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Madvise => "madvise",
            Self::Never => "never",
        }
    }
}

impl Mode {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let each = |cpus| {
            [Thp::Always, Thp::Madvise, Thp::Never].into_iter().map(move |thp| Self { thp, cpus })
        };
        [2, 1].into_iter().flat_map(each)
    }

    pub(super) fn name(self) -> String {
        format!("{}_{}cpu", self.thp.name(), self.cpus)
    }

    /// Returns what figures depend on.
    pub(super) fn machine(self, kernel: (u32, u32)) -> Machine {
        let (huge, huge_by_advice) = (self.thp == Thp::Always, self.thp != Thp::Never);
        Machine { kernel, cpus: self.cpus as u64, huge, huge_by_advice }
    }

    /// Sets the machine or, where it is not ours, tells what a workload does instead; or why this
    /// cannot be had here.
    pub(super) fn set(self) -> Result<Result<Setting, &'static str>, Failed> {
        let all = sched_getaffinity(Pid::from_raw(0))?;
        let cpus: Vec<usize> = (0..self.cpus).collect();
        if !cpus.iter().all(|cpu| all.is_set(*cpu).unwrap_or(false)) {
            return Ok(Err("needs two CPUs"));
        }
        if !is_ours() {
            let off = no_huge_pages()?;
            let huge = match self.thp {
                Thp::Always | Thp::Madvise if off => {
                    return Ok(Err("optional: huge pages are switched off"));
                }
                Thp::Always => Huge::Advised,
                Thp::Madvise => Huge::Unwanted,
                Thp::Never => Huge::Forbidden,
            };
            return Ok(Ok(Setting { huge, cpus, _changed: Vec::new() }));
        }
        let mut changed = vec![Changed::new(HUGE_PAGES, self.thp.name())?];
        if self.cpus == 1 {
            changed.push(Changed::new(SECOND_CPU, "0")?);
        }
        Ok(Ok(Setting { huge: Huge::AsSet, cpus, _changed: changed }))
    }
}

/// Tells whether this machine is a guest of `cargo xtask vm`.
pub(super) fn is_ours() -> bool {
    env::var_os("MEMTRACE_GUEST").is_some()
}

impl Changed {
    fn new(file: &'static str, value: &str) -> Result<Self, Failed> {
        let text = fs::read_to_string(file)?;
        // Either all there is, or in brackets among what there may be.
        let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        let before = chosen.map_or(text.trim(), |(chosen, _)| chosen).to_owned();
        fs::write(file, value)
            .map_err(|error| format!("cannot write {value} to {file}: {error}"))?;
        Ok(Self { file, before })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        fs::write(self.file, &self.before).expect("what was set before can be set again");
    }
}
