//! `cargo xtask bench`: what tracing costs the traced, side by side with the peers.
//!
//! A benchmark, not a test: nothing fails when a machine is slow. Rounds are interleaved (bare, each
//! tracer, bare, …), ratios are taken within a round, medians are shown.

mod table;
mod tracer;

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use self::{
    table::{Row, render},
    tracer::{TRACERS, UNTRACED, elapsed_ns},
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
    /// Write the table into docs/PERFORMANCE.md
    #[arg(long)]
    update: bool,
}

/// A program to trace, and what one of its units is.
struct Workload {
    name: &'static str,
    command: Vec<String>,
    units: u64,
    unit: &'static str,
}

/// Measures and prints.
pub(crate) fn bench(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(&workspace.root).args(["build", "--release", "--quiet"]);
    run(build.args(["-p", "memtrace", "-p", "xtask", "--bins"])).context("cannot build")?;
    let bin = workspace.target.join("release");
    let memtrace = bin.join("memtrace");
    let mut rows = Vec::new();
    for workload in workloads(&bin.join("bench-workload").display().to_string()) {
        if workload.name.contains(&options.only) {
            eprintln!("bench: {}", workload.name);
            rows.extend(measure(&workload, &memtrace.display().to_string(), options.rounds)?);
        }
    }
    let table = render(&rows, options.rounds, &kernel()?);
    print!("{table}");
    if options.update {
        let command = "cargo xtask bench --update";
        docs::update(workspace, "docs/PERFORMANCE.md", command, &table)?;
    }
    Ok(())
}

fn workloads(bin: &str) -> Vec<Workload> {
    let own = |name, args: &[&str], units, unit| Workload {
        name,
        command: std::iter::once(bin).chain(args.iter().copied()).map(str::to_owned).collect(),
        units,
        unit,
    };
    let python = "import time\n\
                  t = time.perf_counter_ns()\n\
                  for _ in range(5):\n    x = [bytes(4096) for _ in range(20000)]\n    del x\n\
                  print('elapsed_ns', time.perf_counter_ns() - t)";
    let python = ["python3", "-S", "-c", python].map(str::to_owned).to_vec();
    vec![
        own("mmap+munmap", &["map-unmap", "20000"], 20_000, "pair"),
        own("fault storm, 16 pages a round", &["fault-storm", "16", "3000"], 48_000, "page"),
        own("fault storm, 4 MiB a round", &["fault-storm", "1024", "300"], 307_200, "page"),
        own("fault storm, 1 GiB a round", &["fault-storm", "262144", "3"], 786_432, "page"),
        Workload {
            name: "python3, 5 × 80 MiB of bytes",
            command: python,
            units: 100_000,
            unit: "object",
        },
    ]
}

/// Runs a workload under every tracer, round by round, and beside a tracer of somebody else.
fn measure(workload: &Workload, memtrace: &str, rounds: usize) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = TRACERS
        .iter()
        .map(|tracer| Row::new(workload.name, tracer, workload.units, workload.unit))
        .collect();
    let mut beside = Row::new(workload.name, &UNTRACED, workload.units, workload.unit);
    for round in 0..=rounds {
        // Each in its turn is first: what the one before left behind harms all alike.
        let mut elapsed: Vec<Option<u64>> = vec![None; TRACERS.len()];
        for turn in 0..TRACERS.len() {
            let at = (turn + round) % TRACERS.len();
            match TRACERS[at].run(memtrace, &workload.command) {
                Ok(time) => elapsed[at] = Some(time),
                Err(error) => rows[at].reason = Some(format!("{error:#}")),
            }
        }
        let idle = Idle::traced(memtrace)?;
        let others = elapsed_ns(&mut UNTRACED.command(memtrace, &workload.command))?;
        drop(idle);
        // The first round warms up.
        if round > 0 {
            let bare = elapsed[0];
            for (row, time) in rows.iter_mut().zip(elapsed) {
                row.add(time, bare);
            }
            beside.add(Some(others), bare);
        }
    }
    rows.push(beside);
    Ok(rows)
}

/// An idle process that memtrace traces.
struct Idle {
    idle: Child,
    tracer: Child,
}

impl Idle {
    fn traced(memtrace: &str) -> Result<Self> {
        let idle = Command::new("sleep").arg("1000").spawn().context("cannot start sleep")?;
        let mut tracer = Command::new(memtrace)
            .args(["-v", "attach", "-o", "/dev/null", &idle.id().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start memtrace")?;
        let stderr = tracer.stderr.take().context("no stderr")?;
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stderr));
        let attached = lines.any(|line| line.is_ok_and(|line| line.contains("tracing")));
        let traced = Self { idle, tracer };
        ensure!(attached, "memtrace did not attach");
        Ok(traced)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for child in [&mut self.tracer, &mut self.idle] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn kernel() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    // What a vendor adds to the version says nothing to others.
    Ok(release.trim().split('-').next().unwrap_or_default().to_owned())
}
