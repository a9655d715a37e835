//! Every probe: what it gives, what it costs, and the programs that can watch it.

use super::plan::{
    Choices,
    Hook::{BtfTracepoint, Fexit, Iterator, RawTracepoint},
    Probe, Program, Wanted,
};
use crate::model::report::Evidence;

/// No program: not wanted at this level of evidence.
const NONE: Choices = &[];

/// One program for each memory call, named as given, at its return.
macro_rules! fexit_calls {
    ($($program:literal => $function:literal),+ $(,)?) => {
        &[$(($program, Fexit($function))),+]
    };
}

const CALLS: &[Program] = fexit_calls! {
    "mmap_fexit" => "__x64_sys_mmap",
    "munmap_fexit" => "__x64_sys_munmap",
    "brk_fexit" => "__x64_sys_brk",
    "mremap_fexit" => "__x64_sys_mremap",
    "mprotect_fexit" => "__x64_sys_mprotect",
    "pkey_mprotect_fexit" => "__x64_sys_pkey_mprotect",
    "madvise_fexit" => "__x64_sys_madvise",
    "process_madvise_fexit" => "__x64_sys_process_madvise",
    "shmat_fexit" => "__x64_sys_shmat",
    "shmdt_fexit" => "__x64_sys_shmdt",
    "fallocate_fexit" => "__x64_sys_fallocate",
};

const ARGS_CALLS: &[Program] = fexit_calls! {
    "mmap_args" => "__x64_sys_mmap",
    "munmap_args" => "__x64_sys_munmap",
    "brk_args" => "__x64_sys_brk",
    "mremap_args" => "__x64_sys_mremap",
    "mprotect_args" => "__x64_sys_mprotect",
    "pkey_mprotect_args" => "__x64_sys_pkey_mprotect",
    "madvise_args" => "__x64_sys_madvise",
    "process_madvise_args" => "__x64_sys_process_madvise",
    "shmat_args" => "__x64_sys_shmat",
    "shmdt_args" => "__x64_sys_shmdt",
    "fallocate_args" => "__x64_sys_fallocate",
};

/// Every probe, in attach order.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "pages in and out",
        gives: "faulted in and zapped, by path",
        cost: "every fault and unmap of the machine: about 0.1 µs a page",
        wanted: Wanted::Always,
        evidence: Evidence::Rss,
        args: NONE,
        counted: &[&[("rss_tracepoint", BtfTracepoint("rss_stat"))]],
    },
    Probe {
        name: "freed frames",
        gives: "frames that the page allocator got back, by path",
        cost: "every page freed on the machine: about 0.1 µs a page",
        wanted: Wanted::Always,
        evidence: Evidence::Frames,
        args: NONE,
        counted: &[&[("free_tracepoint", RawTracepoint("mm_page_free", 2))]],
    },
    Probe {
        name: "write sections",
        gives: "the order of region changes",
        cost: "every lock of an address space: about 0.1 µs",
        wanted: Wanted::Always,
        evidence: Evidence::Rss,
        args: NONE,
        counted: &[
            &[("section_tracepoint", RawTracepoint("mmap_lock_acquire_returned", 3))],
            &[("section_memcg_tracepoint", RawTracepoint("mmap_lock_acquire_returned", 4))],
        ],
    },
    Probe {
        name: "region changes",
        gives: "the region map",
        cost: "every region change of the machine: about 0.1 µs",
        wanted: Wanted::Always,
        evidence: Evidence::Rss,
        args: NONE,
        counted: &[&[("region_tracepoint", RawTracepoint("ma_write", 4))]],
    },
    Probe {
        name: "memory calls",
        gives: "requested bytes, protections, the live stream",
        cost: "tp_btf: every system call of the machine, about 0.1 µs; fexit: memory calls only",
        wanted: Wanted::Always,
        evidence: Evidence::Args,
        args: &[ARGS_CALLS, &[("call_args", BtfTracepoint("sys_exit"))]],
        counted: &[CALLS, &[("call_tracepoint", BtfTracepoint("sys_exit"))]],
    },
    Probe {
        name: "fork",
        gives: "children",
        cost: "every fork of the machine: below 1 µs",
        wanted: Wanted::Always,
        evidence: Evidence::Args,
        args: &[&[("fork_args", BtfTracepoint("task_newtask"))]],
        counted: &[&[("fork_tracepoint", BtfTracepoint("task_newtask"))]],
    },
    Probe {
        name: "exec",
        gives: "new programs",
        cost: "every exec of the machine: below 1 µs",
        wanted: Wanted::Always,
        evidence: Evidence::Args,
        args: &[&[("exec_args", BtfTracepoint("sched_process_exec"))]],
        counted: &[&[("exec_tracepoint", BtfTracepoint("sched_process_exec"))]],
    },
    Probe {
        name: "exit",
        gives: "the end of processes, their faults",
        cost: "every exit of the machine: below 1 µs",
        wanted: Wanted::Always,
        evidence: Evidence::Args,
        args: &[&[("exit_args", BtfTracepoint("sched_process_exit"))]],
        counted: &[&[("exit_tracepoint", BtfTracepoint("sched_process_exit"))]],
    },
    Probe {
        name: "end of address spaces",
        gives: "final books",
        cost: "every exit of the machine: below 1 µs",
        wanted: Wanted::Always,
        evidence: Evidence::Args,
        args: &[
            &[("mm_end_args", BtfTracepoint("exit_mmap"))],
            &[("mm_end_args_fexit", Fexit("exit_mmap"))],
        ],
        counted: &[&[("mm_end_tracepoint", BtfTracepoint("exit_mmap"))]],
    },
    Probe {
        name: "user faults",
        gives: "one event a fault",
        cost: "every fault of the machine: about 0.2 µs",
        wanted: Wanted::OnFaultEvents,
        evidence: Evidence::Args,
        args: &[&[("user_fault_args", BtfTracepoint("page_fault_user"))]],
        counted: &[&[("user_fault_tracepoint", BtfTracepoint("page_fault_user"))]],
    },
    Probe {
        name: "kernel faults",
        gives: "one event a fault of the kernel on user memory",
        cost: "every such fault of the machine: about 0.2 µs",
        wanted: Wanted::OnFaultEvents,
        evidence: Evidence::Args,
        args: &[&[("kernel_fault_args", BtfTracepoint("page_fault_kernel"))]],
        counted: &[&[("kernel_fault_tracepoint", BtfTracepoint("page_fault_kernel"))]],
    },
    Probe {
        name: "snapshots",
        gives: "what was there before tracing",
        cost: "nothing until one is taken: about 0.1 µs a region",
        wanted: Wanted::Always,
        evidence: Evidence::Args,
        args: &[&[("seed_args_iter", Iterator("task"))]],
        counted: &[&[
            ("anchor_iter", Iterator("task")),
            ("seed_iter", Iterator("task")),
            ("unsynced_iter", Iterator("task")),
            ("regions_iter", Iterator("task_vma")),
        ]],
    },
];
