//! Asks the running kernel what it offers: its BTF for names, arguments and offsets.

use std::{
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
};

use memtrace_common::control::{FIELDS, NO_FIELD, PG_UPTODATE};
use nix::errno::Errno;

use super::{
    btf::KernelBtf,
    plan::{Hook, KernelFacts, Probe},
    table::PROBES,
};
use crate::{model::report::Evidence, source::cgroups};

/// Values of the object's globals that depend on the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    /// Byte offsets of [`FIELDS`], by name of the global.
    pub offsets: Vec<(&'static str, u32)>,
    /// Others, by name of the global.
    pub others: Vec<(&'static str, u32)>,
}

/// Tells whether tracefs, where it is mounted, has an event of a system call.
fn has_event(name: &str) -> bool {
    let mounts = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    mounts.iter().any(|mount| Path::new(&format!("{mount}/events/syscalls/{name}/id")).exists())
}

/// Tells whether this process may attach to events of tracefs at all. With `kernel.perf_event_paranoid` at 3,
/// Debian's default, its kernels refuse that to who has `CAP_PERFMON` and not `CAP_SYS_ADMIN` (seen on 6.1,
/// 6.12 and 7.3). An event that is never counted tells.
fn may_open_events() -> bool {
    const PERF_TYPE_SOFTWARE: u64 = 1;
    const PERF_COUNT_SW_DUMMY: u64 = 9;
    const PERF_ATTR_SIZE_VER0: u64 = 64;
    // `perf_event_attr`: type and size, which are u32, then config (perf_event_open(2)).
    let mut attributes = [0_u64; 8];
    attributes[..2]
        .copy_from_slice(&[PERF_TYPE_SOFTWARE | PERF_ATTR_SIZE_VER0 << 32, PERF_COUNT_SW_DUMMY]);
    let (any_thread, cpu, group, flags) = (-1, 0, -1, 0);
    // SAFETY: the kernel reads as many bytes as it is told that there are.
    let event = unsafe {
        let attributes = attributes.as_ptr();
        libc::syscall(libc::SYS_perf_event_open, attributes, any_thread, cpu, group, flags)
    };
    let Ok(event) = Errno::result(event) else {
        return !matches!(Errno::last(), Errno::EACCES | Errno::EPERM);
    };
    // SAFETY: it was just opened, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(event as i32) });
    true
}

/// Returns the lowest level of evidence that needs a field, `None` when this kernel does without.
fn needed_by(global: &str, percpu_counters: bool) -> Option<Evidence> {
    match global {
        "PERCPU_COUNT" | "PERCPU_COUNTERS" | "ARRAY_PPTRS" => {
            percpu_counters.then_some(Evidence::Rss)
        }
        // Threads count for themselves only where the mm's counters are not per CPU.
        "TASK_RSS_CACHE" => (!percpu_counters).then_some(Evidence::Rss),
        // Only shown: a kernel without it shows less.
        "MM_VDSO" | "TASK_CGROUPS" | "SET_CGROUP" | "STATE_CGROUP" | "CGROUP_NODE" | "NODE_ID" => {
            None
        }
        "MM_START_BRK" | "MM_BRK" | "MM_START_STACK" | "BPRM_FILENAME" => Some(Evidence::Args),
        _ if global.starts_with("TASK_") || global.starts_with("SIGNAL_") => Some(Evidence::Args),
        _ if global.starts_with("PAGE_") => Some(Evidence::Frames),
        _ => Some(Evidence::Rss),
    }
}

/// Returns where a `css_set` has the state of the memory controller, `None` where that has no hierarchy of
/// its own: the cgroups of version 2 are all there are then.
fn memory_state(btf: &KernelBtf) -> Option<u32> {
    let index = btf.enumerator("memory_cgrp_id").filter(|_| cgroups::are_of_version_1())?;
    let states = btf.field("css_set", "subsys")?;
    Some(states + index * size_of::<u64>() as u32)
}

/// Asks for everything but whether trampolines work, which only a trial shows.
pub fn read(btf: &KernelBtf) -> (KernelFacts, Globals) {
    let mut facts = KernelFacts::default();
    let may_open_events = may_open_events();
    for hook in PROBES.iter().flat_map(Probe::hooks) {
        match hook {
            Hook::RawTracepoint(name, _) | Hook::BtfTracepoint(name) => {
                if let Some(arguments) = btf.tracepoint_arguments(name) {
                    facts.tracepoints.insert(name, arguments);
                }
            }
            Hook::Fexit(function) => {
                // Its first argument is what the programs read.
                if btf.takes_structure(function) {
                    facts.functions.insert(function);
                }
            }
            Hook::Event(name) => {
                if may_open_events && has_event(name) {
                    facts.events.insert(name);
                }
            }
            Hook::Iterator(name) => {
                if btf.has_function(&format!("bpf_iter_{name}")) {
                    facts.iterators.insert(name);
                }
            }
        }
    }
    // `rss_stat` passes the new count where the counters are not per CPU (before 6.2).
    let has_count = facts.tracepoints.get("rss_stat").is_some_and(|&arguments| arguments > 2);
    let mut offsets = Vec::new();
    for field in FIELDS {
        let offset = btf.field(field.structure, field.member);
        if offset.is_none()
            && let Some(evidence) = needed_by(field.global, !has_count)
        {
            facts.missing_fields.insert(format!("{}.{}", field.structure, field.member), evidence);
        }
        offsets.push((field.global, offset.unwrap_or(NO_FIELD)));
    }
    facts.registers = btf.has_function("bpf_task_pt_regs");
    facts.iterates_one = btf.union_has("bpf_iter_link_info", "task");
    let uptodate = btf.enumerator(PG_UPTODATE);
    if uptodate.is_none() {
        facts.missing_fields.insert(PG_UPTODATE.to_owned(), Evidence::Frames);
    }
    let others = vec![
        ("PERCPU_SIZE", btf.size("percpu_counter").unwrap_or(0)),
        ("RSS_HAS_COUNT", u32::from(has_count)),
        // The function that sets a VMA's offset after it was stored (mm/mmap.c, up to 6.2).
        ("OFFSET_COMES_LATE", u32::from(btf.has_function("__vma_adjust"))),
        ("PG_UPTODATE", uptodate.unwrap_or(0)),
        ("SET_STATE", memory_state(btf).unwrap_or(NO_FIELD)),
    ];
    (facts, Globals { offsets, others })
}
