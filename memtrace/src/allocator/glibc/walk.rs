//! The walk over the chunks of one heap, upwards, while the program goes on.
//!
//! What does not make sense was changed between two readings, or is damaged: the walk looks for the
//! next place from which several chunks in a row do, and says how much it passed over.

use std::{io, ops::Range};

use super::{
    find::Parameters,
    heaps::{Arena, Heap, HeapKind},
    layout::{ALIGN, FLAGS, Layout, MIN_CHUNK, PREV_IN_USE, arena::TOP},
    marks::Marks,
    place::{Found, Head, Place, whole_pages},
};
use crate::{
    allocator::{
        mappings::Mappings,
        memory::ReadMemory,
        pages::{Pages, Sum, Use},
        window::Window,
    },
    model::region_map::PAGE,
};

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
