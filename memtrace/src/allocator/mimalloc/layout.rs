//! Where the fields are that a walk reads, in mimalloc 2.0.9 to 2.4.1 (include/mimalloc/types.h), 64 bits,
//! as it is built for release: without padding and without encoded lists.

/// Size and alignment of a segment, and of its slices.
pub(super) const SEGMENT: u64 = 32 << 20;
pub(super) const SLICE: u64 = 64 << 10;
/// Slices of which a segment keeps books.
pub(super) const SLICES: u64 = SEGMENT / SLICE;

/// What differs between versions: offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// `mi_segment_t`.
    pub(super) commit_mask: u64,
    pub(super) cookie: u64,
    /// `segment_slices`; `segment_info_slices` and `kind` follow.
    pub(super) segment_slices: u64,
    pub(super) slice_entries: u64,
    pub(super) slices: u64,
    pub(super) page: PageLayout,
}

/// `mi_page_t`: the slices of a segment are such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageLayout {
    pub(super) size: u64,
    /// `used` and `xblock_size`, halves of one word; else `used` and `block_size` are words of their own,
    /// and `page_start` follows.
    pub(super) is_packed: bool,
    pub(super) used: u64,
    pub(super) local_free: u64,
    /// `xthread_free`; `xheap` follows.
    pub(super) thread_free: u64,
    /// `thread_delayed_free` in `mi_heap_t`.
    pub(super) delayed_free: u64,
}

/// `slice_count` and `slice_offset`; the word with `capacity` and `reserved`; `free`.
pub(super) const COUNT: u64 = 0;
pub(super) const CAPACITY: u64 = 8;
pub(super) const FREE: u64 = 16;

const PACKED: PageLayout = PageLayout {
    size: 80,
    is_packed: true,
    used: 24,
    local_free: 32,
    thread_free: 40,
    delayed_free: 2840,
};
const WIDE: PageLayout = PageLayout {
    size: 96,
    is_packed: false,
    used: 32,
    local_free: 24,
    thread_free: 56,
    delayed_free: 8,
};

/// 2.0.9 to 2.1.2, 2.1.4 to 2.1.7, 2.1.9 to 2.4.1.
pub(super) const LAYOUTS: [Layout; 3] = [
    Layout {
        commit_mask: 112,
        cookie: 216,
        segment_slices: 224,
        slice_entries: 248,
        slices: 264,
        page: PACKED,
    },
    Layout {
        commit_mask: 112,
        cookie: 216,
        segment_slices: 224,
        slice_entries: 248,
        slices: 264,
        page: WIDE,
    },
    Layout {
        commit_mask: 120,
        cookie: 224,
        segment_slices: 248,
        slice_entries: 272,
        slices: 288,
        page: WIDE,
    },
];
