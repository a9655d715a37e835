//! `--stacks` of `run` and `attach`: who allocated what is not freed, and who freed; who gave pages up,
//! and who faulted.

mod allocations;
mod measure;
mod options;
mod read;
mod safe;
mod sums;

use std::path::Path;

use anyhow::Result;

pub(super) use self::options::StackOptions;
use self::{allocations::Allocations, sums::Sums};
use crate::{
    follow::Follower,
    model::{
        Model,
        change::{Change, What},
        report::{ProcessStacks, Report, StackKind},
    },
    probe::{attach::Probes, stacks::Kinds},
};

/// Whose call stacks are taken.
pub(super) struct Sampling {
    kinds: Vec<StackKind>,
    allocations: Option<Allocations>,
    sums: Option<Sums>,
}

impl Sampling {
    /// Prepares what was asked for; `None` when nothing was. No process is sampled yet.
    pub(super) fn new(probes: &mut Probes, options: &StackOptions) -> Result<Option<Self>> {
        let Kinds { allocations, reclaimed, faults } = options.kinds();
        let allocations = allocations.map(|bytes| Allocations::new(probes, bytes)).transpose()?;
        let sums = (reclaimed || faults).then(|| Sums::new(reclaimed, faults));
        let kinds = options.asked();
        let is_any = !kinds.is_empty();
        Ok(is_any.then_some(Self { kinds, allocations, sums }))
    }

    /// Tells whether children are traced, but not sampled.
    pub(super) const fn leaves_out_children(&self) -> bool {
        self.allocations.is_some()
    }

    /// Samples a process that runs already.
    pub(super) fn seed(&mut self, follower: &mut Follower, tgid: u32) -> Result<()> {
        if let Some(sums) = &mut self.sums {
            sums.seed(follower.model(), tgid);
        }
        match &mut self.allocations {
            Some(allocations) => allocations.seed(follower.probes_mut(), tgid),
            None => Ok(()),
        }
    }

    /// Samples a process from when it executes `program` on.
    pub(super) fn expect(&mut self, probes: &mut Probes, tgid: u32, program: &Path) -> Result<()> {
        if let Some(sums) = &mut self.sums {
            sums.expect(program);
        }
        match &mut self.allocations {
            Some(allocations) => allocations.expect(probes, tgid, program),
            None => Ok(()),
        }
    }

    /// Takes note of what was just applied to the model.
    pub(super) fn note(&mut self, model: &Model, change: &Change) {
        if let (Some(allocations), What::Exec { .. }) = (&mut self.allocations, &change.what) {
            allocations.executed(change.tgid);
        }
        if let Some(sums) = &mut self.sums {
            sums.note(model, change);
        }
    }

    /// Looks at what the processes have loaded meanwhile.
    pub(super) fn turn(&mut self, follower: &mut Follower) -> Result<()> {
        if let Some(sums) = &mut self.sums {
            sums.turn(follower.model());
        }
        match &mut self.allocations {
            Some(allocations) => allocations.turn(follower.probes_mut()),
            None => Ok(()),
        }
    }

    /// Ends sampling, and adds what was sampled to the report.
    pub(super) fn report(&mut self, follower: &mut Follower, report: &mut Report) -> Result<()> {
        let read = self.allocations.as_mut().map(|sampled| sampled.read(follower, report));
        let mut stacks = read.transpose()?.unwrap_or_default();
        stacks.kinds.clone_from(&self.kinds);
        if let Some(sums) = &mut self.sums {
            let stats = follower.probes().sampling()?;
            stacks.lost_stacks = stats.lost_stacks;
            stacks.lost_reclaims = stats.lost_reclaims;
            stacks.lost_faults = stats.lost_faults;
            for summed in sums.read(follower)? {
                let mut known = stacks.processes.iter_mut();
                match known.find(|known| known.tgid == summed.tgid) {
                    Some(known) => {
                        let ProcessStacks { reclaimed_by, faulted_by, .. } = summed;
                        (known.reclaimed_by, known.faulted_by) = (reclaimed_by, faulted_by);
                    }
                    None => stacks.processes.push(summed),
                }
            }
        }
        report.stacks = Some(stacks);
        Ok(())
    }
}
