//! Where a walk stands in a heap, what it found so far, and how it finds its way on.

use std::{io, ops::Range};

use super::{
    heaps::{Arena, Heap, HeapKind},
    layout::{ALIGN, CHUNK_HEAD, FLAGS, HEAP_MAX, IS_MAPPED, MIN_CHUNK, NON_MAIN, PREV_IN_USE},
};
use crate::{
    allocator::{
        memory::{HUGE_PAGE, ReadMemory},
        pages::{OnPages, Pages, Sum, Use},
        window::Window,
    },
    model::region_map::PAGE,
};

/// What was found, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Free chunks by their kind.
    pub(super) cached: u64,
    pub(super) fast: u64,
    pub(super) binned: u64,
    pub(super) top: u64,
    /// Passed over.
    pub(super) unknown: u64,
    pub(super) resyncs: u64,
    /// From the first to the last chunk.
    pub(super) walked: u64,
    /// Frames that a trim frees, pages that it detaches from this process only, and resident bytes at
    /// the top that it does not touch.
    pub(super) trimmed: u64,
    pub(super) trimmed_shared: u64,
    /// Of the first, parts of huge pages of which others stay.
    pub(super) trimmed_late: u64,
    pub(super) other_top: u64,
    /// 0 when every fastbin chunk is the next of one other, or the head of a list.
    pub(super) fast_links: u64,
    /// A cache was met that told how to see more free chunks: walk again.
    pub(super) learned: bool,
    /// What lies on each page.
    pub(super) pages: OnPages,
}

/// Where a walk stands in a heap.
pub(super) struct Place<'a, 'm, M> {
    pub(super) memory: &'m M,
    pub(super) heap: &'a Heap,
    pub(super) arena: &'a Arena,
    /// Where fastbin links of this arena may lead.
    pub(super) bounds: Range<u64>,
    pub(super) pages: Pages<'m, M>,
    pub(super) window: Window,
    pub(super) sum: Sum<'m>,
    pub(super) found: Found,
    /// A chunk whose head was read: that of each is read once, and says whether the one before is free.
    pub(super) head_of: u64,
    pub(super) head: Head,
    /// A huge page's place that was asked about, and whether there is one.
    pub(super) huge: (u64, bool),
    /// Start of the free chunks that a trim would make one.
    pub(super) run: Option<u64>,
}

/// The first words of a chunk: the size of the chunk before it, its own size, and its first contents.
pub(super) type Head = [u64; 4];

/// Returns the pages that a trim gives back of a free chunk (`mtrim`, malloc/malloc.c).
pub(super) fn whole_pages(chunk: u64, end: u64) -> Range<u64> {
    (chunk + CHUNK_HEAD).next_multiple_of(PAGE)..end & !(PAGE - 1)
}

impl<M: ReadMemory> Place<'_, '_, M> {
    pub(super) fn add(&mut self, piece: Range<u64>, is: Use) -> io::Result<()> {
        self.sum.add(&mut self.pages, piece, is)
    }

    /// What was free up to here is one chunk to a trim.
    pub(super) fn close_run(&mut self, end: u64) -> io::Result<()> {
        match self.run.take() {
            Some(run) => self.trim(whole_pages(run, end)),
            None => Ok(()),
        }
    }

    pub(super) fn trim(&mut self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.found.trimmed_late += self.parts_of_huge_pages(&range);
        let frames = self.pages.count(range)?;
        self.found.trimmed += frames.own * PAGE;
        self.found.trimmed_shared += frames.shared * PAGE;
        Ok(())
    }

    /// Returns the bytes at the edges of a range that are parts of huge pages which reach beyond it: the
    /// kernel frees their frames when it splits those, under pressure.
    pub(super) fn parts_of_huge_pages(&mut self, range: &Range<u64>) -> u64 {
        let (first, last) = (range.start / HUGE_PAGE, (range.end - 1) / HUGE_PAGE);
        let mut parts = 0;
        for block in [first, last].into_iter().take(if first == last { 1 } else { 2 }) {
            let whole = block * HUGE_PAGE..(block + 1) * HUGE_PAGE;
            let part = range.start.max(whole.start)..range.end.min(whole.end);
            if part == whole {
                continue;
            }
            if self.huge.0 != block {
                self.huge = (block, self.memory.is_huge(part.start));
            }
            if self.huge.1 {
                parts += part.end - part.start;
            }
        }
        parts
    }

    /// The heap goes on where it was not looked at.
    pub(super) fn end(&mut self, chunk: u64) -> io::Result<Option<u64>> {
        self.close_run(chunk)?;
        let rest = chunk..self.heap.range.end;
        if !rest.is_empty() {
            self.found.walked += rest.end - rest.start;
            self.add(rest, Use::Used)?;
        }
        Ok(None)
    }

    /// A heap ends. In the main arena another piece of it may follow, behind what others got by `brk`.
    pub(super) fn fencepost(&mut self, chunk: u64) -> io::Result<Option<u64>> {
        self.close_run(chunk)?;
        let end = (chunk + 2 * ALIGN).min(self.heap.range.end);
        self.add(chunk..end, Use::Used)?;
        self.found.walked += end - chunk;
        match self.heap.kind {
            HeapKind::Other => Ok(None),
            HeapKind::Mapped => self.next_segment(end),
            HeapKind::Brk => {
                let next = self.plausible_from(end, ALIGN)?;
                let end_of_gap = next.unwrap_or(self.heap.range.end);
                // It is the arena's, by its own account.
                self.found.walked += end_of_gap - end;
                self.add(end..end_of_gap, Use::Used)?;
                Ok(next)
            }
        }
    }

    /// Looks for the next chunk of the main arena in a mapping that holds other things too.
    pub(super) fn next_segment(&mut self, from: u64) -> io::Result<Option<u64>> {
        self.plausible_from(from.next_multiple_of(PAGE), PAGE)
    }

    /// Passes over what makes no sense.
    pub(super) fn resync(&mut self, chunk: u64) -> io::Result<Option<u64>> {
        self.close_run(chunk)?;
        if self.heap.kind == HeapKind::Mapped {
            return self.next_segment(chunk + 1);
        }
        let next = self.plausible_from(chunk + ALIGN, ALIGN)?;
        let end = next.unwrap_or(self.heap.range.end);
        self.found.resyncs += 1;
        self.found.unknown += end - chunk;
        self.found.walked += end - chunk;
        self.add(chunk..end, Use::Used)?;
        Ok(next)
    }

    /// Returns the next place, in steps, from which several chunks in a row make sense.
    pub(super) fn plausible_from(&mut self, mut chunk: u64, step: u64) -> io::Result<Option<u64>> {
        let mut known_to = chunk;
        while chunk < self.heap.range.end {
            if chunk >= known_to {
                known_to = (chunk / PAGE + 1) * PAGE;
                // Zeros are no chunk; of a core that was cut short there may be gigabytes of them.
                if !self.pages.state(chunk)?.is_readable() {
                    chunk = known_to;
                    continue;
                }
            }
            if !self.window.reaches(self.memory, chunk)? {
                break;
            }
            if self.is_plausible(chunk) {
                return Ok(Some(chunk));
            }
            chunk += step;
        }
        Ok(None)
    }

    /// Tells whether chunks in a row make sense from here, as far as the window goes.
    pub(super) fn is_plausible(&self, mut chunk: u64) -> bool {
        /// In a row, and how many of them before the end of the window is reached.
        const ENOUGH: u32 = 8;
        const AT_LEAST: u32 = 3;
        let wanted = if self.heap.kind == HeapKind::Other { NON_MAIN } else { 0 };
        for count in 0..ENOUGH {
            if !self.window.holds(chunk) {
                return count >= AT_LEAST;
            }
            let head = self.window.word(chunk + 8);
            let size = head & !FLAGS;
            if chunk == self.arena.top {
                return size >= MIN_CHUNK;
            }
            let fits = size >= MIN_CHUNK && size.is_multiple_of(ALIGN) && size <= HEAP_MAX;
            if !fits || head & (IS_MAPPED | NON_MAIN) != wanted {
                return false;
            }
            let next = chunk + size;
            if next > self.heap.range.end {
                return false;
            }
            if self.window.holds(next) {
                let is_free = self.window.word(next + 8) & PREV_IN_USE == 0;
                if is_free && self.window.word(next) != size {
                    return false;
                }
            }
            chunk = next;
        }
        true
    }
}
