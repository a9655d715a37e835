//! Functions of an allocator in user memory, as they are entered and as they return (`--stacks`).
//!
//! Each is attached where the function's arguments and its stack pointer are still those of its entry.
//! C++'s `operator delete`, of allocators that have their own, takes the program of `free`.

use aya_ebpf::{
    helpers::bpf_probe_read_user,
    macros::{btf_tracepoint, uprobe, uretprobe},
    programs::{BtfTracePointContext, ProbeContext, RetProbeContext},
};
use memtrace_common::stacks::{Block, Live};

use crate::stacks::{
    self, Pending, allocated, begin, count, current, end, freed, given_out, is_nested, put_back,
    sample, take, trace,
};

/// `void *malloc(size_t size)`
#[uprobe]
fn malloc_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: the registers of the context, here and below.
    allocates(&ctx, unsafe { (*ctx.regs).rdi }, Calls::Nobody, 0)
}

/// `operator new(size_t size)` of an allocator that has its own: jemalloc's calls malloc.
#[uprobe]
fn new_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: see above.
    allocates(&ctx, unsafe { (*ctx.regs).rdi }, Calls::Others, 0)
}

/// `void *calloc(size_t number, size_t size)`: musl's calls malloc.
#[uprobe]
fn calloc_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: see above.
    let (number, size) = unsafe { ((*ctx.regs).rdi, (*ctx.regs).rsi) };
    // What overflows fails.
    allocates(&ctx, number.wrapping_mul(size), Calls::Others, 0)
}

/// `void *aligned_alloc(size_t alignment, size_t size)`, `void *memalign(size_t, size_t)`
#[uprobe]
fn aligned_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: see above.
    allocates(&ctx, unsafe { (*ctx.regs).rsi }, Calls::Others, 0)
}

/// `int posix_memalign(void **out, size_t alignment, size_t size)`
#[uprobe]
fn posix_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: see above.
    let (out, size) = unsafe { ((*ctx.regs).rdi, (*ctx.regs).rdx) };
    allocates(&ctx, size, Calls::Others, out)
}

/// Whether a function may call another one that is probed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Calls {
    Nobody,
    Others,
}

#[inline(always)]
fn allocates(ctx: &ProbeContext, size: u64, calls: Calls, out: u64) -> u32 {
    if current(ctx).is_none() {
        return 0;
    }
    // SAFETY: the registers of the context.
    let sp = unsafe { (*ctx.regs).rsp };
    if is_nested(sp) {
        return 0;
    }
    count(|stats| &raw mut stats.allocations);
    let weight = sample(size);
    if weight > 0 || calls == Calls::Others {
        let stack = if weight > 0 { trace(ctx) } else { 0 };
        let live = Live { stack, size, weight };
        if !begin(&Pending { sp, live, out, ..Pending::default() }) && weight > 0 {
            count(|stats| &raw mut stats.lost);
        }
    }
    0
}

/// Return of `malloc`, `operator new`, `calloc`, `aligned_alloc` and `memalign`.
#[uretprobe]
fn pointer_return(ctx: RetProbeContext) -> u32 {
    let Some(image) = current(&ctx) else { return 0 };
    // SAFETY: the registers of the context.
    let (pointer, sp) = unsafe { ((*ctx.regs).rax, (*ctx.regs).rsp) };
    if let Some(Pending { live, .. }) = end(sp) {
        gives(Block { pointer, image }, live);
    } else {
        given_out(Block { pointer, image });
    }
    0
}

/// Return of `posix_memalign`.
#[uretprobe]
fn posix_return(ctx: RetProbeContext) -> u32 {
    let Some(image) = current(&ctx) else { return 0 };
    // SAFETY: the registers of the context.
    let (result, sp) = unsafe { ((*ctx.regs).rax, (*ctx.regs).rsp) };
    let Some(Pending { live, out, .. }) = end(sp) else { return 0 };
    if result as u32 == 0 {
        // SAFETY: the helper checks the address.
        let pointer = unsafe { bpf_probe_read_user(out as *const u64) }.unwrap_or(0);
        gives(Block { pointer, image }, live);
    }
    0
}

#[inline(always)]
fn gives(block: Block, live: Live) {
    if block.pointer == 0 {
        return;
    }
    given_out(block);
    if live.weight > 0 {
        allocated(block, live);
    }
}

/// `void *realloc(void *old, size_t size)`. The old block leaves the books before it can be anyone
/// else's.
#[uprobe]
fn realloc_enter(ctx: ProbeContext) -> u32 {
    let Some(image) = current(&ctx) else { return 0 };
    // SAFETY: the registers of the context.
    let (old, size, sp) = unsafe { ((*ctx.regs).rdi, (*ctx.regs).rsi, (*ctx.regs).rsp) };
    if is_nested(sp) {
        return 0;
    }
    count(|stats| &raw mut stats.allocations);
    let weight = sample(size);
    let was = if old == 0 { None } else { take(Block { pointer: old, image }) };
    let stack = if weight > 0 || was.is_some() { trace(&ctx) } else { 0 };
    let pending = Pending {
        sp,
        live: Live { stack, size, weight },
        old,
        was: was.unwrap_or_default(),
        out: 0,
    };
    if !begin(&pending) && (weight > 0 || was.is_some()) {
        count(|stats| &raw mut stats.lost);
    }
    0
}

/// Return of `realloc`: of a size of 0 it may have freed and given nothing.
#[uretprobe]
fn realloc_return(ctx: RetProbeContext) -> u32 {
    let Some(image) = current(&ctx) else { return 0 };
    // SAFETY: the registers of the context.
    let (pointer, sp) = unsafe { ((*ctx.regs).rax, (*ctx.regs).rsp) };
    let Some(Pending { live, old, was, .. }) = end(sp) else { return 0 };
    let old = Block { pointer: old, image };
    if was.weight > 0 {
        if pointer == 0 && live.size > 0 {
            put_back(old, was);
        } else if pointer != old.pointer {
            freed(old, was, live.stack);
        }
    }
    gives(Block { pointer, image }, live);
    0
}

/// `void free(void *pointer)`
#[uprobe]
fn free_enter(ctx: ProbeContext) -> u32 {
    let Some(image) = current(&ctx) else { return 0 };
    // SAFETY: the registers of the context.
    let pointer = unsafe { (*ctx.regs).rdi };
    if pointer == 0 {
        return 0;
    }
    count(|stats| &raw mut stats.frees);
    let block = Block { pointer, image };
    if let Some(was) = take(block) {
        freed(block, was, trace(&ctx));
    }
    0
}

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
/// (include/trace/events/sched.h).
#[btf_tracepoint(function = "sched_process_exec")]
fn image_tracepoint(_ctx: BtfTracePointContext) -> i32 {
    stacks::executed();
    0
}
