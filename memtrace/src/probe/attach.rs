//! Loads the object and attaches what the plan says. Nothing outlives [`Probes`]: dropped or killed,
//! the kernel detaches every program.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
};

use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::trace_point::TracePointLink,
};
use memtrace_common::ProbeStats;
use zerocopy::{FromBytes, IntoBytes};

use super::load::{attach, load, try_trampoline};
use super::{
    btf::KernelBtf,
    facts,
    plan::{Asked, KernelFacts, Plan, Step, Unsupported, Wanted, plan, plan_best},
    stacks::{self, Kinds, Links},
    table::PROBES,
};
use crate::model::report::{Evidence, ProbeReport};

/// What was asked of the probes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What the figures shall rest on; `None` for the most that this kernel gives.
    pub evidence: Option<Evidence>,
    /// Count every process of the machine, and follow none.
    pub machine: bool,
    /// Trace children too.
    pub follow: bool,
    /// One event for each page fault.
    pub fault_events: bool,
    /// The processes run already.
    pub running: bool,
    /// Measure how long freed frames keep what was in them.
    pub remanence: bool,
    /// Take call stacks.
    pub stacks: Kinds,
    /// Size of the ring buffer, bytes: a power of two and at least a page.
    pub buffer_bytes: u32,
    /// Level of the probes' own diagnostics, 0 for none (`aya_log_common::Level`).
    pub log_level: u8,
}

impl Options {
    /// Tells whether it is measured how long freed frames keep what was in them.
    pub(super) fn measures_remanence(&self, evidence: Evidence) -> bool {
        self.remanence && evidence == Evidence::Frames
    }

    /// Checks that the call stacks that were asked for can be taken.
    fn check_stacks(&self, evidence: Evidence, plan: &Plan) -> Result<(), NoStacks> {
        if self.stacks.reclaimed && evidence == Evidence::Args {
            return Err(NoStacks::Reclaimed);
        }
        let has_faults = plan.iter().any(|(probe, step)| {
            probe.wanted == Wanted::OnFaults && matches!(step, Step::Attach(_))
        });
        if self.stacks.faults && !has_faults {
            return Err(NoStacks::Faults);
        }
        Ok(())
    }

    /// Chooses the hooks for what was asked.
    fn plan(&self, facts: &KernelFacts) -> Result<(Evidence, Plan, Option<Unsupported>)> {
        let &Self { evidence, fault_events, machine, running, stacks, .. } = self;
        let faults = fault_events || stacks.faults;
        let asked = Asked { evidence: evidence.unwrap_or_default(), faults, machine, running };
        Ok(match evidence {
            Some(evidence) => (evidence, plan(PROBES, facts, asked)?, None),
            None => plan_best(PROBES, facts, asked)?,
        })
    }
}

/// Call stacks that this kernel, or the level of evidence that was asked for, does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoStacks {
    /// Nobody counts what calls give up.
    #[error("--stacks=reclaimed sums what calls gave up, which --evidence args does not count")]
    Reclaimed,
    /// Nobody tells page faults.
    #[error("--stacks=faults counts page faults, which this kernel has no tracepoint for")]
    Faults,
}

/// What the probes say of themselves, passed on to the `log` crate.
pub type Diagnostics = aya_log::EbpfLogger<&'static dyn log::Log>;

/// The attached probes.
pub struct Probes {
    pub(super) bpf: Ebpf,
    events: Events,
    pub(super) links: Links,
    pub(super) plan: Plan,
    pub(super) evidence: Evidence,
    /// CPUs that were online.
    pub(super) cpus: Vec<usize>,
    /// Each thread counts pages for itself before it adds them to its mm's counters (before 6.2).
    pub(super) threads_count: bool,
    /// An iterator over tasks can be started for one of them.
    pub(super) iterates_one: bool,
    /// It is measured how long freed frames keep what was in them.
    pub(super) remanence: bool,
    /// Whose call stacks are taken.
    kinds: Kinds,
}

/// What holds events of tracefs.
#[derive(Default)]
struct Events(Vec<TracePointLink>);

/// Lets them go side by side. For each the kernel waits until nobody is inside of it any more, some 60 ms
/// (`tracepoint_synchronize_unregister`, kernel/trace/trace_event_perf.c, 6.18); under one lock, but the
/// waits overlap: 12 take 0.4 s instead of 0.8 s.
impl Drop for Events {
    fn drop(&mut self) {
        thread::scope(|scope| {
            for link in self.0.drain(..) {
                scope.spawn(move || drop(link));
            }
        });
    }
}

/// A shared type, as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Wire<T>(pub(super) T);

// SAFETY: any bytes are a `T` (`FromBytes`) and none of them is padding (`IntoBytes`).
unsafe impl<T: FromBytes + IntoBytes + Copy + 'static> aya::Pod for Wire<T> {}

/// Asks the kernel what it offers and what memtrace would take of it.
pub fn examine() -> Result<KernelFacts> {
    let (mut facts, globals) = facts::read(&KernelBtf::read()?);
    let options = Options { buffer_bytes: 1 << 16, ..Options::default() };
    let mut bpf = load(&globals, options, Evidence::default(), 1)?;
    let btf = Btf::from_sys_fs().context("cannot read the kernel's types")?;
    facts.trampolines = try_trampoline(&mut bpf, &btf)?;
    Ok(facts)
}

impl Probes {
    /// Loads the object, attaches every probe that is wanted.
    pub fn attach(options: Options) -> Result<Self> {
        let (mut facts, globals) = facts::read(&KernelBtf::read()?);
        let cpus = online_cpus()?;
        // The level does not depend on what only a trial shows.
        facts.trampolines = true;
        let (evidence, ..) = options.plan(&facts)?;
        let mut bpf = load(&globals, options, evidence, cpus.len() as u32)?;
        let btf = Btf::from_sys_fs().context("cannot read the kernel's types")?;
        facts.trampolines = try_trampoline(&mut bpf, &btf)?;
        let (evidence, plan, why) = options.plan(&facts)?;
        if let Some(why) = why {
            log::warn!("{why}: it gives --evidence {} at most", evidence.name());
        }
        let threads_count = facts.tracepoints.get("rss_stat").is_some_and(|&count| count > 2);
        let iterates_one = facts.iterates_one;
        let remanence = options.measures_remanence(evidence);
        options.check_stacks(evidence, &plan)?;
        if let Some(bytes) = options.stacks.allocations {
            stacks::prepare(&mut bpf, &btf, bytes)?;
        }
        let (events, links) = (Events::default(), Links::default());
        let mut probes = Self {
            bpf,
            events,
            links,
            plan,
            evidence,
            cpus,
            threads_count,
            iterates_one,
            remanence,
            kinds: options.stacks,
        };
        for at in (0..probes.plan.len()).rev() {
            let (probe, step) = probes.plan[at];
            if let Step::Attach(programs) = step {
                for &program in programs {
                    let event = attach(&mut probes.bpf, program, &btf)
                        .with_context(|| format!("cannot attach the probe \"{}\"", probe.name))?;
                    probes.events.0.extend(event);
                }
            }
            if at + 1 == probes.plan.len() && evidence > Evidence::Args {
                // Snapshots come last in the table: the others need what it learns of each CPU.
                probes.anchor()?;
                if options.machine {
                    probes.seed_machine()?;
                }
            }
        }
        Ok(probes)
    }

    /// Returns what the figures rest on.
    pub const fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// Runs the probes' diagnostics into the `log` crate.
    pub fn diagnostics(&mut self) -> Result<Diagnostics> {
        aya_log::EbpfLogger::init(&mut self.bpf).context("cannot read the probes' diagnostics")
    }

    /// Returns the ring buffer; it can be taken once.
    pub fn events(&mut self) -> Result<RingBuf<MapData>> {
        let map = self.bpf.take_map("EVENTS").context("the ring buffer was taken before")?;
        Ok(RingBuf::try_from(map)?)
    }

    /// Traces process `tgid` from its next exec on.
    pub fn expect(&mut self, tgid: u32) -> Result<()> {
        let map = self.bpf.map_mut("TRACED").context("the object has no map TRACED")?;
        let mut traced: HashMap<_, u32, u32> = HashMap::try_from(map)?;
        traced.insert(tgid, 0, 0).context("cannot tell the probes whom to trace")
    }

    /// Sums the probes' counters over all CPUs.
    pub fn stats(&self) -> Result<ProbeStats> {
        let map = self.bpf.map("STATS").context("the object has no map STATS")?;
        let stats: PerCpuArray<_, Wire<ProbeStats>> = PerCpuArray::try_from(map)?;
        let per_cpu = stats.get(&0, 0)?;
        Ok(per_cpu.iter().fold(ProbeStats::default(), |sum, Wire(cpu)| sum + *cpu))
    }

    /// Counts the runs that the kernel skipped, since the same program was under way on the same
    /// CPU: it may be preempted by another thread (fexit; tracepoints from 7.0).
    pub fn missed(&self) -> Result<Missed> {
        let mut missed = Missed::default();
        for (_, step) in &self.plan {
            let Step::Attach(programs) = step else { continue };
            let mut last = None;
            for &(name, hook) in programs.iter().filter(|(_, hook)| !hook.is_iterator()) {
                // One program may have several hooks.
                if last.replace(name) == Some(name) {
                    continue;
                }
                // Where it looks for a call stack in memory that is not there it faults itself, which
                // nobody wants to see.
                if self.kinds.faults && name.starts_with("kernel_fault") {
                    continue;
                }
                let Some(fd) = self.bpf.program(name).and_then(|program| program.fd().ok()) else {
                    continue;
                };
                let runs = recursion_misses(fd.as_fd())
                    .with_context(|| format!("cannot read the statistics of {hook}"))?;
                missed.runs += runs;
                // The others' losses make figures smaller, not the map wrong.
                if name.starts_with("section") || name.starts_with("region") || hook.sees_calls() {
                    missed.region_runs += runs;
                }
            }
        }
        Ok(missed)
    }

    /// Says what became of each probe.
    pub fn report(&self) -> Vec<ProbeReport> {
        describe(&self.plan)
    }
}

/// Runs of probes that the kernel skipped, of any process of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// All of them.
    pub runs: u64,
    /// Those that change region maps.
    pub region_runs: u64,
}

/// Reads `recursion_misses` of a program (kernel/bpf/syscall.c, `bpf_prog_show_fdinfo`, 5.12).
fn recursion_misses(program: std::os::fd::BorrowedFd<'_>) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
    Ok(line.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
}

/// Says what becomes of each probe of a plan.
pub fn describe(plan: &Plan) -> Vec<ProbeReport> {
    let row = |&(probe, step): &(&'static super::plan::Probe, Step)| {
        let (hook, state) = match step {
            Step::Attach(programs) => {
                let mut hooks: Vec<String> =
                    programs.iter().map(|(_, hook)| hook.to_string()).collect();
                hooks.dedup();
                (Some(hooks.join(", ")), "attached")
            }
            Step::Skip => (None, "skipped"),
            Step::Unsupported => (None, "unsupported"),
        };
        ProbeReport { name: probe.name.to_owned(), hook, state }
    };
    plan.iter().map(row).collect()
}

fn online_cpus() -> Result<Vec<usize>> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online")
        .context("cannot read /sys/devices/system/cpu/online")?;
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let parse = |number: &str| number.parse::<usize>().context("cannot read the CPU list");
        cpus.extend(parse(first)?..=parse(last)?);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_stacks_that_nobody_can_give_are_an_error() {
        let stacks = Kinds { allocations: None, reclaimed: true, faults: true };
        let options = Options { stacks, ..Options::default() };
        let faults = PROBES.iter().find(|probe| probe.wanted == Wanted::OnFaults);
        let plan = |step| vec![(faults.expect("in the table"), step)];
        let attached = plan(Step::Attach(&[]));
        assert_eq!(options.check_stacks(Evidence::Rss, &attached), Ok(()));
        let none = options.check_stacks(Evidence::Args, &attached);
        assert_eq!(none, Err(NoStacks::Reclaimed));
        let none = options.check_stacks(Evidence::Frames, &plan(Step::Unsupported));
        assert_eq!(none, Err(NoStacks::Faults));
        assert_eq!(Options::default().check_stacks(Evidence::Args, &Vec::new()), Ok(()));
    }
}
