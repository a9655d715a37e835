//! The options of `--stacks`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::super::{Failure, buffer_size};
use crate::{
    model::report::{Report, StackKind},
    probe::stacks::Kinds,
    sink::folded::{self, Measure},
};

/// Options of the commands that trace.
#[derive(Debug, Args)]
pub(in crate::cli) struct StackOptions {
    /// Takes call stacks: of who allocates and frees (`allocations`, the default), of who gives pages up
    /// in system calls (`reclaimed`), of who has page faults (`faults`); several with commas between
    /// them. The first puts probes on the allocator's functions: that costs the process some
    /// microseconds a call, nobody else anything, and is measured and said first. `reclaimed` costs each
    /// such call about 1.5 µs, `faults` each fault about 2 µs.
    #[arg(
        long, value_enum, value_name = "WHOSE", num_args = 0..=1, require_equals = true,
        value_delimiter = ',', default_missing_value = "allocations"
    )]
    stacks: Vec<Asked>,
    /// Samples one byte of so many that are allocated.
    #[arg(
        long, value_name = "SIZE", default_value = "512K", value_parser = buffer_size,
        requires = "stacks"
    )]
    sample_bytes: u32,
    /// What `--format folded` and `--format flamegraph` show, by call stack: the default is the first
    /// that --stacks takes.
    #[arg(long, value_enum, requires = "stacks")]
    pub(in crate::cli) flame: Option<Measure>,
    /// Writes all call stacks to FILE.
    #[arg(long, value_name = "FILE", requires = "stacks")]
    stacks_file: Option<PathBuf>,
    /// How FILE is written.
    #[arg(long, value_enum, default_value_t = StacksFormat::Folded, requires = "stacks_file")]
    stacks_format: StacksFormat,
}

/// Whose call stacks are taken ([`StackKind`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Asked {
    /// Of who allocates and who frees, sampled.
    Allocations,
    /// Of who gives pages up: what was detached and what came back, by path.
    Reclaimed,
    /// Of who has page faults.
    Faults,
}

impl From<Asked> for StackKind {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Allocations => Self::Allocations,
            Asked::Reclaimed => Self::Reclaimed,
            Asked::Faults => Self::Faults,
        }
    }
}

/// How call stacks are written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StacksFormat {
    /// One line for each stack, for flame graphs.
    Folded,
}

impl StackOptions {
    /// Returns whose call stacks are taken, each once, in the order in which they were asked for.
    pub(in crate::cli) fn asked(&self) -> Vec<StackKind> {
        let mut kinds: Vec<StackKind> = Vec::new();
        for kind in self.stacks.iter().copied().map(StackKind::from) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }

    /// Returns the same as the probes want it.
    pub(in crate::cli) fn kinds(&self) -> Kinds {
        let asks = |kind| self.stacks.contains(&kind);
        Kinds {
            allocations: asks(Asked::Allocations).then_some(self.sample_bytes),
            reclaimed: asks(Asked::Reclaimed),
            faults: asks(Asked::Faults),
        }
    }

    /// Checks that what shall be shown is taken.
    pub(in crate::cli) fn check(&self) -> Result<(), Failure> {
        let Some(flame) = self.flame.filter(|flame| !self.asked().contains(&flame.kind())) else {
            return Ok(());
        };
        let measure = flame.to_possible_value();
        let measure = measure.as_ref().map_or("", |value| value.get_name());
        let kind = flame.kind_name();
        Err(Failure::usage(
            format!("--flame {measure} shows call stacks that are taken with --stacks={kind} only"),
            format!("add {kind} to those that --stacks names, with a comma between them"),
        ))
    }

    /// Tells whether what is asked for is known of running processes alone.
    pub(in crate::cli) fn needs_running(&self) -> bool {
        self.flame == Some(Measure::FreedResident)
    }

    /// Writes the call stacks to the file that was named.
    pub(in crate::cli) fn write(&self, report: &Report) -> Result<(), Failure> {
        let (Some(path), Some(stacks)) = (&self.stacks_file, &report.stacks) else {
            return Ok(());
        };
        let StacksFormat::Folded = self.stacks_format;
        std::fs::write(path, folded::render(stacks, &report.processes))
            .map_err(|error| Failure::unwritten(path, &error))
    }
}
