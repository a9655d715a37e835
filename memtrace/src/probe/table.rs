//! Every probe: what it gives, what it costs, and the programs that can watch it.

use super::plan::{
    Hook::{BtfTracepoint, Fexit, Iterator, RawTracepoint},
    Probe, Wanted,
};

/// Every probe, in attach order.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "pages in and out",
        gives: "faulted in and zapped, by path",
        cost: "every fault and unmap of the machine: about 0.1 µs a page",
        wanted: Wanted::Always,
        choices: &[&[("rss_tracepoint", BtfTracepoint("rss_stat"))]],
    },
    Probe {
        name: "freed frames",
        gives: "frames that the page allocator got back, by path",
        cost: "every page freed on the machine: about 0.1 µs a page",
        wanted: Wanted::Always,
        choices: &[&[("free_tracepoint", RawTracepoint("mm_page_free", 2))]],
    },
    Probe {
        name: "write sections",
        gives: "the order of region changes",
        cost: "every lock of an address space: about 0.1 µs",
        wanted: Wanted::Always,
        choices: &[
            &[("section_tracepoint", RawTracepoint("mmap_lock_acquire_returned", 3))],
            &[("section_memcg_tracepoint", RawTracepoint("mmap_lock_acquire_returned", 4))],
        ],
    },
    Probe {
        name: "region changes",
        gives: "the region map",
        cost: "every region change of the machine: about 0.1 µs",
        wanted: Wanted::Always,
        choices: &[&[("region_tracepoint", RawTracepoint("ma_write", 4))]],
    },
    Probe {
        name: "memory calls",
        gives: "requested bytes, protections, the live stream",
        cost: "tp_btf: every system call of the machine, about 0.1 µs; fexit: memory calls only",
        wanted: Wanted::Always,
        choices: &[
            &[
                ("mmap_fexit", Fexit("__x64_sys_mmap")),
                ("munmap_fexit", Fexit("__x64_sys_munmap")),
                ("brk_fexit", Fexit("__x64_sys_brk")),
                ("mremap_fexit", Fexit("__x64_sys_mremap")),
                ("mprotect_fexit", Fexit("__x64_sys_mprotect")),
                ("pkey_mprotect_fexit", Fexit("__x64_sys_pkey_mprotect")),
                ("madvise_fexit", Fexit("__x64_sys_madvise")),
                ("process_madvise_fexit", Fexit("__x64_sys_process_madvise")),
                ("shmat_fexit", Fexit("__x64_sys_shmat")),
                ("shmdt_fexit", Fexit("__x64_sys_shmdt")),
                ("fallocate_fexit", Fexit("__x64_sys_fallocate")),
            ],
            &[("call_tracepoint", BtfTracepoint("sys_exit"))],
        ],
    },
    Probe {
        name: "fork",
        gives: "children",
        cost: "every fork of the machine: below 1 µs",
        wanted: Wanted::Always,
        choices: &[&[("fork_tracepoint", BtfTracepoint("task_newtask"))]],
    },
    Probe {
        name: "exec",
        gives: "new programs",
        cost: "every exec of the machine: below 1 µs",
        wanted: Wanted::Always,
        choices: &[&[("exec_tracepoint", BtfTracepoint("sched_process_exec"))]],
    },
    Probe {
        name: "exit",
        gives: "the end of processes, their faults",
        cost: "every exit of the machine: below 1 µs",
        wanted: Wanted::Always,
        choices: &[&[("exit_tracepoint", BtfTracepoint("sched_process_exit"))]],
    },
    Probe {
        name: "end of address spaces",
        gives: "final books",
        cost: "every exit of the machine: below 1 µs",
        wanted: Wanted::Always,
        choices: &[&[("mm_end_tracepoint", BtfTracepoint("exit_mmap"))]],
    },
    Probe {
        name: "user faults",
        gives: "one event a fault",
        cost: "every fault of the machine: about 0.2 µs",
        wanted: Wanted::OnFaultEvents,
        choices: &[&[("user_fault_tracepoint", BtfTracepoint("page_fault_user"))]],
    },
    Probe {
        name: "kernel faults",
        gives: "one event a fault of the kernel on user memory",
        cost: "every such fault of the machine: about 0.2 µs",
        wanted: Wanted::OnFaultEvents,
        choices: &[&[("kernel_fault_tracepoint", BtfTracepoint("page_fault_kernel"))]],
    },
    Probe {
        name: "snapshots",
        gives: "what was there before tracing",
        cost: "nothing until one is taken: about 0.1 µs a region",
        wanted: Wanted::Always,
        choices: &[&[
            ("anchor_iter", Iterator("task")),
            ("seed_iter", Iterator("task")),
            ("unsynced_iter", Iterator("task")),
            ("regions_iter", Iterator("task_vma")),
        ]],
    },
];
