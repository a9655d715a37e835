//! Page faults, only when asked for: one record for each, or a count for each call stack. They are
//! otherwise counted by the kernel itself, in `task_struct.min_flt` and `maj_flt`.

use aya_ebpf::{
    bindings::pt_regs, helpers::generated::bpf_get_current_task, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use memtrace_common::{Fault, Kind, stacks::Faulter};

use crate::{
    emit,
    evidence::{Args, Counted, Evidence},
    kernel,
    stacks::{self, Entry},
};

/// `TP_PROTO(unsigned long address, struct pt_regs *regs, unsigned long error_code)`
/// (arch/x86/include/asm/trace/exceptions.h). Fires before the fault is handled.
#[btf_tracepoint(function = "page_fault_user")]
fn user_fault_tracepoint(ctx: BtfTracePointContext) -> i32 {
    fault::<Counted>(&ctx, 0)
}

/// The same for `--evidence args`.
#[btf_tracepoint(function = "page_fault_user")]
fn user_fault_args(ctx: BtfTracePointContext) -> i32 {
    fault::<Args>(&ctx, 0)
}

/// The kernel itself faulted: only addresses of userspace are reported.
#[btf_tracepoint(function = "page_fault_kernel")]
fn kernel_fault_tracepoint(ctx: BtfTracePointContext) -> i32 {
    fault::<Counted>(&ctx, 1)
}

/// The same for `--evidence args`.
#[btf_tracepoint(function = "page_fault_kernel")]
fn kernel_fault_args(ctx: BtfTracePointContext) -> i32 {
    fault::<Args>(&ctx, 1)
}

#[inline(always)]
fn fault<E: Evidence>(ctx: &BtfTracePointContext, from_kernel: u64) -> i32 {
    let address: u64 = ctx.arg(0);
    let mm = E::current_mm();
    if (address as i64) < 0 || !E::follows(mm) {
        return 0;
    }
    let regs: *const pt_regs = ctx.arg(1);
    if kernel::COUNTS_FAULTERS.load() == 1 {
        if from_kernel == 1 && is_refused() {
            return 0;
        }
        if let Some(space) = E::number(mm) {
            let entry = if from_kernel == 1 {
                E::entry()
            } else {
                // SAFETY: the verifier knows `regs` as a `pt_regs`.
                unsafe { Entry::by_fault(regs) }
            };
            let stack = stacks::trace_entry(ctx, entry);
            stacks::faulted(Faulter { space, stack }, mm);
        }
    }
    if kernel::TELLS_FAULTS.load() == 0 {
        return 0;
    }
    E::emit(Fault {
        header: emit::header::<Fault>(Kind::Fault, mm),
        address,
        // SAFETY: the verifier knows `regs` as a `pt_regs`.
        ip: unsafe { (*regs).rip },
        error_code: ctx.arg(2),
        from_kernel,
    });
    0
}

/// Tells whether the kernel looks at memory that need not be there, as when it takes a call stack: it
/// is told so, and nothing becomes resident (`faulthandler_disabled`, include/linux/uaccess.h, 5.10 to
/// 7.3).
#[inline(always)]
fn is_refused() -> bool {
    // SAFETY: the helper takes no argument and always returns a task.
    let task = unsafe { bpf_get_current_task() };
    // The reading itself is one (`copy_from_kernel_nofault`, mm/maccess.c, 5.10 to 7.3).
    kernel::read::<u32>(task, &kernel::TASK_NO_FAULTS) > 1
}
