//! Memory system calls as they return.

use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    macros::{btf_tracepoint, fexit, tracepoint},
    programs::{BtfTracePointContext, FExitContext, TracePointContext},
};
use memtrace_common::{Call, Kind, Path, Syscall, stacks::Reclaimer};

use super::address_space::correct;
use crate::{
    books, emit,
    evidence::{Args, Counted, Evidence},
    kernel,
    stacks::{self, Entry},
};

/// `TP_PROTO(struct pt_regs *regs, long ret)` (include/trace/events/syscalls.h).
#[btf_tracepoint(function = "sys_exit")]
fn call_tracepoint(ctx: BtfTracePointContext) -> i32 {
    returned(&ctx, ctx.arg(0), ctx.arg(1))
}

/// The same for `--evidence args`.
#[btf_tracepoint(function = "sys_exit")]
fn call_args(ctx: BtfTracePointContext) -> i32 {
    returned_args(&ctx, ctx.arg(0), ctx.arg(1))
}

/// `syscalls:sys_exit_*` of the calls that it is attached to. Another call is sent away before any
/// program runs (`perf_syscall_exit`, kernel/trace/trace_syscalls.c, 5.10 to 7.3).
#[tracepoint]
fn call_exit(ctx: TracePointContext) -> u32 {
    returned(&ctx, kernel::user_regs(), result(&ctx)) as u32
}

/// The same for `--evidence args`.
#[tracepoint]
fn call_exit_args(ctx: TracePointContext) -> u32 {
    returned_args(&ctx, kernel::user_regs(), result(&ctx)) as u32
}

/// Returns what the call returns: `{ u64 regs; int nr; long ret; }` (`struct syscall_tp_t`).
#[inline(always)]
fn result(ctx: &TracePointContext) -> i64 {
    // SAFETY: the context of the tracepoint has three words.
    unsafe { ctx.as_ptr().cast::<i64>().add(2).read() }
}

macro_rules! fexit_calls {
    ($returned:ident: $($program:ident),+ $(,)?) => {
        $(/// `long __x64_sys_*(const struct pt_regs *regs)`: costs other system calls nothing.
        #[fexit]
        fn $program(ctx: FExitContext) -> i32 {
            $returned(&ctx, ctx.arg(0), ctx.arg(1))
        })+
    };
}
fexit_calls! {
    returned: mmap_fexit, munmap_fexit, brk_fexit, mremap_fexit, mprotect_fexit,
    pkey_mprotect_fexit, madvise_fexit, process_madvise_fexit, shmat_fexit, shmdt_fexit,
    fallocate_fexit, process_mrelease_fexit,
}
fexit_calls! {
    returned_args: mmap_args, munmap_args, brk_args, mremap_args, mprotect_args,
    pkey_mprotect_args, madvise_args, process_madvise_args, shmat_args, shmdt_args, fallocate_args,
}

#[inline(always)]
fn syscall(nr: u64) -> Option<Syscall> {
    Some(match nr {
        kernel::nr::MMAP => Syscall::Mmap,
        kernel::nr::MUNMAP => Syscall::Munmap,
        kernel::nr::BRK => Syscall::Brk,
        kernel::nr::MREMAP => Syscall::Mremap,
        kernel::nr::MPROTECT | kernel::nr::PKEY_MPROTECT => Syscall::Mprotect,
        kernel::nr::MADVISE => Syscall::Madvise,
        kernel::nr::PROCESS_MADVISE => Syscall::ProcessMadvise,
        kernel::nr::SHMAT => Syscall::Shmat,
        kernel::nr::SHMDT => Syscall::Shmdt,
        kernel::nr::FALLOCATE => Syscall::PunchHole,
        _ => return None,
    })
}

/// `FALLOC_FL_PUNCH_HOLE` (include/uapi/linux/falloc.h).
const PUNCH_HOLE: u64 = 2;

/// Returns the record of the call that returns, if it is one about memory; all but what was counted.
#[inline(always)]
fn call(regs: *const pt_regs, ret: i64, mm: u64) -> Option<Call> {
    // SAFETY: the verifier knows `regs` as the task's `pt_regs`.
    let (nr, args) = unsafe {
        let args = [(*regs).rdi, (*regs).rsi, (*regs).rdx, (*regs).r10, (*regs).r8, (*regs).r9];
        ((*regs).orig_rax, args)
    };
    let syscall = syscall(nr)?;
    let [_, mode, ..] = args;
    if matches!(syscall, Syscall::PunchHole) && mode & PUNCH_HOLE == 0 {
        return None;
    }
    Some(Call {
        header: emit::header::<Call>(Kind::Call, mm),
        args,
        ret,
        syscall: syscall as u16,
        path: Path::NONE,
        ..Call::default()
    })
}

/// Emits the call that returns, if it is one about memory, with what was counted in it.
#[inline(always)]
fn returned<C: EbpfContext>(ctx: &C, regs: *const pt_regs, ret: i64) -> i32 {
    // SAFETY: the verifier knows `regs` as the task's `pt_regs`.
    let nr = unsafe { (*regs).orig_rax };
    let told = syscall(nr);
    let is_machines = kernel::MACHINE.load() == 1 && told.is_some();
    if is_machines || nr == kernel::nr::PROCESS_MRELEASE {
        // Nothing is told of it, but what it did is booked.
        if let Some(task) = books::known_task() {
            books::end(task, nr);
        }
        return 0;
    }
    let Some(syscall) = told else { return 0 };
    let mut mm = Counted::current_mm();
    if matches!(syscall, Syscall::ProcessMadvise)
        && let Some(task) = books::known_task()
        && task.advised != 0
    {
        mm = task.advised;
        task.advised = 0;
    }
    let Some(books) = books::followed(mm) else { return 0 };
    // SAFETY: a live map value. Another thread may be at work on it by now: then it has corrected it.
    correct(mm, unsafe { &mut *books });
    let Some(mut call) = call(regs, ret, mm) else { return 0 };
    if let Some(task) = books::known_task() {
        call.seq = task.seq;
        if let Some(ended) = books::end(task, nr) {
            call.path = ended.path;
            (call.zapped_pages, call.freed_frames) = (ended.zapped, ended.freed);
            call.duration_ns = ended.duration_ns(call.header.time_ns);
            if kernel::SUMS_RECLAIMERS.load() == 1
                && call.zapped_pages | call.freed_frames != 0
                // Advice comes from another process, which is not this one's code.
                && mm == Counted::current_mm()
                // SAFETY: a live map value.
                && let Some(space) = unsafe { (*books).running() }
            {
                // SAFETY: as above.
                let stack = stacks::trace_entry(ctx, unsafe { Entry::by_call(regs) });
                let reclaimer = Reclaimer { space, stack, path: call.path.into() };
                stacks::gave_up(reclaimer, mm, call.zapped_pages, call.freed_frames);
            }
        }
    }
    Counted::emit(call);
    0
}

/// Emits the call that returns, if it is one about memory. Advice to another process is booked to
/// the one that gives it.
#[inline(always)]
fn returned_args<C: EbpfContext>(_ctx: &C, regs: *const pt_regs, ret: i64) -> i32 {
    // SAFETY: the verifier knows `regs` as the task's `pt_regs`.
    if syscall(unsafe { (*regs).orig_rax }).is_none() {
        return 0;
    }
    let mm = Args::current_mm();
    if Args::follows(mm)
        && let Some(call) = call(regs, ret, mm)
    {
        Args::emit(call);
    }
    0
}
