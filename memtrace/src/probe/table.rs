//! Every probe: what it gives, what it costs, and the programs that can watch it.

use super::plan::{
    Choices,
    Hook::{BtfTracepoint, Event, Fexit, Iterator, RawTracepoint},
    Probe, Wanted,
};
use crate::model::report::Evidence;

/// No program: not wanted at this level of evidence.
const NONE: Choices = &[];

/// The programs that see each memory call return, named with a suffix.
macro_rules! calls {
    ($suffix:literal $(, $more:expr)*) => {
        &[
            (concat!("mmap", $suffix), Fexit("__x64_sys_mmap")),
            (concat!("munmap", $suffix), Fexit("__x64_sys_munmap")),
            (concat!("brk", $suffix), Fexit("__x64_sys_brk")),
            (concat!("mremap", $suffix), Fexit("__x64_sys_mremap")),
            (concat!("mprotect", $suffix), Fexit("__x64_sys_mprotect")),
            (concat!("pkey_mprotect", $suffix), Fexit("__x64_sys_pkey_mprotect")),
            (concat!("madvise", $suffix), Fexit("__x64_sys_madvise")),
            (concat!("process_madvise", $suffix), Fexit("__x64_sys_process_madvise")),
            (concat!("shmat", $suffix), Fexit("__x64_sys_shmat")),
            (concat!("shmdt", $suffix), Fexit("__x64_sys_shmdt")),
            (concat!("fallocate", $suffix), Fexit("__x64_sys_fallocate")),
            $($more,)*
        ]
    };
}

/// One program that sees each memory call return.
macro_rules! events {
    ($program:literal $(, $more:literal)*) => {
        &[
            ($program, Event("sys_exit_mmap")),
            ($program, Event("sys_exit_munmap")),
            ($program, Event("sys_exit_brk")),
            ($program, Event("sys_exit_mremap")),
            ($program, Event("sys_exit_mprotect")),
            ($program, Event("sys_exit_pkey_mprotect")),
            ($program, Event("sys_exit_madvise")),
            ($program, Event("sys_exit_process_madvise")),
            ($program, Event("sys_exit_shmat")),
            ($program, Event("sys_exit_shmdt")),
            ($program, Event("sys_exit_fallocate")),
            $(($program, Event($more)),)*
        ]
    };
}

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
        name: "new frames",
        gives: "frames zeroed and copied",
        cost: "every page allocated on the machine: about 0.1 µs a page",
        wanted: Wanted::ForProcesses,
        evidence: Evidence::Frames,
        args: NONE,
        counted: &[&[("alloc_tracepoint", RawTracepoint("mm_page_alloc", 4))]],
    },
    Probe {
        name: "write sections",
        gives: "the order of region changes",
        cost: "every lock of an address space: about 0.1 µs",
        wanted: Wanted::ForProcesses,
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
        wanted: Wanted::ForProcesses,
        evidence: Evidence::Rss,
        args: NONE,
        counted: &[&[("region_tracepoint", RawTracepoint("ma_write", 4))]],
    },
    Probe {
        name: "memory calls",
        gives: "requested bytes, protections, the live stream",
        cost: "fexit: memory calls only; tracepoint: every system call of the machine, about 0.05 µs; \
               tp_btf: about 0.08 µs",
        wanted: Wanted::Always,
        evidence: Evidence::Args,
        args: &[
            calls!("_args"),
            events!("call_exit_args"),
            &[("call_args", BtfTracepoint("sys_exit"))],
        ],
        counted: &[
            // It is not told as a call, but its figures must be booked.
            calls!("_fexit", ("process_mrelease_fexit", Fexit("__x64_sys_process_mrelease"))),
            events!("call_exit", "sys_exit_process_mrelease"),
            &[("call_tracepoint", BtfTracepoint("sys_exit"))],
        ],
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
        wanted: Wanted::ForProcesses,
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
        gives: "one event a fault, or faults by call stack",
        cost: "every fault of the machine: about 0.2 µs",
        wanted: Wanted::OnFaults,
        evidence: Evidence::Args,
        args: &[&[("user_fault_args", BtfTracepoint("page_fault_user"))]],
        counted: &[&[("user_fault_tracepoint", BtfTracepoint("page_fault_user"))]],
    },
    Probe {
        name: "kernel faults",
        gives: "the same of the kernel's faults on user memory",
        cost: "every such fault of the machine: about 0.2 µs",
        wanted: Wanted::OnFaults,
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
