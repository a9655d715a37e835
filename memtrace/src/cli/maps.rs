//! `memtrace maps`: one look at a region map, without a probe.

use std::{collections::HashMap, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use memtrace_common::Event;

use super::{
    Common, Outcome,
    attach::check_process,
    output::{Output, Stream},
    tracer::{now_ns, surroundings},
};
use crate::{
    model::{Model, build::report},
    source::procfs,
};

/// Shows the region map of a process, without tracing it.
#[derive(Debug, Args)]
pub(super) struct Maps {
    /// The process.
    #[arg(value_name = "PID")]
    pid: u32,
}

impl Maps {
    /// Reads and shows.
    pub(super) fn main(self, common: &Common) -> Outcome {
        let pid = self.pid;
        let found = check_process(pid)?;
        let mut output = Output::open(common, Stream::Stdout)?;
        let regions =
            procfs::regions(pid).with_context(|| format!("cannot read /proc/{pid}/smaps"))?;
        let seed = procfs::seed(pid, &found.stat, &regions.residency);
        let mut model = Model::default();
        model.apply(&Event::TaskSeed(seed));
        model.replace_regions(seed.header.mm, &regions.regions, 0);
        if let Some(process) = model.process_mut(pid) {
            process.comm = found.stat.comm;
            process.exe = found.exe;
        }
        let surroundings = surroundings(now_ns()?)?;
        let residency = HashMap::from([(pid, regions.residency)]);
        let mut report = report(&model, surroundings, &residency);
        for process in &mut report.processes {
            // Hexadecimal of the same length sorts as the number does; a shorter one is smaller.
            process
                .regions
                .sort_by(|a, b| (a.start.len(), &a.start).cmp(&(b.start.len(), &b.start)));
        }
        output.write_maps(&report)?;
        Ok(ExitCode::SUCCESS)
    }
}
