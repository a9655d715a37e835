//! Where the fields are that a walk reads, in gperftools 2.10 to 2.16, 64 bits.

/// `Span` (src/span.h), in words: `start`, `length`, `next`, `prev`, `objects`, then bit fields.
pub(super) mod span {
    pub(in super::super) const START: usize = 0;
    pub(in super::super) const LENGTH: usize = 1;
    pub(in super::super) const NEXT: usize = 2;
    pub(in super::super) const PREV: usize = 3;
    pub(in super::super) const OBJECTS: usize = 4;
    pub(in super::super) const BITS: usize = 5;
    pub(in super::super) const WORDS: usize = 6;
}

/// `PageHeap` (src/page_heap.h), relative to `free_`, in bytes: two sets of large spans and the
/// function that gives memory stand between the root of the page map and the lists.
pub(super) const ROOT_END: u64 = 2 * 48 + 8;
/// Bits of an address (`kAddressBits`, src/common.h).
pub(super) const ADDRESS_BITS: u32 = 48;

/// Size classes at most (`kClassSizesMax`, src/common.h), and the largest size of an object.
pub(super) const CLASSES: usize = 128;
pub(super) const MAX_OBJECT: u32 = 256 << 10;

/// `CentralFreeListPadded` (src/central_freelist.h), in words.
pub(super) mod central {
    pub(in super::super) const CLASS: usize = 1;
    pub(in super::super) const EMPTY: usize = 2;
    pub(in super::super) const NONEMPTY: usize = 8;
    /// `tc_slots_`: heads and tails of chains.
    pub(in super::super) const SLOTS: usize = 16;
    pub(in super::super) const MOST_SLOTS: usize = 64;
    /// `used_slots_`, the low half.
    pub(in super::super) const USED: usize = 144;
    pub(in super::super) const WORDS: usize = 152;
}

/// `ThreadCache` (src/thread_cache.h), in words: lists of a head, the length in the low half of the
/// next word, and the size of its objects in the low half of the last.
pub(super) mod cache {
    pub(in super::super) const LIST: usize = 4;
    pub(in super::super) const LENGTH: usize = 1;
    pub(in super::super) const SIZE: usize = 3;
    /// Words behind the lists, among which are the links to other caches.
    pub(in super::super) const TAIL: usize = 32;
}
