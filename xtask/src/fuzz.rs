//! `cargo xtask fuzz`: the cargo-fuzz targets of `memtrace/fuzz`, one after the other.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    command::{read, run},
    workspace::Workspace,
};

/// The options of `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds for each target, with inputs that are others each time
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// So many inputs for each target instead, nearly the same ones each time
    #[arg(long, conflicts_with = "seconds")]
    inputs: Option<u32>,
    /// Only targets whose name contains this
    #[arg(default_value = "")]
    only: String,
}

/// Runs the targets; fails at the first finding.
pub(crate) fn fuzz(workspace: &Workspace, options: &Options) -> Result<()> {
    let cargo_fuzz = || {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(workspace.root.join("memtrace")).arg("fuzz");
        command
    };
    let targets = read(cargo_fuzz().arg("list"))
        .context("is cargo-fuzz installed? `cargo install cargo-fuzz --locked`")?;
    let mut ran = 0;
    for target in targets.lines().filter(|target| target.contains(&options.only)) {
        println!("fuzz: {target}");
        let nothing_found = tempfile::tempdir().context("cannot make a temporary folder")?;
        // Without a sanitizer stable Rust will do, and what is fuzzed has no unsafe code.
        let mut fuzz = cargo_fuzz();
        fuzz.args(["run", "--sanitizer", "none", target]);
        match options.inputs {
            // What was found before would lead elsewhere. So do hash tables, a little.
            Some(inputs) => {
                fuzz.arg(nothing_found.path()).args(["--", "-seed=1", &format!("-runs={inputs}")])
            }
            None => fuzz.args(["--", &format!("-max_total_time={}", options.seconds)]),
        };
        let limits = ["-timeout=10", "-rss_limit_mb=4096", "-verbosity=0", "-print_final_stats=1"];
        run(fuzz.args(limits))?;
        ran += 1;
    }
    ensure!(ran > 0, "there is no such target");
    Ok(())
}
