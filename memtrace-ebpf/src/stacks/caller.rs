//! The caller of a function that has no frame yet, or never gets one: the kernel, which follows frame
//! pointers, would leave it out. So are libc's system calls and its `memset`.

use aya_ebpf::helpers::bpf_probe_read_user;

/// A function that was called begins at most so many bytes before the code that runs in it.
const MOST_CODE: u64 = 1 << 16;

/// Returns the return address at the stack pointer, 0 when what lies there is none: it is behind a
/// call instruction. When `must_lead_here` that call must have led to code around `ip`; one through a
/// register, of which nobody knows, did not.
#[inline(always)]
pub(super) fn caller(ip: u64, sp: u64, must_lead_here: bool) -> u64 {
    let Some(back) = read(sp) else { return 0 };
    let Some(code) = read(back.wrapping_sub(8)) else { return 0 };
    let Some(callee) = callee(back, code) else { return 0 };
    let leads_here = ip.wrapping_sub(callee) < MOST_CODE;
    if leads_here || !must_lead_here { back } else { 0 }
}

/// Returns where the call leads that ends `code` and returns to `back`: 0 when only a register
/// tells; `None` when there is none.
#[inline(always)]
fn callee(back: u64, code: u64) -> Option<u64> {
    let operand = back.wrapping_add((code as i64 >> 32) as u64);
    // call rel32
    if code >> 24 & 0xff == 0xe8 {
        return Some(linked(operand));
    }
    // call *rel32(%rip)
    if code >> 16 & 0xffff == 0x15ff {
        return read(operand);
    }
    // call *%reg; *(%reg), *disp8(%reg), *disp8(%rsp), *disp32(%reg): FF /2 with what follows it.
    let ends_with = |bytes: u64, mask: u64, wanted: u64| code >> (64 - 8 * bytes) & mask == wanted;
    let is_call = ends_with(2, 0xf8ff, 0xd0ff)
        || ends_with(2, 0xf8ff, 0x10ff)
        || ends_with(3, 0xf8ff, 0x50ff)
        || ends_with(4, 0xffff, 0x54ff)
        || ends_with(6, 0xf8ff, 0x90ff);
    is_call.then_some(0)
}

/// Follows a stub of the procedure linkage table to the function that it stands for.
#[inline(always)]
fn linked(callee: u64) -> u64 {
    let Some(mut code) = read(callee) else { return callee };
    let mut at = callee;
    // endbr64
    if code as u32 == 0xfa1e_0ff3 {
        at = at.wrapping_add(4);
        code >>= 32;
    }
    // bnd
    if code & 0xff == 0xf2 {
        at = at.wrapping_add(1);
        code >>= 8;
    }
    // jmp *rel32(%rip)
    if code & 0xffff != 0x25ff {
        return callee;
    }
    let Some(operand) = read(at.wrapping_add(2)) else { return callee };
    let slot = at.wrapping_add(6).wrapping_add(operand as i32 as u64);
    read(slot).unwrap_or(callee)
}

#[inline(always)]
fn read(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}
