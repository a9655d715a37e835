//! The walk over a heap, arena by arena, upwards, while the program goes on.

use std::{io, ops::Range};

use super::{
    find::{Heap, is_there},
    gather::Gathered,
    layout::{ARENA, CHUNK, CHUNK_DATA, GO_PAGE, SPAN, Span, State},
};
use crate::{
    allocator::{
        mappings::Mappings,
        memory::{ReadMemory, word},
        pages::{Frames, OnPages, Pages, Sum, Use},
    },
    model::region_map::PAGE,
};

/// What was found, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Spans of the heap (`HeapInuse`).
    pub(super) spans: u64,
    /// Spans of stacks, and of what the collector needs.
    pub(super) manual: u64,
    /// Free slots of spans.
    pub(super) slots: u64,
    /// Free stacks in pools of them.
    pub(super) stacks: u64,
    /// Free pages that were not given back (`HeapIdle` without `HeapReleased`).
    pub(super) idle: u64,
    /// Frames of free pages that `P`s keep for themselves.
    pub(super) cached: u64,
    /// Frames that lie behind pages that were given back.
    pub(super) released: u64,
    /// Frames behind idle pages.
    pub(super) idle_frames: Frames,
    /// Resident bytes of what was not understood, and how often that was.
    pub(super) unknown: u64,
    pub(super) torn: u64,
    /// What lies on each page.
    pub(super) pages: OnPages,
}

impl Found {
    /// Returns what it has from the kernel: memory that was given back is address space alone.
    pub(super) fn system(&self) -> u64 {
        let &Self { spans, manual, idle, cached, released, unknown, .. } = self;
        [spans, manual, idle, cached, released, unknown].into_iter().fold(0, u64::saturating_add)
    }
}

/// What a page is that no span has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Idle,
    Released,
    Cached,
    Unknown,
}

/// Walks a heap. What was given back by `MADV_FREE` `is_lazy`: the kernel counts what it did not take yet.
pub(super) fn heap<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    heap: &Heap,
    is_lazy: bool,
) -> io::Result<Found> {
    let mut walk = Walk {
        memory,
        is_lazy,
        pages: Pages::new(memory),
        books: Pages::new(memory),
        sum: Sum::new(mappings),
        at: 0,
        found: Found::default(),
    };
    for range in &heap.ranges {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min((start / ARENA + 1) * ARENA);
            walk.part(heap, start..end, range.end)?;
            start = end;
        }
    }
    let Walk { mut pages, sum, mut found, .. } = walk;
    found.pages = sum.finish(&mut pages)?;
    Ok(found)
}

/// Where the walk stands.
struct Walk<'a, M> {
    memory: &'a M,
    is_lazy: bool,
    pages: Pages<'a, M>,
    books: Pages<'a, M>,
    sum: Sum<'a>,
    /// Up to here all is booked.
    at: u64,
    found: Found,
}

/// The books of a part of an arena.
struct Books {
    part: Range<u64>,
    /// Leads from each page to a span.
    table: Vec<u64>,
    spans: Gathered,
    bits: Gathered,
    /// Bits of pages in use and of those that were given back, for each chunk, before the spans were read
    /// and afterwards: spans come and go meanwhile.
    before: Vec<u64>,
    bitmaps: Vec<u64>,
    /// None of it is in swap.
    are_whole: bool,
}

impl<M: ReadMemory> Walk<'_, M> {
    /// Walks a part of an arena; spans end at `limit` at most.
    fn part(&mut self, heap: &Heap, part: Range<u64>, limit: u64) -> io::Result<()> {
        let Some(books) = self.books(heap, &part)? else {
            let start = self.at.max(part.start);
            self.at = self.at.max(part.end);
            return self.others(start..part.end, Page::Unknown);
        };
        // Pages that no span has, and are of one kind.
        let mut run = (self.at.max(part.start), Page::Idle);
        let mut page = run.0;
        while page < part.end {
            let span = books.span(heap, page).filter(|span| span.range().end <= limit);
            match span {
                Some(span) if span.start == page => {
                    self.others(run.0..page, run.1)?;
                    let bits = books.bits.at(span.bits, span.bits_len()).unwrap_or_default();
                    self.span(&span, bits)?;
                    page = span.range().end;
                    run = (page, Page::Idle);
                }
                within => {
                    let kind = books.page(page, within.is_some());
                    if kind != run.1 {
                        self.others(run.0..page, run.1)?;
                        run = (page, kind);
                    }
                    page += GO_PAGE;
                }
            }
        }
        self.others(run.0..page, run.1)?;
        self.at = page;
        Ok(())
    }

    /// Reads the books of a part of an arena; `None` when they are not there.
    fn books(&mut self, heap: &Heap, part: &Range<u64>) -> io::Result<Option<Books>> {
        let memory = self.memory;
        let Some(arena) = heap.arena(memory, part.start)? else { return Ok(None) };
        let Some(bitmaps_at) = heap.bitmaps(memory, part.start)? else { return Ok(None) };
        let first = heap.layout.spans() + part.start % ARENA / GO_PAGE * 8;
        let Some(table_at) = arena.checked_add(first) else { return Ok(None) };
        let table_len = (part.end - part.start) / GO_PAGE * 8;
        let bitmaps_len = (part.end - part.start) / CHUNK * CHUNK_DATA;
        let bitmaps = || memory.words(bitmaps_at, bitmaps_len as usize / 8);
        let Some(before) = bitmaps()? else { return Ok(None) };
        let mut are_whole = is_there(&mut self.books, table_at, table_len)?;
        let mut bytes = vec![0; table_len as usize];
        self.books.read(table_at, &mut bytes)?;
        let table: Vec<u64> = bytes.chunks_exact(8).map(word).collect();

        let mut places = table.clone();
        places.sort_unstable();
        places.dedup();
        places.retain(|place| place.is_multiple_of(8) && *place != 0);
        let mut last = 0;
        for place in &places {
            if place / PAGE != last {
                last = place / PAGE;
                are_whole &= is_there(&mut self.books, *place, SPAN as u64)?;
            }
        }
        let mut pieces: Vec<_> = places.iter().map(|&place| (place, SPAN)).collect();
        let spans = Gathered::read(memory, &mut pieces)?;
        let with_bits = places.iter().filter_map(|&place| {
            let span = heap.layout.span(spans.at(place, SPAN)?)?;
            (part.contains(&span.start) && span.free_slots() > 0)
                .then(|| (span.bits, span.bits_len()))
        });
        let mut pieces: Vec<_> = with_bits.collect();
        let bits = Gathered::read(memory, &mut pieces)?;
        let Some(bitmaps) = bitmaps()? else { return Ok(None) };
        Ok(Some(Books { part: part.clone(), table, spans, bits, before, bitmaps, are_whole }))
    }

    /// Books a span.
    fn span(&mut self, span: &Span, bits: &[u8]) -> io::Result<()> {
        let range = span.range();
        let len = range.end - range.start;
        match span.state {
            State::InUse if span.free_slots() == 0 || span.agrees(bits) => {
                self.found.spans += len;
                self.found.slots += span.free_slots() * span.size;
                if span.free_slots() > 0 {
                    self.pieces(range, span.size, |slot| span.is_free(bits, slot))?;
                }
                Ok(())
            }
            State::InUse => self.others(range, Page::Unknown),
            State::Manual => {
                self.found.manual += len;
                let free = self.free_stacks(span)?;
                self.found.stacks += u64::from(free.count_ones()) * span.size;
                if free != 0 {
                    self.pieces(range, span.size, |slot| free >> slot & 1 == 1)?;
                }
                Ok(())
            }
        }
    }

    /// Returns the bits of free stacks of a pool; none when its list is not as long as it says.
    fn free_stacks(&self, span: &Span) -> io::Result<u64> {
        let (mut found, mut stack) = (0_u64, span.free_list);
        for _ in 0..span.free_stacks() {
            let offset = stack.wrapping_sub(span.start);
            if !span.range().contains(&stack) || !offset.is_multiple_of(span.size) {
                return Ok(0);
            }
            found |= 1 << (offset / span.size);
            stack = self.memory.word(stack)?.unwrap_or(0);
        }
        let is_whole = stack == 0 && u64::from(found.count_ones()) == span.free_stacks();
        Ok(if is_whole { found } else { 0 })
    }

    /// Books the slots of a span, and what is left behind the last one.
    fn pieces(
        &mut self,
        range: Range<u64>,
        size: u64,
        is_free: impl Fn(u64) -> bool,
    ) -> io::Result<()> {
        let mut start = range.start;
        let mut was_free = false;
        for slot in 0..(range.end - range.start) / size {
            let is_free = is_free(slot);
            if is_free != was_free {
                let end = range.start + slot * size;
                self.piece(start..end, was_free)?;
                (start, was_free) = (end, is_free);
            }
        }
        let rest = (range.end - range.start) % size;
        self.piece(start..range.end - rest, was_free)?;
        self.piece(range.end - rest..range.end, false)
    }

    fn piece(&mut self, piece: Range<u64>, is_free: bool) -> io::Result<()> {
        let is = if is_free { Use::Free } else { Use::Used };
        if piece.is_empty() { Ok(()) } else { self.sum.add(&mut self.pages, piece, is) }
    }

    /// Books pages that no span has.
    fn others(&mut self, range: Range<u64>, kind: Page) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let frames = self.pages.count(range.clone())?;
        let found = &mut self.found;
        let is = match kind {
            Page::Idle => {
                found.idle += range.end - range.start;
                found.idle_frames.own += frames.own;
                found.idle_frames.shared += frames.shared;
                Use::Free
            }
            Page::Released if self.is_lazy => return Ok(()),
            Page::Released => {
                found.released += frames.bytes();
                Use::Free
            }
            Page::Cached => {
                found.cached += frames.bytes();
                Use::Cached
            }
            Page::Unknown => {
                found.unknown += frames.bytes();
                found.torn += 1;
                return Ok(());
            }
        };
        if frames.bytes() > 0 { self.sum.add(&mut self.pages, range, is) } else { Ok(()) }
    }
}

impl Books {
    /// Returns the span that has a page.
    fn span(&self, heap: &Heap, page: u64) -> Option<Span> {
        let place = *self.table.get(((page - self.part.start) / GO_PAGE) as usize)?;
        let span = heap.layout.span(self.spans.at(place, SPAN)?)?;
        span.range().contains(&page).then_some(span)
    }

    /// Returns what a page is; `in_span` when a span has it that does not begin here.
    fn page(&self, page: u64, in_span: bool) -> Page {
        let number = ((page - self.part.start) / GO_PAGE) as usize;
        let bit = |bitmaps: &[u64], first: usize| {
            let word = bitmaps.get(number / 512 * 16 + first + number % 512 / 64);
            word.copied().unwrap_or(0) >> (number % 64) & 1 == 1
        };
        match (bit(&self.bitmaps, 0), bit(&self.bitmaps, 8)) {
            _ if in_span => Page::Unknown,
            (true, _) if self.are_whole && bit(&self.before, 0) => Page::Cached,
            (true, _) => Page::Unknown,
            (false, true) => Page::Released,
            (false, false) => Page::Idle,
        }
    }
}
