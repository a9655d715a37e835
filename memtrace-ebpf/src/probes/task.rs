//! Processes: fork, exec, exit.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel_str, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use memtrace_common::{Exec, Exit, Fork, Kind};

use crate::{
    books::TRACED,
    emit,
    evidence::{Args, Counted, Evidence},
    kernel::{self, Typed},
};

/// `SIGNAL_GROUP_EXIT` (include/linux/sched/signal.h).
const SIGNAL_GROUP_EXIT: u32 = 4;

/// `TP_PROTO(struct task_struct *task, unsigned long clone_flags)` (include/trace/events/task.h).
/// The child is complete and does not run yet.
#[btf_tracepoint(function = "task_newtask")]
fn fork_tracepoint(ctx: BtfTracePointContext) -> i32 {
    forked::<Counted>(&ctx)
}

/// The same for `--evidence args`.
#[btf_tracepoint(function = "task_newtask")]
fn fork_args(ctx: BtfTracePointContext) -> i32 {
    forked::<Args>(&ctx)
}

/// Tells whether a process is traced.
#[inline(always)]
fn is_traced(tgid: u32) -> bool {
    // SAFETY: the map's value is only looked at for its presence.
    kernel::MACHINE.load() == 1 || unsafe { TRACED.get(tgid) }.is_some()
}

#[inline(always)]
fn forked<E: Evidence>(ctx: &BtfTracePointContext) -> i32 {
    let parent = kernel::tgid();
    if !is_traced(parent) {
        return 0;
    }
    let child = Typed::new(ctx.arg::<*const u8>(0));
    let child_tgid: u32 = child.load(&kernel::TASK_TGID);
    if child_tgid == parent {
        return 0;
    }
    let mm: u64 = child.load(&kernel::TASK_MM);
    let parent_mm = E::current_mm();
    let followed = kernel::FOLLOW.load();
    if kernel::MACHINE.load() == 1 {
        if mm != 0 && mm != parent_mm {
            E::adopt(mm, child);
        }
    } else if followed == 1 {
        let _ = TRACED.insert(child_tgid, 0, 0);
        E::adopt(mm, child);
    }
    E::born(parent_mm, mm);
    debug!(ctx, "fork: {} -> {}", parent, child_tgid);
    E::emit(Fork {
        header: emit::header::<Fork>(Kind::Fork, mm),
        parent_mm,
        clone_flags: ctx.arg(1),
        child_tgid,
        followed,
        child_start_ns: child.load(&kernel::TASK_START),
    });
    0
}

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
/// (include/trace/events/sched.h). The new address space is complete.
#[btf_tracepoint(function = "sched_process_exec")]
fn exec_tracepoint(ctx: BtfTracePointContext) -> i32 {
    executed::<Counted>(&ctx)
}

/// The same for `--evidence args`.
#[btf_tracepoint(function = "sched_process_exec")]
fn exec_args(ctx: BtfTracePointContext) -> i32 {
    executed::<Args>(&ctx)
}

#[inline(always)]
fn executed<E: Evidence>(ctx: &BtfTracePointContext) -> i32 {
    if !is_traced(kernel::tgid()) {
        return 0;
    }
    let task = Typed::new(ctx.arg::<*const u8>(0));
    let mm = task.follow(&kernel::TASK_MM);
    if mm.is_null() {
        return 0;
    }
    E::adopt(mm.address(), task);
    let filename: u64 = kernel::read(ctx.arg(2), &kernel::BPRM_FILENAME);
    debug!(ctx, "exec: {}", kernel::tgid());
    let (minor_faults, major_faults) = faults(task);
    let header = emit::header::<Exec>(Kind::Exec, mm.address());
    let start_ns = task.load(&kernel::TASK_START);
    let start_brk = mm.load(&kernel::MM_START_BRK);
    let brk = mm.load(&kernel::MM_BRK);
    let start_stack = mm.load(&kernel::MM_START_STACK);
    let vdso = mm.load(&kernel::MM_VDSO);
    E::emit_with(|place: *mut Exec| {
        // SAFETY: `place` is reserved memory of the ring; the helper is given the field's size.
        unsafe {
            place.write(Exec {
                header,
                start_ns,
                start_brk,
                brk,
                start_stack,
                vdso,
                minor_faults,
                major_faults,
                path: [0; 96],
            });
            bpf_probe_read_kernel_str((&raw mut (*place).path).cast(), 96, filename as *const _);
        }
    });
    0
}

/// `TP_PROTO(struct task_struct *p[, bool group_dead])` (include/trace/events/sched.h). Fires
/// before the mm is given up on 6.18 and later, after it before.
#[btf_tracepoint(function = "sched_process_exit")]
fn exit_tracepoint(ctx: BtfTracePointContext) -> i32 {
    exited::<Counted>(&ctx)
}

/// The same for `--evidence args`.
#[btf_tracepoint(function = "sched_process_exit")]
fn exit_args(ctx: BtfTracePointContext) -> i32 {
    exited::<Args>(&ctx)
}

#[inline(always)]
fn exited<E: Evidence>(ctx: &BtfTracePointContext) -> i32 {
    let tgid = kernel::tgid();
    // SAFETY: the map's value is only looked at for its presence.
    if unsafe { TRACED.get(tgid) }.is_none() {
        return 0;
    }
    let task = Typed::new(ctx.arg::<*const u8>(0));
    let signal = task.follow(&kernel::TASK_SIGNAL);
    if signal.load::<u32>(&kernel::SIGNAL_LIVE) != 0 {
        return 0;
    }
    let _ = TRACED.remove(tgid);
    let group_exit = signal.load::<u32>(&kernel::SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0;
    let exit_code = if group_exit {
        signal.load(&kernel::SIGNAL_GROUP_EXIT_CODE)
    } else {
        task.follow(&kernel::TASK_LEADER).load(&kernel::TASK_EXIT_CODE)
    };
    let (minor_faults, major_faults) = faults(task);
    debug!(ctx, "exit: {}", tgid);
    E::emit(Exit {
        header: emit::header::<Exit>(Kind::Exit, task.load(&kernel::TASK_MM)),
        minor_faults,
        major_faults,
        exit_code,
        reserved: 0,
    });
    0
}

/// Returns the minor and major faults of the current process: those of its dead threads, this one
/// and its leader. Other living threads are not counted.
#[inline(always)]
fn faults(task: Typed) -> (u64, u64) {
    let signal = task.follow(&kernel::TASK_SIGNAL);
    let mut minor =
        signal.load::<u64>(&kernel::SIGNAL_MIN_FLT) + task.load::<u64>(&kernel::TASK_MIN_FLT);
    let mut major =
        signal.load::<u64>(&kernel::SIGNAL_MAJ_FLT) + task.load::<u64>(&kernel::TASK_MAJ_FLT);
    let leader = task.follow(&kernel::TASK_LEADER);
    if leader.address() != task.address() {
        minor += leader.load::<u64>(&kernel::TASK_MIN_FLT);
        major += leader.load::<u64>(&kernel::TASK_MAJ_FLT);
    }
    (minor, major)
}
