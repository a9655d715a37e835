use super::{Hook::*, *};
use crate::probe::table::PROBES;

/// A kernel that offers everything.
fn capable() -> KernelFacts {
    let mut facts = KernelFacts { trampolines: true, registers: true, ..KernelFacts::default() };
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
            Event(name) => {
                facts.events.insert(name);
            }
            Iterator(name) => {
                facts.iterators.insert(name);
            }
        }
    }
    facts
}

const RUN: Asked =
    Asked { evidence: Evidence::Frames, faults: false, machine: false, running: false };
const FAULTS: Asked = Asked { faults: true, ..RUN };

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

/// Returns the first program of the memory calls.
fn first_of_calls(kernel: &KernelFacts, asked: Asked) -> Program {
    let plan = plan(PROBES, kernel, asked).expect("supported");
    let Step::Attach(programs) = step_of(&plan, "memory calls") else {
        panic!("not attached");
    };
    programs[0]
}

#[test]
fn without_trampolines_memory_calls_take_the_events_of_the_calls() {
    let kernel = KernelFacts { trampolines: false, ..capable() };
    assert_eq!(first_of_calls(&kernel, RUN), ("call_exit", Event("sys_exit_mmap")));
    let args = Asked { evidence: Evidence::Args, ..RUN };
    assert_eq!(first_of_calls(&kernel, args), ("call_exit_args", Event("sys_exit_mmap")));
}

#[test]
fn without_tracefs_or_registers_memory_calls_fall_back_to_the_tracepoint_of_all() {
    let all = ("call_tracepoint", BtfTracepoint("sys_exit"));
    let mut kernel = KernelFacts { trampolines: false, ..capable() };
    kernel.events.remove("sys_exit_shmdt");
    assert_eq!(first_of_calls(&kernel, RUN), all);
    let kernel = KernelFacts { trampolines: false, registers: false, ..capable() };
    assert_eq!(first_of_calls(&kernel, RUN), all);
}

#[test]
fn a_running_process_is_seen_to_return_from_calls_that_it_is_in() {
    let running = Asked { running: true, ..RUN };
    assert_eq!(first_of_calls(&capable(), running).1, Event("sys_exit_mmap"));
}

#[test]
fn one_missing_function_makes_the_whole_choice_fall_back() {
    let mut kernel = capable();
    kernel.functions.remove("__x64_sys_shmdt");
    assert_eq!(first_of_calls(&kernel, RUN).1, Event("sys_exit_mmap"));
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
fn what_follows_region_maps_is_not_attached_for_a_whole_machine() {
    let steps = |machine| {
        let plan = plan(PROBES, &capable(), Asked { machine, ..RUN }).expect("supported");
        let attached = plan.iter().filter(|(_, step)| matches!(step, Step::Attach(_)));
        attached.map(|(probe, _)| probe.name).collect::<Vec<_>>()
    };
    let (processes, machine) = (steps(false), steps(true));
    for name in ["write sections", "region changes", "exit", "new frames"] {
        assert!(processes.contains(&name) && !machine.contains(&name), "{name}");
    }
    for name in ["pages in and out", "freed frames", "memory calls", "fork", "exec"] {
        assert!(machine.contains(&name), "{name}");
    }
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
