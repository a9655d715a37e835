//! What waits in the CPUs' batches: pages on their way to the LRU lists hold a reference, so that a
//! frame among them is not free before its batch is full (`folio_batch`, mm/swap.c).

/// Has each CPU empty its batches.
pub(crate) fn settle() {
    memtrace::source::batches::drain().expect("the kernel can be asked to");
}
