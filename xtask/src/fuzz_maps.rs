//! `cargo xtask fuzz-maps`: random memory operations, held against the kernel's own maps.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{command::run, workspace::Workspace};

/// The options of `cargo xtask fuzz-maps`.
#[derive(Args)]
pub(crate) struct Options {
    /// Operations, in all
    #[arg(long, default_value_t = 10_000_000)]
    operations: u64,
    /// Seeds among which they are divided
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Run the operations of this file instead, as a failing seed leaves them
    file: Option<PathBuf>,
}

/// Runs the fuzzer of the kernel tests; fails at the first seed that finds a difference.
pub(crate) fn fuzz(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--release", "--quiet", "--package", "memtrace", "--test", "kernel", "--"]);
    cargo.arg("--fuzz");
    match &options.file {
        Some(file) => {
            let file = Path::canonicalize(file).with_context(|| file.display().to_string())?;
            cargo.arg(file);
        }
        None => {
            let each = options.operations.div_ceil(options.seeds.max(1));
            cargo.args([options.first, options.seeds, each].map(|number| number.to_string()));
        }
    }
    run(&mut cargo)
}
