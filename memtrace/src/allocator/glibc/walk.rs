//! The walk over the chunks of one heap, upwards, while the program goes on.
//!
//! What does not make sense was changed between two readings, or is damaged: the walk looks for the
//! next place from which several chunks in a row do, and says how much it passed over.

use std::{io, ops::Range};

use super::{
    find::Parameters,
    heaps::{Arena, Heap, HeapKind},
    layout::{
        ALIGN, CHUNK_HEAD, FLAGS, HEAP_MAX, IS_MAPPED, Layout, MIN_CHUNK, NON_MAIN, PREV_IN_USE,
        arena::TOP,
    },
    marks::Marks,
};
use crate::{
    allocator::{
        mappings::Mappings,
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

/// Returns a number that stands for a link: the sum of all nexts and heads is that of all chunks.
pub(super) fn link_number(chunk: u64) -> u64 {
    (chunk ^ chunk >> 29)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23)
        .wrapping_mul(chunk | 1)
}

/// What all heaps share.
pub(super) struct Walk<'a, M> {
    pub(super) memory: &'a M,
    pub(super) mappings: &'a Mappings,
    pub(super) layout: Layout,
    pub(super) parameters: Option<Parameters>,
    pub(super) marks: Marks,
}

/// Where a walk stands in a heap.
struct Place<'a, 'm, M> {
    memory: &'m M,
    heap: &'a Heap,
    arena: &'a Arena,
    /// Where fastbin links of this arena may lead.
    bounds: Range<u64>,
    pages: Pages<'m, M>,
    window: Window,
    sum: Sum<'m>,
    found: Found,
    /// A chunk whose head was read: that of each is read once, and says whether the one before is free.
    head_of: u64,
    head: Head,
    /// A huge page's place that was asked about, and whether there is one.
    huge: (u64, bool),
    /// Start of the free chunks that a trim would make one.
    run: Option<u64>,
}

/// The first words of a chunk: the size of the chunk before it, its own size, and its first contents.
type Head = [u64; 4];

/// What a chunk is.
enum Is {
    Used,
    Cached,
    Fast(u64),
    Binned,
    /// Freed or taken while it was read.
    Torn,
}

impl<'m, M: ReadMemory> Walk<'m, M> {
    /// Walks a heap.
    pub(super) fn heap(
        &mut self,
        heap: &Heap,
        arena: &Arena,
        bounds: Range<u64>,
    ) -> io::Result<Found> {
        let mut place = Place {
            memory: self.memory,
            heap,
            arena,
            bounds,
            pages: Pages::new(self.memory),
            window: Window::new(heap.range.clone()),
            sum: Sum::new(self.mappings),
            found: Found::default(),
            head_of: 0,
            head: Head::default(),
            huge: (u64::MAX, false),
            run: None,
        };
        let mut chunk = heap.first;
        if heap.kind == HeapKind::Mapped {
            match place.next_segment(heap.range.start)? {
                Some(next) => chunk = next,
                None => return Ok(place.found),
            }
        } else {
            place.add(heap.range.start..chunk, Use::Used)?;
            place.found.walked = heap.before;
        }
        while let Some(next) = self.step(&mut place, chunk)? {
            chunk = next;
        }
        let Place { sum, mut pages, mut found, .. } = place;
        found.pages = sum.finish(&mut pages)?;
        Ok(found)
    }

    /// Takes one chunk. Returns the next, `None` at the end.
    #[inline]
    fn step(&mut self, place: &mut Place<'_, 'm, M>, chunk: u64) -> io::Result<Option<u64>> {
        let end = place.heap.range.end;
        if place.head_of != chunk {
            if !place.window.reaches(self.memory, chunk)? {
                return place.end(chunk);
            }
            place.head = place.window.words(chunk);
        }
        let head = place.head;
        let size = head[1] & !FLAGS;
        let next = chunk.saturating_add(size);
        let may_be_top = next == end && size >= MIN_CHUNK || chunk == place.arena.top;
        if may_be_top && self.is_top(place, chunk, next)? {
            return self.top(place, chunk, next.min(end));
        }
        // The marks behind what the last chunk of a heap was, before another one was begun.
        let is_last = chunk + MIN_CHUNK >= end;
        let is_fence = size == ALIGN && (is_last || place.heap.kind != HeapKind::Other);
        if is_fence || size == 0 && is_last {
            return place.fencepost(chunk);
        }
        if size < MIN_CHUNK || !size.is_multiple_of(ALIGN) || next > end - ALIGN {
            return place.resync(chunk);
        }
        if !place.window.reaches(self.memory, next)? {
            return place.end(chunk);
        }
        let next_head = place.window.words(next);
        (place.head_of, place.head) = (next, next_head);
        let is = self.judge(place, chunk, head, next_head);
        match is {
            Is::Used | Is::Torn => {
                place.close_run(chunk)?;
                place.add(chunk..next, Use::Used)?;
                if matches!(is, Is::Torn) {
                    place.found.unknown += size;
                } else if size == self.layout.cache.chunk {
                    let Self { memory, mappings, layout, .. } = *self;
                    place.found.learned |=
                        self.marks.learn_cache(memory, mappings, layout, chunk + 16)?;
                }
            }
            Is::Cached => {
                place.close_run(chunk)?;
                place.add(chunk..next, Use::Cached)?;
                place.found.cached += size;
            }
            Is::Fast(link) => {
                place.run.get_or_insert(chunk);
                place.add(chunk..next, Use::Free)?;
                place.found.fast += size;
                let links = &mut place.found.fast_links;
                *links = links.wrapping_add(link_number(chunk));
                if link != 0 {
                    *links = links.wrapping_sub(link_number(link));
                }
            }
            Is::Binned => {
                place.run.get_or_insert(chunk);
                place.add(chunk..next, Use::Free)?;
                place.found.binned += size;
            }
        }
        place.found.walked += size;
        Ok(Some(next))
    }

    #[inline]
    fn judge(&self, place: &Place<'_, 'm, M>, chunk: u64, head: Head, next: Head) -> Is {
        let [_, size, first, second] = head;
        let size = size & !FLAGS;
        if next[1] & PREV_IN_USE == 0 {
            return if next[0] == size { Is::Binned } else { Is::Torn };
        }
        if self.marks.is_cached(self.layout, chunk, size, [first, second]) {
            return Is::Cached;
        }
        match self.marks.is_fast(self.layout, chunk, size, first, &place.bounds) {
            Some(link) => Is::Fast(link),
            None => Is::Used,
        }
    }

    /// Tells whether a chunk is the top of its arena: now, since it may have moved.
    fn is_top(&self, place: &Place<'_, 'm, M>, chunk: u64, next: u64) -> io::Result<bool> {
        if next == place.heap.range.end && place.heap.kind != HeapKind::Mapped {
            return Ok(true);
        }
        let top = self.memory.word(place.arena.start + self.layout.bins_at - TOP)?;
        Ok(top == Some(chunk) && next > chunk)
    }

    /// Takes the top. A trim gives back all of the main arena's but what one more chunk needs
    /// (`systrim`, malloc/malloc.c), and nothing of others'.
    fn top(&self, place: &mut Place<'_, 'm, M>, chunk: u64, end: u64) -> io::Result<Option<u64>> {
        place.found.top += end - chunk;
        place.found.walked += end - chunk;
        place.add(chunk..end, Use::Free)?;
        let run = place.run.take().unwrap_or(chunk);
        if place.heap.kind == HeapKind::Brk && end == place.heap.range.end {
            let step = self.parameters.map_or(0, |parameters| parameters.thp_page).max(PAGE);
            let extra = (end - run).saturating_sub(MIN_CHUNK + 1) & !(step - 1);
            place.trim(end - extra..end)?;
        } else {
            let frames = place.pages.count(whole_pages(run, end))?;
            place.found.other_top += frames.bytes();
        }
        match place.heap.kind {
            HeapKind::Mapped => place.next_segment(end),
            HeapKind::Brk | HeapKind::Other => Ok(None),
        }
    }
}

/// Returns the pages that a trim gives back of a free chunk (`mtrim`, malloc/malloc.c).
fn whole_pages(chunk: u64, end: u64) -> Range<u64> {
    (chunk + CHUNK_HEAD).next_multiple_of(PAGE)..end & !(PAGE - 1)
}

impl<M: ReadMemory> Place<'_, '_, M> {
    fn add(&mut self, piece: Range<u64>, is: Use) -> io::Result<()> {
        self.sum.add(&mut self.pages, piece, is)
    }

    /// What was free up to here is one chunk to a trim.
    fn close_run(&mut self, end: u64) -> io::Result<()> {
        match self.run.take() {
            Some(run) => self.trim(whole_pages(run, end)),
            None => Ok(()),
        }
    }

    fn trim(&mut self, range: Range<u64>) -> io::Result<()> {
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
    fn parts_of_huge_pages(&mut self, range: &Range<u64>) -> u64 {
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
    fn end(&mut self, chunk: u64) -> io::Result<Option<u64>> {
        self.close_run(chunk)?;
        let rest = chunk..self.heap.range.end;
        if !rest.is_empty() {
            self.found.walked += rest.end - rest.start;
            self.add(rest, Use::Used)?;
        }
        Ok(None)
    }

    /// A heap ends. In the main arena another piece of it may follow, behind what others got by `brk`.
    fn fencepost(&mut self, chunk: u64) -> io::Result<Option<u64>> {
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
    fn next_segment(&mut self, from: u64) -> io::Result<Option<u64>> {
        self.plausible_from(from.next_multiple_of(PAGE), PAGE)
    }

    /// Passes over what makes no sense.
    fn resync(&mut self, chunk: u64) -> io::Result<Option<u64>> {
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
    fn plausible_from(&mut self, mut chunk: u64, step: u64) -> io::Result<Option<u64>> {
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
    fn is_plausible(&self, mut chunk: u64) -> bool {
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
