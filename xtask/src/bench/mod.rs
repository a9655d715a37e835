//! `cargo xtask bench`: what tracing costs the traced, side by side with the peers.
//!
//! A benchmark, not a test: nothing fails when a machine is slow. Rounds are interleaved (bare, each
//! tracer, bare, …), ratios are taken within a round, medians are shown.

mod goals;
mod idle;
mod machine;
mod table;
mod tracer;
mod tracers;
mod workload;

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use self::{
    machine::Machine,
    table::{Row, render},
    tracers::TRACERS,
    workload::{Workload, workloads},
};
use crate::{command::run, docs, workspace::Workspace};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds of each workload
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Only workloads whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// A tenth of each workload, for slow machines
    #[arg(long)]
    short: bool,
    /// Take memtrace and bench-workload from this folder and build nothing
    #[arg(long, value_name = "FOLDER", conflicts_with = "update")]
    programs: Option<PathBuf>,
    /// Write the table into docs/PERFORMANCE.md
    #[arg(long)]
    update: bool,
}

/// Measures and prints.
pub(crate) fn bench(workspace: &Workspace, options: &Options) -> Result<()> {
    let bin = match &options.programs {
        Some(folder) => folder.clone(),
        None => build(workspace)?,
    };
    let memtrace = bin.join("memtrace").display().to_string();
    let machine = Machine::read(&memtrace)?;
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut rows = Vec::new();
    let share = if options.short { 10 } else { 1 };
    for workload in workloads(workspace, &bin.join("bench-workload"), scratch.path(), share)? {
        if workload.name.contains(&options.only) {
            eprintln!("bench: {}", workload.name);
            rows.extend(measure(&workload, &memtrace, options.rounds));
        }
    }
    let table = render(&rows, options.rounds, &machine);
    print!("{table}");
    if options.update {
        let command = "cargo xtask bench --update";
        docs::update(workspace, "docs/PERFORMANCE.md", command, &table)?;
    }
    Ok(())
}

/// Builds memtrace and the workloads, and returns where they are.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(&workspace.root).args(["build", "--release", "--quiet"]);
    run(build.args(["-p", "memtrace", "-p", "xtask", "--bins"])).context("cannot build")?;
    Ok(workspace.target.join("release"))
}

/// Runs a workload under every tracer, round by round.
fn measure(workload: &Workload, memtrace: &str, rounds: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = TRACERS.iter().map(|tracer| Row::new(workload, tracer)).collect();
    for round in 0..=rounds {
        // Each in its turn is first: what the one before left behind harms all alike.
        let mut elapsed: Vec<Option<u64>> = vec![None; TRACERS.len()];
        for turn in 0..TRACERS.len() {
            let at = (turn + round) % TRACERS.len();
            match TRACERS[at].run(memtrace, workload) {
                Ok(time) => elapsed[at] = Some(time),
                Err(error) => rows[at].reason = Some(format!("{error:#}")),
            }
        }
        // The first round warms up.
        if round > 0 {
            let bare = elapsed[0];
            for (row, time) in rows.iter_mut().zip(elapsed) {
                row.add(time, bare);
            }
        }
    }
    rows
}
