//! One look at processes, without a probe: what `maps` and `report` show.

use std::{collections::HashMap, io};

use anyhow::{Context as _, Result};
use memtrace_common::Event;

use super::tracer::{now_ns, surroundings};
use crate::{
    model::{Model, build, report::Report},
    source::procfs::{self, Found, Regions},
};

/// A process as it was read.
pub(super) struct Look {
    pid: u32,
    found: Found,
    /// Its regions, what is resident in them, and what its allocators hold.
    pub(super) regions: Regions,
}

impl Look {
    /// Reads the regions of a process.
    pub(super) fn at(pid: u32, found: Found) -> io::Result<Self> {
        Ok(Self { pid, found, regions: procfs::regions(pid)? })
    }

    /// Returns its executable.
    pub(super) fn exe(&self) -> Option<&str> {
        self.found.exe.as_deref()
    }
}

/// Returns the report about processes that were looked at.
pub(super) fn report(looks: Vec<Look>) -> Result<Report> {
    let mut model = Model::default();
    let mut residency = HashMap::new();
    for Look { pid, found, regions } in looks {
        let mut seed = procfs::seed(pid, &found.stat, &regions.residency);
        // Nobody said which address space it is: it is the process's own.
        seed.header.mm = pid.into();
        model.apply(&Event::TaskSeed(seed));
        model.replace_regions(seed.header.mm, &regions.regions, 0);
        if let Some(process) = model.process_mut(pid) {
            process.comm = found.stat.comm;
            process.exe = found.exe;
        }
        residency.insert(pid, regions.residency);
    }
    let surroundings = surroundings(now_ns()?).context("cannot read what this machine is")?;
    Ok(build::report(&model, surroundings, &residency))
}
