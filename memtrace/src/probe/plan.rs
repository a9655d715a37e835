//! Which program watches what on this kernel. Pure: facts in, plan out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::model::report::Evidence;

/// What this kernel offers. Facts only: the rules are in [`plan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    /// `fentry`/`fexit` programs load and attach.
    pub trampolines: bool,
    /// Functions that can be traced, of those that the table of probes names.
    pub functions: BTreeSet<&'static str>,
    /// Tracepoints of those that the table of probes names, with their number of arguments.
    pub tracepoints: BTreeMap<&'static str, usize>,
    /// Events of `syscalls` in tracefs, of those that the table of probes names.
    pub events: BTreeSet<&'static str>,
    /// Programs may look at the registers with which a thread entered the kernel (5.15).
    pub registers: bool,
    /// Iterators, of those that the table of probes names.
    pub iterators: BTreeSet<&'static str>,
    /// Fields of kernel structures that this kernel does not have, as `structure.member`, and the
    /// lowest level that needs each.
    pub missing_fields: BTreeMap<String, Evidence>,
    /// An iterator over tasks can be started for one of them (6.1).
    pub iterates_one: bool,
}

/// Where a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A tracepoint that passes just so many arguments, which the program reads untyped.
    RawTracepoint(&'static str, usize),
    /// A tracepoint, with typed arguments.
    BtfTracepoint(&'static str),
    /// An event of `syscalls` in tracefs: costs other calls less than the tracepoint of all of them.
    Event(&'static str),
    /// Return of a kernel function, through a trampoline: costs nothing elsewhere.
    Fexit(&'static str),
    /// A BPF iterator, started when a snapshot is wanted.
    Iterator(&'static str),
}

impl Hook {
    fn exists_on(self, kernel: &KernelFacts) -> bool {
        match self {
            Self::RawTracepoint(name, arguments) => {
                kernel.tracepoints.get(name) == Some(&arguments)
            }
            Self::BtfTracepoint(name) => kernel.tracepoints.contains_key(name),
            Self::Fexit(function) => kernel.trampolines && kernel.functions.contains(function),
            Self::Event(name) => kernel.registers && kernel.events.contains(name),
            Self::Iterator(name) => kernel.iterators.contains(name),
        }
    }
}

impl Hook {
    /// Tells whether it runs only when it is started.
    pub fn is_iterator(self) -> bool {
        matches!(self, Self::Iterator(_))
    }

    /// Tells whether it sees system calls return.
    pub fn sees_calls(self) -> bool {
        match self {
            Self::Fexit(function) => function.starts_with("__x64_sys_"),
            Self::BtfTracepoint(name) => name == "sys_exit",
            Self::Event(_) => true,
            Self::RawTracepoint(..) | Self::Iterator(_) => false,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RawTracepoint(name, _) => write!(f, "raw_tp/{name}"),
            Self::BtfTracepoint(name) => write!(f, "tp_btf/{name}"),
            Self::Event(name) => write!(f, "tracepoint/syscalls/{name}"),
            Self::Fexit(function) => write!(f, "fexit/{function}"),
            Self::Iterator(name) => write!(f, "iter/{name}"),
        }
    }
}

/// A program and where it attaches.
pub type Program = (&'static str, Hook);

/// When a probe is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Without it the report would be wrong: its absence is an error.
    Always,
    /// Unless every process of the machine is counted: then without it less is known, not wrong.
    ForProcesses,
    /// Only with `--events=faults` or `--stacks=faults`.
    OnFaults,
}

/// What was asked of the probes, as far as it decides which are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// What the figures shall rest on.
    pub evidence: Evidence,
    /// Page faults are told, or counted by call stack.
    pub faults: bool,
    /// Every process of the machine is counted, and none followed.
    pub machine: bool,
    /// Processes that run already. What they are in the middle of must be seen to return, which
    /// `fexit` does not: it needs to have seen the call.
    pub running: bool,
}

/// A thing to watch, and the sets of programs that can watch it, best first.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// What it observes, as users see it in `memtrace doctor`.
    pub name: &'static str,
    /// What it gives to the report.
    pub gives: &'static str,
    /// What it costs, as measured (docs/PERFORMANCE.md).
    pub cost: &'static str,
    /// When it is wanted.
    pub wanted: Wanted,
    /// The lowest level of evidence that has a use for it.
    pub evidence: Evidence,
    /// Sets of programs for [`Evidence::Args`], best first; all of a set are attached.
    pub args: Choices,
    /// Sets of programs for the levels at which is counted.
    pub counted: Choices,
}

/// Sets of programs that can do the same, best first.
pub type Choices = &'static [&'static [Program]];

impl Probe {
    /// Returns the sets of programs for a level of evidence.
    pub const fn choices(&self, evidence: Evidence) -> Choices {
        match evidence {
            Evidence::Args => self.args,
            Evidence::Rss | Evidence::Frames => self.counted,
        }
    }

    /// Returns every hook that it can take at any level.
    pub fn hooks(&self) -> impl Iterator<Item = Hook> {
        [self.args, self.counted].into_iter().flatten().copied().flatten().map(|&(_, hook)| hook)
    }
}

/// What to do about one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Attach these programs.
    Attach(&'static [Program]),
    /// Nobody asked for it.
    Skip,
    /// This kernel has no hook for it, but it is not needed.
    Unsupported,
}

/// The probes and what to do about each.
pub type Plan = Vec<(&'static Probe, Step)>;

/// A kernel on which memtrace would tell lies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// No choice of a required probe exists.
    #[error("this kernel has no hook for \"{probe}\" ({wanted})")]
    NoHook {
        /// The probe.
        probe: &'static str,
        /// The hooks that were looked for.
        wanted: String,
    },
    /// A field that the probes read does not exist.
    #[error("this kernel's types lack {0}")]
    NoField(String),
}

/// Chooses hooks for `probes` on `kernel`.
pub fn plan(
    probes: &'static [Probe],
    kernel: &KernelFacts,
    asked: Asked,
) -> Result<Plan, Unsupported> {
    let mut missing = kernel.missing_fields.iter();
    if let Some((field, _)) = missing.find(|&(_, &needed)| needed <= asked.evidence) {
        return Err(Unsupported::NoField(field.clone()));
    }
    probes.iter().map(|probe| Ok((probe, step(probe, kernel, asked)?))).collect()
}

/// Chooses hooks for the highest level of evidence that `kernel` gives, with the reason why it is
/// not a higher one.
pub fn plan_best(
    probes: &'static [Probe],
    kernel: &KernelFacts,
    asked: Asked,
) -> Result<(Evidence, Plan, Option<Unsupported>), Unsupported> {
    let mut why = None;
    for evidence in [Evidence::Frames, Evidence::Rss] {
        match plan(probes, kernel, Asked { evidence, ..asked }) {
            Ok(plan) => return Ok((evidence, plan, why)),
            Err(error) => why = why.or(Some(error)),
        }
    }
    let evidence = Evidence::Args;
    Ok((evidence, plan(probes, kernel, Asked { evidence, ..asked })?, why))
}

fn step(probe: &Probe, kernel: &KernelFacts, asked: Asked) -> Result<Step, Unsupported> {
    let unasked = match probe.wanted {
        Wanted::Always => false,
        Wanted::ForProcesses => asked.machine,
        Wanted::OnFaults => !asked.faults,
    };
    if unasked || probe.evidence > asked.evidence {
        return Ok(Step::Skip);
    }
    let choices = probe.choices(asked.evidence);
    let takes = |&(_, hook): &Program| {
        let misses_calls = asked.running && matches!(hook, Hook::Fexit(_)) && hook.sees_calls();
        hook.exists_on(kernel) && !misses_calls
    };
    let exists = |choice: &&[Program]| choice.iter().all(takes);
    match choices.iter().copied().find(exists) {
        Some(programs) => Ok(Step::Attach(programs)),
        None if probe.wanted != Wanted::OnFaults => {
            Err(Unsupported::NoHook { probe: probe.name, wanted: first_hooks(choices) })
        }
        None => Ok(Step::Unsupported),
    }
}

/// Returns the first hook of each choice.
fn first_hooks(choices: Choices) -> String {
    let firsts = choices.iter().filter_map(|choice| choice.first());
    firsts.map(|(_, hook)| hook.to_string()).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
