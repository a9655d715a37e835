//! Sums what the probes sampled, looks at the memory of what was freed, and names the call stacks.

use std::{collections::HashMap, ops::Range};

use memtrace_common::stacks::{Block, Gone};

use super::allocations::{Allocations, Sampled};
use crate::{
    model::{
        Model,
        build::stacks::{SampledProcess, Still, process_stacks},
        process::Process,
        region_map::PAGE,
        report::{Frame, ProcessStacks, Stacks},
        space::RegionKind,
    },
    probe::stacks::Samples,
    source::{
        procfs::{self, pagemap},
        symbols::Symbols,
    },
};

/// Sums what was sampled of each process.
pub(super) fn read(sampling: &mut Allocations, samples: &Samples, model: &Model) -> Stacks {
    let symbols = Symbols::default();
    let mut processes = Vec::new();
    for sampled in &mut sampling.processes {
        processes.push(process(sampled, samples, model, &symbols));
    }
    let stats = samples.stats;
    Stacks {
        sample_bytes: Some(sampling.sample_bytes.into()),
        allocations: Some(stats.allocations),
        frees: Some(stats.frees),
        samples: Some(stats.samples),
        lost: stats.lost,
        lost_stacks: stats.lost_stacks,
        cost: Some(sampling.cost),
        functions: sampling.functions.clone(),
        processes,
        ..Stacks::default()
    }
}

fn process(
    sampled: &mut Sampled,
    samples: &Samples,
    model: &Model,
    symbols: &Symbols,
) -> ProcessStacks {
    let Sampled { tgid, code, .. } = sampled;
    if let Some(space) = model.process(*tgid).and_then(Process::space).map(|id| model.space(id)) {
        let name = |vma: &_| model.region_name(vma, RegionKind::File).map(str::to_owned);
        code.add(space.regions.iter(), name);
    }
    let image = samples.images.get(tgid).copied().unwrap_or(0);
    let is_ours = |block: &Block| block.image == image;
    let live = samples.live.iter().filter(|(block, _)| is_ours(block));
    let freed = samples.freed.iter().filter(|(freer, _)| freer.image == image);
    let gone: Vec<(Block, Gone)> =
        samples.gone.iter().filter(|(block, _)| is_ours(block)).copied().collect();
    let process = SampledProcess {
        tgid: *tgid,
        live: live.map(|&(_, live)| live).collect(),
        freed: freed.map(|(freer, freed)| (freer.stack, *freed)).collect(),
        still: still_resident(*tgid, gone),
    };
    let keys: Vec<u64> = process.stacks().into_iter().collect();
    let known: Vec<(u64, &[u64])> = keys
        .iter()
        .filter_map(|key| Some((*key, samples.stacks.get(key)?.frames.as_slice())))
        .collect();
    let named = symbols.name(code, known.iter().map(|(_, stack)| *stack));
    let names: HashMap<u64, Vec<Frame>> = known.iter().map(|(key, _)| *key).zip(named).collect();
    process_stacks(process, names)
}

/// Returns what of freed blocks is still resident; `None` when the process is gone.
fn still_resident(tgid: u32, mut gone: Vec<(Block, Gone)>) -> Option<Vec<Still>> {
    gone.sort_unstable_by_key(|(block, _)| block.pointer);
    let pages = |block: &Block, gone: &Gone| -> Range<u64> {
        let end = block.pointer.saturating_add(gone.was.size.max(1));
        block.pointer & !(PAGE - 1)..end.checked_next_multiple_of(PAGE).unwrap_or(end)
    };
    let ranges = gone.iter().map(|(block, gone)| pages(block, gone));
    let mut resident = Vec::with_capacity(gone.len());
    let found = pagemap::each(tgid, ranges, |found| resident.push(found.anon + found.file));
    if let Err(error) = found {
        if !procfs::is_gone(&error) {
            log::warn!("cannot read what is resident of what process {tgid} freed: {error}");
        }
        return None;
    }
    let still = gone.iter().zip(resident).map(|((block, gone), resident)| {
        let Range { start, end } = pages(block, gone);
        Still { stack: gone.stack, weight: gone.was.weight, resident, pages: (end - start) / PAGE }
    });
    Some(still.collect())
}
