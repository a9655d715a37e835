//! What the probes cost: how long each program ran, where the kernel measures that, and to do with less.

use std::{fs, os::fd::OwnedFd};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    programs::{BtfTracePoint, Program as Loaded, RawTracePoint},
    sys::{Stats, enable_stats},
};

use super::{
    attach::Probes,
    plan::{Program, Step},
};
use crate::model::{report::Evidence, top::ProgramRuns};

/// Has the kernel measure how long every BPF program of the machine runs, until it is dropped.
#[derive(Debug)]
pub struct Measuring(#[expect(dead_code, reason = "it measures as long as this is open")] OwnedFd);

impl Measuring {
    /// Begins. Each run of a program takes some 30 ns longer then.
    ///
    /// Errors: `EPERM` without CAP_SYS_ADMIN (`bpf_enable_stats`, kernel/bpf/syscall.c, 5.8 to 7.3).
    pub fn begin() -> Result<Self> {
        let file = enable_stats(Stats::RunTime).context("the kernel does not measure programs")?;
        Ok(Self(file))
    }
}

/// Tells whether the machine is set so that all programs are measured all the time
/// (`kernel.bpf_stats_enabled`, Documentation/admin-guide/sysctl/kernel.rst).
pub fn is_always_measured() -> bool {
    fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() == "1")
}

impl Probes {
    /// Returns how long each program ran while that was measured.
    pub fn runs(&self) -> Result<Vec<ProgramRuns>> {
        let mut runs: Vec<ProgramRuns> = Vec::new();
        for &(name, hook) in self.attached() {
            // One program may have several hooks.
            if hook.is_iterator() || runs.iter().any(|known| known.program == name) {
                continue;
            }
            let program = self.bpf.program(name).context("the object has no such program")?;
            let info = program.info().with_context(|| format!("cannot ask about {name}"))?;
            let time_ns = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
            runs.push(ProgramRuns { program: name, times: info.run_count(), time_ns });
        }
        Ok(runs)
    }

    /// Detaches what is there for frames alone: from now on the figures rest on what the kernel counts for
    /// each address space.
    pub fn leave_frames_out(&mut self) -> Result<()> {
        for at in 0..self.plan.len() {
            let (probe, step) = self.plan[at];
            if probe.evidence < Evidence::Frames {
                continue;
            }
            if let Step::Attach(programs) = step {
                for &(name, _) in programs {
                    self.unload(name).with_context(|| format!("cannot detach {name}"))?;
                }
                self.plan[at].1 = Step::Skip;
            }
        }
        self.evidence = self.evidence.min(Evidence::Rss);
        Ok(())
    }

    fn unload(&mut self, name: &str) -> Result<()> {
        let program = self.bpf.program_mut(name).context("the object has no such program")?;
        match program {
            Loaded::RawTracePoint(program) => RawTracePoint::unload(program)?,
            Loaded::BtfTracePoint(program) => BtfTracePoint::unload(program)?,
            _ => return Err(anyhow!("no such program is there for frames alone")),
        }
        Ok(())
    }

    fn attached(&self) -> impl Iterator<Item = &'static Program> {
        self.plan.iter().flat_map(|(_, step)| match step {
            Step::Attach(programs) => *programs,
            Step::Skip | Step::Unsupported => &[],
        })
    }
}
