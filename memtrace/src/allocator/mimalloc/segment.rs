//! One segment: what its books say of its slices.

use super::layout::{CAPACITY, COUNT, FREE, LAYOUTS, Layout, PageLayout, SEGMENT, SLICE, SLICES};
use crate::allocator::memory::word;

/// Bytes of a segment that hold its books: the first slice.
pub(super) const BOOKS: u64 = SLICE;

/// The books of a segment.
pub(super) struct Segment<'a> {
    pub(super) layout: &'static Layout,
    pub(super) start: u64,
    bytes: &'a [u8],
}

/// A run of slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First slice, and how many.
    pub(super) index: u64,
    pub(super) count: u64,
    /// `None` for a free one.
    pub(super) page: Option<Page>,
}

/// A page of mimalloc: blocks of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) block: u64,
    /// Blocks that were made, that there is room for, and that were handed out.
    pub(super) capacity: u64,
    pub(super) reserved: u64,
    pub(super) used: u64,
    /// Heads of its lists; the last one's low bits are flags.
    pub(super) free: u64,
    pub(super) local_free: u64,
    pub(super) thread_free: u64,
    /// `mi_heap_t`.
    pub(super) heap: u64,
    /// Its first block, where it says so.
    pub(super) start: Option<u64>,
}

impl Span {
    /// Tells whether its blocks fit in it.
    pub(super) fn makes_sense(&self) -> bool {
        let len = self.count * SLICE;
        self.page.is_none_or(|page| {
            page.used <= page.capacity
                && page.capacity <= page.reserved
                && page.reserved.max(1).checked_mul(page.block).is_some_and(|blocks| blocks <= len)
        })
    }
}

impl<'a> Segment<'a> {
    /// Takes the first slice of what may be a segment.
    pub(super) fn new(layout: &'static Layout, start: u64, bytes: &'a [u8]) -> Self {
        Self { layout, start, bytes }
    }

    /// Returns the layout in which the first slice of what may be a segment makes sense.
    pub(super) fn layout_of(start: u64, bytes: &[u8]) -> Option<&'static Layout> {
        LAYOUTS.iter().find(|layout| Segment::new(layout, start, bytes).is_whole())
    }

    fn word(&self, at: u64) -> u64 {
        self.bytes.get(at as usize..at as usize + 8).map_or(0, word)
    }

    /// Returns the number that all segments of a process share.
    pub(super) fn cookie(&self) -> u64 {
        self.word(self.layout.cookie) ^ self.start
    }

    /// Returns its slices, more than those with books in a huge one.
    pub(super) fn all_slices(&self) -> u64 {
        self.word(self.layout.segment_slices)
    }

    /// Returns the slices that hold its books.
    pub(super) fn info_slices(&self) -> u64 {
        self.word(self.layout.segment_slices + 8)
    }

    /// Tells whether it is of one block.
    pub(super) fn is_huge(&self) -> bool {
        self.word(self.layout.segment_slices + 16) as u32 == 1
    }

    /// Returns its bytes.
    pub(super) fn len(&self) -> u64 {
        self.all_slices().saturating_mul(SLICE)
    }

    /// Returns the bytes that have memory, of its slices from one on.
    pub(super) fn committed(&self, from: u64) -> u64 {
        let all = self.all_slices();
        if self.is_huge() {
            return all.saturating_sub(from) * SLICE;
        }
        (from..all.min(SLICES)).filter(|&at| self.is_committed(at)).count() as u64 * SLICE
    }

    /// Tells whether a slice has memory.
    pub(super) fn is_committed(&self, index: u64) -> bool {
        index >= SLICES
            || self.is_huge()
            || self.word(self.layout.commit_mask + index / 64 * 8) >> (index % 64) & 1 == 1
    }

    /// Returns the run of slices that starts at one; `None` when it makes no sense.
    pub(super) fn span(&self, index: u64) -> Option<Span> {
        let Layout { slices, page: PageLayout { size, .. }, .. } = *self.layout;
        let words = self.word(slices + index * size + COUNT);
        let (count, offset) = (words & 0xffff_ffff, words >> 32);
        let end = index.checked_add(count)?;
        let fits = end <= self.word(self.layout.slice_entries)
            || self.is_huge() && end <= self.all_slices();
        if count == 0 || offset != 0 || !fits {
            return None;
        }
        Some(Span { index, count, page: self.page(index, count * SLICE) })
    }

    fn page(&self, index: u64, len: u64) -> Option<Page> {
        /// `MI_HUGE_BLOCK_SIZE`: the block has what the page has.
        const HUGE_BLOCK: u64 = 2 << 30;
        let page = &self.layout.page;
        let at = self.layout.slices + index * page.size;
        let counts = self.word(at + CAPACITY);
        let used = self.word(at + page.used);
        let (used, block, start) = match page.is_packed {
            true => (used & 0xffff_ffff, used >> 32, None),
            false => (used & 0xffff, self.word(at + page.used + 8), Some(page.used + 16)),
        };
        let block = if page.is_packed && block == HUGE_BLOCK { len } else { block };
        (block > 0).then(|| Page {
            block,
            capacity: counts >> 16 & 0xffff,
            reserved: counts >> 32 & 0xffff,
            used,
            free: self.word(at + FREE),
            local_free: self.word(at + page.local_free),
            thread_free: self.word(at + page.thread_free) & !3,
            heap: self.word(at + page.thread_free + 8),
            start: start.map(|start| self.word(at + start)),
        })
    }

    /// Returns the block size of the page that holds an address, if it lies in one that makes sense.
    pub(super) fn block_at(&self, address: u64) -> Option<u64> {
        let Layout { slices, page: PageLayout { size, .. }, .. } = *self.layout;
        let index = address.checked_sub(self.start).filter(|at| *at < SEGMENT)? / SLICE;
        let back = (self.word(slices + index * size + COUNT) >> 32) / size;
        let span = self.span(index.checked_sub(back)?).filter(Span::makes_sense)?;
        span.page.map(|page| page.block)
    }

    /// Tells whether all of its slices make sense.
    fn is_whole(&self) -> bool {
        let (all, info) = (self.all_slices(), self.info_slices());
        let entries = self.word(self.layout.slice_entries);
        let kind = self.word(self.layout.segment_slices + 16) as u32;
        let fits = kind <= 1
            && (1..=2).contains(&info)
            && entries > info
            && entries <= SLICES.min(all)
            && (kind == 1 || all == SLICES)
            && all <= 1 << 31;
        if !fits || self.word(self.layout.slices) & 0xffff_ffff != info {
            return false;
        }
        let mut index = info;
        while index < entries {
            match self.span(index) {
                Some(span) if span.makes_sense() => index += span.count,
                Some(_) | None => return false,
            }
        }
        true
    }
}
