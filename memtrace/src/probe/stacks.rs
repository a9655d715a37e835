//! Samples who allocates and who frees: programs on an allocator's functions, for single processes.
//! Nobody else pays: the kernel puts a breakpoint into the memory of these processes alone.

use std::{collections::HashMap as StdMap, num::NonZeroU32, path::Path, thread};

use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues},
    programs::{
        UProbe,
        uprobe::{UProbeLink, UProbeScope},
    },
    util::nr_cpus,
};
use memtrace_common::stacks::{
    Block, Freed, Freer, Gone, INTERVALS, Live, Stack, StackStats, image,
};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    attach::{Probes, Wire},
    load::{self, program},
    plan::Hook,
    sums,
};
use crate::source::{
    allocator_functions::{Function, Provider, Role},
    procfs,
};

/// Whose call stacks are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Those that allocate and free, one byte of so many.
    pub allocations: Option<u32>,
    /// Those that give pages up.
    pub reclaimed: bool,
    /// Those that fault.
    pub faults: bool,
}

/// Entries of the maps when allocations are sampled: some 25 MB of kernel memory.
const SIZES: [(&str, u32); 6] = [
    ("SAMPLED", 1024),
    ("LIVE", 65_536),
    ("GONE", 65_536),
    ("FREED", 8_192),
    ("STACKS", 8_192),
    ("AWAITED", 16_384),
];

/// A map that is read while entries come and go is read to here, at most.
const MOST_ENTRIES: usize = 131_072;

/// The programs on functions, and what follows exec.
const ON_FUNCTIONS: [&str; 10] = [
    "malloc_enter",
    "new_enter",
    "calloc_enter",
    "aligned_enter",
    "posix_enter",
    "realloc_enter",
    "free_enter",
    "pointer_return",
    "posix_return",
    "realloc_return",
];
const ON_EXEC: (&str, Hook) = ("image_tracepoint", Hook::BtfTracepoint("sched_process_exec"));

/// What holds the probes on functions.
#[derive(Default)]
pub(super) struct Links(Vec<UProbeLink>);

/// Lets them go side by side: for each the kernel waits until nobody is inside of it any more.
impl Drop for Links {
    fn drop(&mut self) {
        thread::scope(|scope| {
            for link in self.0.drain(..) {
                scope.spawn(move || drop(link));
            }
        });
    }
}

/// What was sampled, of all processes.
#[derive(Debug, Default)]
pub struct Samples {
    /// Allocated and not freed.
    pub live: Vec<(Block, Live)>,
    /// Freed and not given out again.
    pub gone: Vec<(Block, Gone)>,
    /// Freed, by who did it.
    pub freed: Vec<(Freer, Freed)>,
    /// Call stacks by their key.
    pub stacks: StdMap<u64, Stack>,
    /// The program that each process runs now ([`image`]).
    pub images: StdMap<u32, u64>,
    /// What the probes counted.
    pub stats: StackStats,
}

/// Makes room for what is asked for, and has the probes do it.
pub(super) fn size_maps<'a>(loader: &mut EbpfLoader<'a>, kinds: &'a Kinds) {
    let Kinds { allocations, reclaimed, faults } = kinds;
    if let Some(bytes) = allocations {
        loader.override_global("SAMPLE_BYTES", bytes, true);
        for (map, entries) in SIZES {
            loader.map_max_entries(map, entries);
        }
    }
    sums::size_maps(loader, *reclaimed, *faults);
}

/// Loads the programs, and has what they need ready.
pub(super) fn prepare(bpf: &mut Ebpf, btf: &Btf, sample_bytes: u32) -> Result<()> {
    for name in ON_FUNCTIONS {
        let program: &mut UProbe = program(bpf, name)?.try_into()?;
        program.load().map_err(|error| load::explain(name, "functions", error))?;
    }
    load::attach(bpf, ON_EXEC, btf)?;
    let intervals = intervals(sample_bytes);
    let map = bpf.map_mut("INTERVALS").context("the object has no map INTERVALS")?;
    let mut kept: Array<_, u64> = Array::try_from(map)?;
    for (index, interval) in (0..).zip(&intervals) {
        kept.set(index, interval, 0)?;
    }
    // Each CPU begins somewhere else.
    let cpus = nr_cpus().map_err(|(path, error)| error_of(path, error))?;
    let first = |cpu: usize| intervals[(cpu * 97 + std::process::id() as usize) % intervals.len()];
    let firsts = PerCpuValues::try_from((0..cpus).map(first).collect::<Vec<u64>>())?;
    let map = bpf.map_mut("UNTIL_SAMPLE").context("the object has no map UNTIL_SAMPLE")?;
    let mut until: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
    Ok(until.set(0, firsts, 0)?)
}

fn error_of(path: &str, error: std::io::Error) -> anyhow::Error {
    anyhow::Error::from(error).context(format!("cannot read {path}"))
}

/// Returns distances between random points on a line, `mean` apart on average: the middles of slices
/// of the exponential distribution that are equally likely.
fn intervals(mean: u32) -> Vec<u64> {
    let slices = f64::from(INTERVALS);
    let raw: Vec<f64> = (0..INTERVALS).map(|i| -((f64::from(i) + 0.5) / slices).ln()).collect();
    let scale = f64::from(mean) * slices / raw.iter().sum::<f64>();
    raw.iter().map(|interval| ((interval * scale).round() as u64).max(1)).collect()
}

impl Probes {
    /// Puts probes on the functions of an allocator, in the memory of one process.
    pub fn probe_functions(&mut self, pid: u32, provider: &Provider) -> Result<()> {
        let thread = procfs::living_thread(pid).and_then(NonZeroU32::new);
        let thread = thread.with_context(|| format!("process {pid} is gone"))?;
        for function in &provider.functions {
            let (enter, leave) = programs(function.role);
            for name in [Some(enter), leave].into_iter().flatten() {
                self.probe(name, function, &provider.path, thread).with_context(|| {
                    format!("cannot probe {} of {}", function.name, provider.name)
                })?;
            }
        }
        Ok(())
    }

    fn probe(
        &mut self,
        name: &str,
        function: &Function,
        path: &Path,
        thread: NonZeroU32,
    ) -> Result<()> {
        let program: &mut UProbe = program(&mut self.bpf, name)?.try_into()?;
        let link = program.attach(function.offset, path, UProbeScope::OneProcess(thread))?;
        self.links.0.push(program.take_link(link)?);
        Ok(())
    }

    /// Takes all probes off functions.
    pub fn release_functions(&mut self) {
        drop(std::mem::take(&mut self.links));
    }

    /// Samples a process: `number` is 1 when it runs its program already, 0 when it will execute it.
    pub fn sample(&mut self, tgid: u32, number: u32) -> Result<()> {
        let map = self.bpf.map_mut("SAMPLED").context("the object has no map SAMPLED")?;
        let mut sampled: HashMap<_, u32, u32> = HashMap::try_from(map)?;
        sampled.insert(tgid, number, 0).context("cannot tell the probes whom to sample")
    }

    /// Ends sampling a process.
    pub fn end_sampling(&mut self, tgid: u32) -> Result<()> {
        let map = self.bpf.map_mut("SAMPLED").context("the object has no map SAMPLED")?;
        let mut sampled: HashMap<_, u32, u32> = HashMap::try_from(map)?;
        Ok(sampled.remove(&tgid)?)
    }

    /// Ends sampling and reads what was sampled. The probes stay where they are until they are
    /// released: that takes the kernel a while.
    pub fn samples(&mut self) -> Result<Samples> {
        let numbers: Vec<(u32, u32)> = self.entries("SAMPLED")?;
        for &(tgid, _) in &numbers {
            self.end_sampling(tgid)?;
        }
        Ok(Samples {
            live: self.wires("LIVE")?,
            gone: self.wires("GONE")?,
            freed: self.wires("FREED")?,
            stacks: self.call_stacks()?,
            images: numbers.into_iter().map(|(tgid, n)| (tgid, image(tgid, n))).collect(),
            stats: self.sampling()?,
        })
    }

    /// Reads all call stacks, by their key.
    pub fn call_stacks(&self) -> Result<StdMap<u64, Stack>> {
        let stacks: Vec<(u64, Wire<Stack>)> = self.entries("STACKS")?;
        Ok(stacks.into_iter().map(|(key, Wire(stack))| (key, stack)).collect())
    }

    /// Sums what the probes counted.
    pub fn sampling(&self) -> Result<StackStats> {
        let map = self.bpf.map("STACK_STATS").context("the object has no map STACK_STATS")?;
        let stats: PerCpuArray<_, Wire<StackStats>> = PerCpuArray::try_from(map)?;
        let per_cpu = stats.get(&0, 0)?;
        Ok(per_cpu.iter().fold(StackStats::default(), |sum, Wire(cpu)| sum + *cpu))
    }

    pub(super) fn wires<K, V>(&self, name: &str) -> Result<Vec<(K, V)>>
    where
        K: FromBytes + IntoBytes + Copy + 'static,
        V: FromBytes + IntoBytes + Copy + 'static,
    {
        let entries: Vec<(Wire<K>, Wire<V>)> = self.entries(name)?;
        Ok(entries.into_iter().map(|(Wire(key), Wire(value))| (key, value)).collect())
    }

    /// Reads a map that may change meanwhile: an entry that is removed is left out, and the reading
    /// ends even when entries keep coming.
    fn entries<K: aya::Pod, V: aya::Pod>(&self, name: &str) -> Result<Vec<(K, V)>> {
        let map = self.bpf.map(name).with_context(|| format!("the object has no map {name}"))?;
        let map: HashMap<&MapData, K, V> = HashMap::try_from(map)?;
        Ok(map.iter().take(MOST_ENTRIES).filter_map(Result::ok).collect())
    }
}

/// Returns the programs for a function: as it is entered, and as it returns.
const fn programs(role: Role) -> (&'static str, Option<&'static str>) {
    match role {
        Role::Free => ("free_enter", None),
        Role::Malloc => ("malloc_enter", Some("pointer_return")),
        Role::New => ("new_enter", Some("pointer_return")),
        Role::Calloc => ("calloc_enter", Some("pointer_return")),
        Role::Aligned => ("aligned_enter", Some("pointer_return")),
        Role::Posix => ("posix_enter", Some("posix_return")),
        Role::Realloc => ("realloc_enter", Some("realloc_return")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_the_mean_that_was_asked_for_and_spread_as_random_points_do() {
        for mean in [4096, 1 << 19, 1 << 30] {
            let intervals = intervals(mean);
            assert_eq!(intervals.len() as u32, INTERVALS);
            let average = intervals.iter().sum::<u64>() as f64 / f64::from(INTERVALS);
            assert!((average / f64::from(mean) - 1.0).abs() < 1e-3, "{average} {mean}");
            let short = intervals.iter().filter(|&&i| i < u64::from(mean) / 10).count();
            // 1 - exp(-0.1) of them
            assert!((20..30).contains(&short), "{short}");
        }
    }
}
