//! Per-CPU batches of the kernel, in which frames wait that nobody has mapped any more.

use std::{io, ptr};

/// `MPOL_MF_MOVE` (include/uapi/linux/mempolicy.h).
const MOVE: libc::c_int = 2;

/// Has every CPU give back what its batches hold (`lru_add_drain_all`, mm/swap.c): `move_pages(2)`
/// begins with it, here for a page of our own that stays where it is.
///
/// Errors: `ENOSYS` where the kernel knows no NUMA; nothing is drained then.
pub fn drain() -> io::Result<()> {
    let mine = 0_u8;
    let (page, node, mut status) = (ptr::from_ref(&mine), 0, 0);
    // SAFETY: one page of this process, one node and one status, all live for the whole call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            1,
            &raw const page,
            &raw const node,
            &raw mut status,
            MOVE,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
