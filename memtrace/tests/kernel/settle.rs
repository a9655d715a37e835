//! What waits in the CPUs' batches: pages on their way to the LRU lists hold a reference, so that a
//! frame among them is not free before its batch is full (`folio_batch`, mm/swap.c).

use std::io;

/// Has each CPU empty its batches, as moving a page does first (`lru_add_drain_all`, mm/swap.c).
pub(crate) fn settle() {
    const MPOL_MF_MOVE: i32 = 2;
    let page = Box::new(1_u8);
    let (pages, nodes, mut status) = ([&raw const *page], [0_i32], [0_i32]);
    // SAFETY: lists of one element each; the page may stay where it is.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            1_usize,
            pages.as_ptr(),
            nodes.as_ptr(),
            status.as_mut_ptr(),
            MPOL_MF_MOVE,
        )
    };
    assert_eq!(done, 0, "move_pages: {}", io::Error::last_os_error());
}
