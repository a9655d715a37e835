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
            Self::RawTracepoint(..) | Self::Iterator(_) => false,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RawTracepoint(name, _) => write!(f, "raw_tp/{name}"),
            Self::BtfTracepoint(name) => write!(f, "tp_btf/{name}"),
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
    /// Only with `--events faults`.
    OnFaultEvents,
}

/// What was asked of the probes, as far as it decides which are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// What the figures shall rest on.
    pub evidence: Evidence,
    /// One event for each page fault.
    pub fault_events: bool,
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
    let unasked = probe.wanted == Wanted::OnFaultEvents && !asked.fault_events;
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
        None if probe.wanted == Wanted::Always => {
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
mod tests {
    use super::{Hook::*, *};
    use crate::probe::table::PROBES;

    /// A kernel that offers everything.
    fn capable() -> KernelFacts {
        let mut facts = KernelFacts { trampolines: true, ..KernelFacts::default() };
        for hook in PROBES.iter().flat_map(Probe::hooks) {
            match hook {
                RawTracepoint(name, arguments) => {
                    facts.tracepoints.entry(name).or_insert(arguments);
                }
                BtfTracepoint(name) => {
                    facts.tracepoints.insert(name, 3);
                }
                Fexit(function) => {
                    facts.functions.insert(function);
                }
                Iterator(name) => {
                    facts.iterators.insert(name);
                }
            }
        }
        facts
    }

    const RUN: Asked = Asked { evidence: Evidence::Frames, fault_events: false, running: false };
    const FAULTS: Asked = Asked { fault_events: true, ..RUN };

    fn step_of(plan: &Plan, name: &str) -> Step {
        plan.iter().find(|(probe, _)| probe.name == name).expect("in the table").1
    }

    #[test]
    fn memory_calls_take_fexit_where_it_loads() {
        let plan = plan(PROBES, &capable(), RUN).expect("supported");
        let Step::Attach(programs) = step_of(&plan, "memory calls") else {
            panic!("not attached");
        };
        assert_eq!(programs[0], ("mmap_fexit", Fexit("__x64_sys_mmap")));
    }

    #[test]
    fn without_trampolines_memory_calls_fall_back_to_the_tracepoint() {
        let kernel = KernelFacts { trampolines: false, ..capable() };
        let plan = plan(PROBES, &kernel, RUN).expect("supported");
        let programs = &[("call_tracepoint", BtfTracepoint("sys_exit"))];
        assert_eq!(step_of(&plan, "memory calls"), Step::Attach(programs));
    }

    #[test]
    fn a_running_process_is_seen_to_return_from_calls_that_it_is_in() {
        let running = Asked { running: true, ..RUN };
        let plan = plan(PROBES, &capable(), running).expect("supported");
        let programs = &[("call_tracepoint", BtfTracepoint("sys_exit"))];
        assert_eq!(step_of(&plan, "memory calls"), Step::Attach(programs));
    }

    #[test]
    fn one_missing_function_makes_the_whole_choice_fall_back() {
        let mut kernel = capable();
        kernel.functions.remove("__x64_sys_shmdt");
        let plan = plan(PROBES, &kernel, RUN).expect("supported");
        let programs = &[("call_tracepoint", BtfTracepoint("sys_exit"))];
        assert_eq!(step_of(&plan, "memory calls"), Step::Attach(programs));
    }

    #[test]
    fn another_number_of_arguments_takes_another_program() {
        let mut kernel = capable();
        kernel.tracepoints.insert("mmap_lock_acquire_returned", 4);
        let steps = plan(PROBES, &kernel, RUN).expect("supported");
        let Step::Attach(programs) = step_of(&steps, "write sections") else {
            panic!("not attached");
        };
        assert_eq!(programs[0].0, "section_memcg_tracepoint");
        kernel.tracepoints.insert("mmap_lock_acquire_returned", 5);
        assert!(plan(PROBES, &kernel, RUN).is_err());
    }

    #[test]
    fn fault_events_are_attached_only_when_asked_for() {
        let quiet = plan(PROBES, &capable(), RUN).expect("supported");
        assert_eq!(step_of(&quiet, "user faults"), Step::Skip);
        let loud = plan(PROBES, &capable(), FAULTS).expect("supported");
        assert!(matches!(step_of(&loud, "user faults"), Step::Attach(_)));
    }

    #[test]
    fn fault_events_that_do_not_exist_are_named_and_do_no_harm() {
        let mut kernel = capable();
        kernel.tracepoints.remove("page_fault_user");
        let plan = plan(PROBES, &kernel, FAULTS).expect("supported");
        assert_eq!(step_of(&plan, "user faults"), Step::Unsupported);
    }

    #[test]
    fn a_required_probe_without_a_hook_is_an_error_that_names_it() {
        let mut kernel = capable();
        kernel.tracepoints.remove("ma_write");
        let error = plan(PROBES, &kernel, RUN).expect_err("unsupported");
        assert_eq!(
            error.to_string(),
            "this kernel has no hook for \"region changes\" (raw_tp/ma_write)"
        );
    }

    #[test]
    fn a_missing_field_is_an_error_that_names_it() {
        let mut kernel = capable();
        kernel.missing_fields.insert("mm_struct.mm_mt".to_owned(), Evidence::Rss);
        let error = plan(PROBES, &kernel, RUN).expect_err("unsupported");
        assert_eq!(error.to_string(), "this kernel's types lack mm_struct.mm_mt");
    }

    #[test]
    fn a_lower_level_attaches_less() {
        let attached = |evidence| {
            let plan = plan(PROBES, &capable(), Asked { evidence, ..RUN }).expect("supported");
            let attached = plan.iter().filter(|(_, step)| matches!(step, Step::Attach(_)));
            attached.map(|(probe, _)| probe.name).collect::<Vec<_>>()
        };
        let calls = ["memory calls", "fork", "exec", "exit", "end of address spaces", "snapshots"];
        assert_eq!(attached(Evidence::Args), calls);
        assert!(!attached(Evidence::Rss).contains(&"freed frames"));
        assert!(attached(Evidence::Rss).contains(&"pages in and out"));
        assert!(attached(Evidence::Frames).contains(&"freed frames"));
    }

    /// What Linux 5.10 lacks.
    fn old() -> KernelFacts {
        let mut kernel = capable();
        for tracepoint in ["ma_write", "mmap_lock_acquire_returned", "exit_mmap"] {
            kernel.tracepoints.remove(tracepoint);
        }
        kernel.iterators.remove("task_vma");
        kernel.missing_fields.insert("mm_struct.mm_mt".to_owned(), Evidence::Rss);
        kernel
    }

    #[test]
    fn a_kernel_that_counts_nothing_for_us_still_has_arguments() {
        let (evidence, plan, why) = plan_best(PROBES, &old(), RUN).expect("supported");
        assert_eq!(evidence, Evidence::Args);
        assert_eq!(why, Some(Unsupported::NoField("mm_struct.mm_mt".to_owned())));
        let Step::Attach(programs) = step_of(&plan, "end of address spaces") else {
            panic!("not attached");
        };
        assert_eq!(programs, &[("mm_end_args_fexit", Fexit("exit_mmap"))]);
    }

    #[test]
    fn the_end_of_an_address_space_is_seen_of_running_processes_too() {
        let running = Asked { running: true, ..RUN };
        let (evidence, ..) = plan_best(PROBES, &old(), running).expect("supported");
        assert_eq!(evidence, Evidence::Args);
    }

    #[test]
    fn a_kernel_that_gives_everything_gives_frames() {
        let (evidence, _, why) = plan_best(PROBES, &capable(), RUN).expect("supported");
        assert_eq!((evidence, why), (Evidence::Frames, None));
    }

    #[test]
    fn a_kernel_without_calls_is_unsupported_and_the_reason_is_the_lowest_levels() {
        let mut kernel = old();
        kernel.trampolines = false;
        let error = plan_best(PROBES, &kernel, RUN).expect_err("no end of address spaces");
        assert_eq!(
            error.to_string(),
            "this kernel has no hook for \"end of address spaces\" (tp_btf/exit_mmap or \
             fexit/exit_mmap)"
        );
    }
}
