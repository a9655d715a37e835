//! Finds the heap in the data of a program, with or without symbols: a word there leads to the table of
//! arenas (`mheap_.arenas`), whose spans lie where the table says; not far before it is the table of the
//! bitmaps of pages (`mheap_.pages.chunks`), in which those spans are in use.

use std::{collections::HashSet, io, ops::Range};

use super::{
    gather::Gathered,
    layout::{
        ARENA, ARENA_TABLE, CHUNK, CHUNK_DATA, CHUNK_TABLES, GO_PAGE, IN_USE, Layout, SPAN, Span,
        State, TABLE_CHUNKS, arena_number, arena_start, chunk_number,
    },
};
use crate::{
    allocator::{
        mappings::{Mappings, is_private_writable},
        memory::{PageState, ReadMemory, pages_of, word},
        pages::Pages,
        search::{at_most, search},
    },
    model::region_map::PAGE,
};

/// Data that is searched at most, and words of it that are tried.
const MOST_DATA: u64 = 256 << 20;
const MOST_TRIED: usize = 1 << 12;
/// Arenas that are looked for in each table.
const MOST_ARENAS: usize = 128;
/// How far before the arenas the bitmaps may be: their table has 64 KiB, and little is behind it.
const BEFORE: u64 = 96 << 10;
/// Spans that are compared with their arena, how many of them must be there, and how many of a hundred
/// must agree with their bits: the program goes on while they are read.
const SAMPLES: usize = 256;
const AT_LEAST: usize = 4;
const AGREE: usize = 90;
/// Ranges of memory that the heap may have, and times that they are read while they change.
const MOST_RANGES: u64 = 1 << 16;
const TRIES: usize = 3;

/// Where the books of a heap are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heap {
    /// How they look.
    pub(super) layout: Layout,
    /// The table of arenas.
    arenas: u64,
    /// The tables of bitmaps.
    chunks: u64,
    /// The memory that it has or had, ascending, in whole chunks.
    pub(super) ranges: Vec<Range<u64>>,
}

impl Heap {
    /// Returns where the book of the arena of an address is.
    pub(super) fn arena<M: ReadMemory>(&self, memory: &M, address: u64) -> io::Result<Option<u64>> {
        let number = arena_number(address);
        if number >= ARENA_TABLE / 8 {
            return Ok(None);
        }
        Ok(memory.word(self.arenas + 8 * number)?.filter(|&arena| arena != 0))
    }

    /// Returns where the bitmaps of the chunk of an address are.
    pub(super) fn bitmaps<M: ReadMemory>(
        &self,
        memory: &M,
        address: u64,
    ) -> io::Result<Option<u64>> {
        let number = chunk_number(address);
        if number / TABLE_CHUNKS >= CHUNK_TABLES {
            return Ok(None);
        }
        let table = memory.word(self.chunks + 8 * (number / TABLE_CHUNKS))?;
        let place = |table: u64| table.checked_add(CHUNK_DATA * (number % TABLE_CHUNKS));
        Ok(table.filter(|&table| table != 0).and_then(place))
    }
}

/// Returns the heap whose books are in some data.
pub(super) fn heap<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    data: &[Range<u64>],
) -> io::Result<Option<Heap>> {
    let numbers = numbers(mappings);
    let mut books =
        Search { memory, mappings, numbers, pages: Pages::new(memory), tried: HashSet::new() };
    for (range, searched) in data.iter().zip(at_most(data, MOST_DATA)) {
        let found = search(memory, [searched], 0, |start, words| {
            for (at, &table) in (start..).step_by(8).zip(words) {
                if table != 0
                    && books.is_anonymous(table, ARENA_TABLE)
                    && let Some(heap) = books.heap(at, table, range)?
                {
                    return Ok(Some(heap));
                }
            }
            Ok(None)
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Returns the numbers of arenas whose first byte some memory has: the lowest, in each region one.
fn numbers(mappings: &Mappings) -> Vec<u64> {
    let starts = mappings.iter().filter_map(|mapping| {
        let start = mapping.start.checked_next_multiple_of(ARENA)?;
        (start < mapping.end && is_private_writable(mapping)).then(|| arena_number(start))
    });
    starts.filter(|&number| number < ARENA_TABLE / 8).take(MOST_ARENAS).collect()
}

struct Search<'a, M> {
    memory: &'a M,
    mappings: &'a Mappings,
    /// Arenas that there may be.
    numbers: Vec<u64>,
    pages: Pages<'a, M>,
    tried: HashSet<u64>,
}

impl<M: ReadMemory> Search<'_, M> {
    /// Tells whether whole pages in anonymous memory begin here.
    fn is_anonymous(&self, start: u64, len: u64) -> bool {
        let is_here = |address: u64| {
            let mapping = self.mappings.at(address);
            mapping.is_some_and(|m| m.inode == 0 && is_private_writable(m))
        };
        start.is_multiple_of(PAGE) && is_here(start) && is_here(start.saturating_add(len - 1))
    }

    /// Returns the heap whose table of arenas a word at `at` leads to.
    fn heap(&mut self, at: u64, arenas: u64, data: &Range<u64>) -> io::Result<Option<Heap>> {
        if self.tried.len() >= MOST_TRIED || !self.tried.insert(arenas) {
            return Ok(None);
        }
        let Some((number, arena)) = self.first_arena(arenas)? else { return Ok(None) };
        for layout in Layout::ALL {
            let spans = self.samples(layout, number, arena)?;
            if spans.len() < AT_LEAST {
                continue;
            }
            let first = data.start.max(at.saturating_sub(BEFORE));
            let mut bytes = vec![0; (at - first) as usize];
            self.pages.read(first, &mut bytes)?;
            for (place, table) in (first..).step_by(8).zip(bytes.chunks_exact(8).map(word)) {
                if table == 0 || !self.is_anonymous(table, TABLE_CHUNKS * CHUNK_DATA) {
                    continue;
                }
                let tables_before = chunk_number(arena_start(number)) / TABLE_CHUNKS;
                let Some(chunks) = place.checked_sub(8 * tables_before) else { continue };
                if chunks >= data.start
                    && self.are_in_use(&spans, table)?
                    && let Some(ranges) = self.ranges(chunks, &spans)?
                {
                    return Ok(Some(Heap { layout, arenas, chunks, ranges }));
                }
            }
        }
        Ok(None)
    }

    /// Returns the first arena of a table, and its number.
    fn first_arena(&self, arenas: u64) -> io::Result<Option<(u64, u64)>> {
        for &number in &self.numbers {
            let arena = self.memory.word(arenas + 8 * number)?.unwrap_or(0);
            if arena != 0 {
                return Ok(self.is_anonymous(arena, PAGE).then_some((number, arena)));
            }
        }
        Ok(None)
    }

    /// Returns spans of an arena that lie where it says, and agree with their bits.
    fn samples(&mut self, layout: Layout, number: u64, arena: u64) -> io::Result<Vec<Span>> {
        let Some(table) = arena.checked_add(layout.spans()) else { return Ok(Vec::new()) };
        let mut bytes = vec![0; (ARENA / GO_PAGE * 8) as usize];
        self.pages.read(table, &mut bytes)?;
        let first = arena_start(number);
        let mut last = 0;
        let mut places: Vec<(u64, u64)> = Vec::new();
        for (page, span) in (first..).step_by(GO_PAGE as usize).zip(bytes.chunks_exact(8).map(word))
        {
            if span != 0 && span != last && places.len() < SAMPLES {
                if !span.is_multiple_of(8) || !self.mappings.is_private_writable(span) {
                    return Ok(Vec::new());
                }
                places.push((page, span));
            }
            last = span;
        }
        let mut pieces: Vec<_> = places.iter().map(|&(_, span)| (span, SPAN)).collect();
        let books = Gathered::read(self.memory, &mut pieces)?;
        // Pages of spans that are no more lead to what is another one now.
        let mut spans: Vec<Span> = places
            .iter()
            .filter_map(|&(page, span)| {
                let span = layout.span(books.at(span, SPAN)?)?;
                (span.start == page && span.state == State::InUse).then_some(span)
            })
            .collect();
        let all = spans.len();
        let mut pieces: Vec<_> = spans.iter().map(|span| (span.bits, span.bits_len())).collect();
        let bits = Gathered::read(self.memory, &mut pieces)?;
        spans.retain(|span| {
            bits.at(span.bits, span.bits_len()).is_some_and(|bits| span.agrees(bits))
        });
        let agree = spans.len() * 100 >= all * AGREE;
        Ok(if agree { spans } else { Vec::new() })
    }

    /// Tells whether spans are in use in a table of bitmaps.
    fn are_in_use(&self, spans: &[Span], table: u64) -> io::Result<bool> {
        let mut found = 0;
        for span in spans {
            let place = table + CHUNK_DATA * (chunk_number(span.start) % TABLE_CHUNKS);
            let page = span.start % CHUNK / GO_PAGE;
            let bits = self.memory.word(place + page / 64 * 8)?.unwrap_or(0);
            found += (bits >> (page % 64) & 1) as usize;
        }
        Ok(found * 100 >= spans.len() * AGREE)
    }

    /// Returns the memory of a heap, which spans must lie in; `None` when it makes no sense.
    fn ranges(&self, chunks: u64, spans: &[Span]) -> io::Result<Option<Vec<Range<u64>>>> {
        for _ in 0..TRIES {
            let Some(head) = self.memory.words(chunks.saturating_add(IN_USE), 4)? else { break };
            let &[at, count, most, total] = head.as_slice() else { break };
            if count > most || count > MOST_RANGES || !self.mappings.is_private_writable(at) {
                break;
            }
            let Some(words) = self.memory.words(at, 2 * count as usize)? else { break };
            let ranges: Vec<_> = words.chunks_exact(2).map(|words| words[0]..words[1]).collect();
            let sum = ranges.iter().map(|r| r.end.wrapping_sub(r.start)).fold(0, u64::wrapping_add);
            let holds = |span: &Span| ranges.iter().any(|range| range.contains(&span.start));
            if sum == total && self.are_mapped(&ranges) && spans.iter().all(holds) {
                return Ok(Some(ranges));
            }
        }
        Ok(None)
    }

    /// Tells whether ranges ascend in whole chunks, and are mapped.
    fn are_mapped(&self, ranges: &[Range<u64>]) -> bool {
        let is_in_order = ranges.is_sorted_by(|one, next| one.end <= next.start);
        let is_mapped = |range: &Range<u64>| {
            let mut mapping = self.mappings.at(range.start);
            while let Some(here) = mapping.filter(|here| here.end < range.end) {
                mapping = self.mappings.after(here);
            }
            mapping.is_some()
        };
        let is_range = |range: &Range<u64>| {
            let whole = range.start.is_multiple_of(CHUNK) && range.end.is_multiple_of(CHUNK);
            whole && range.start < range.end && is_mapped(range)
        };
        is_in_order && ranges.iter().all(is_range)
    }
}

/// Tells whether no page of some memory is in swap.
pub(super) fn is_there<M: ReadMemory>(
    pages: &mut Pages<'_, M>,
    start: u64,
    len: u64,
) -> io::Result<bool> {
    let mut is_there = true;
    pages.each(pages_of(start..start.saturating_add(len)), |_, state| {
        is_there &= state != PageState::Swapped;
    })?;
    Ok(is_there)
}
