//! One record for each page fault, only when asked for. Faults are otherwise counted by the kernel
//! itself, in `task_struct.min_flt` and `maj_flt`.

use aya_ebpf::{bindings::pt_regs, macros::btf_tracepoint, programs::BtfTracePointContext};
use memtrace_common::{Fault, Kind};

use crate::{
    emit,
    evidence::{Args, Counted, Evidence},
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
