//! `cargo xtask soak`: what the daemon takes where many processes are, and come and go, for as long as one
//! likes; and whether anything of it grows.

mod crowd;
mod daemon;
mod goals;

use std::{fmt, path::PathBuf, thread, time::Duration};

use anyhow::{Result, ensure};

use self::{
    crowd::Crowd,
    daemon::{Daemon, Reading},
    goals::missed,
};
use crate::{bench::build, workspace::Workspace};

/// The options of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds to watch it
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Processes that do nothing
    #[arg(long, default_value_t = 2_000)]
    processes: u32,
    /// Processes that come and go each second
    #[arg(long, default_value_t = 200)]
    forks: u32,
    /// The daemon's interval: with 100ms a day's readings take a quarter of an hour
    #[arg(long, default_value = "10s")]
    interval: String,
    /// Take memtrace and bench-workload from this folder and build nothing
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

/// Lines that are printed while it runs.
const LINES: u32 = 10;

/// Watches it; fails where a goal is missed.
pub(crate) fn soak(workspace: &Workspace, options: &Options) -> Result<()> {
    let bin = match &options.programs {
        Some(folder) => folder.clone(),
        None => build(workspace)?,
    };
    let daemon = Daemon::start(&bin.join("memtrace"), &options.interval)?;
    let crowd = Crowd::start(&bin.join("bench-workload"), options.processes, options.forks)?;
    daemon.wait_for(options.processes)?;
    let begin = daemon.read()?;
    println!("     time  of a core    resident   files  metrics");
    let mut readings = Vec::new();
    for _ in 0..LINES {
        thread::sleep(Duration::from_secs(options.seconds.into()) / LINES);
        let reading = daemon.read()?;
        println!("{}", Line { begin: &begin, reading: &reading });
        readings.push(reading);
    }
    println!("{} processes came and went", crowd.stop()?);
    let by_default = options.interval == "10s";
    let missed = missed(&begin, &readings, by_default);
    ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

struct Line<'a> {
    begin: &'a Reading,
    reading: &'a Reading,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reading { at, resident, files, metrics, .. } = self.reading;
        let (time, percent) =
            (at.duration_since(self.begin.at), self.reading.percent_since(self.begin));
        let (seconds, kib) = (time.as_secs(), resident >> 10);
        write!(out, "{seconds:>7} s {percent:>8.3} % {kib:>7} KiB {files:>7} {metrics:>8}")
    }
}
