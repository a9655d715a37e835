//! Goes over the segments upwards and says what is free on each page.

use std::{collections::HashSet, io, ops::Range};

use super::{
    layout::{Layout, SEGMENT, SLICE},
    segment::{BOOKS, Page, Segment, Span},
};
use crate::{
    allocator::{
        mappings::{Mappings, is_private_writable},
        memory::{PageState, ReadMemory, word},
        pages::{Frames, OnPages, Pages, Sum, Use},
    },
    model::region_map::PAGE,
};

/// The largest page of more than one block, and the heaps that are asked for what others freed.
const MOST_PAGE: u64 = 1 << 20;
const MOST_HEAPS: usize = 1 << 16;
/// Blocks that wait at one heap at most.
const MOST_DELAYED: u64 = 1 << 20;

/// What was found, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) segments: u64,
    pub(super) system: u64,
    /// Of free blocks, of room for blocks that were not made, and of free slices, with what is left behind
    /// the blocks of a page that is all free.
    pub(super) blocks: u64,
    pub(super) unmade: u64,
    pub(super) spans: u64,
    /// Of slices that made no sense.
    pub(super) unknown: u64,
    pub(super) torn: u64,
    /// Frames of free slices, and of pages of which every block is free.
    pub(super) frames: Frames,
    /// What lies on each page.
    pub(super) pages: OnPages,
}

/// Where the walk stands.
pub(super) struct Sweep<'a, M> {
    memory: &'a M,
    mappings: &'a Mappings,
    layout: &'static Layout,
    cookie: u64,
    pages: Pages<'a, M>,
    sum: Sum<'a>,
    heaps: HashSet<u64>,
    found: Found,
    bytes: Vec<u8>,
}

/// Tells whether the page of an address is there to be read. [`Pages`] would look up all around it.
pub(super) fn is_readable<M: ReadMemory>(memory: &M, address: u64) -> io::Result<bool> {
    let mut states = [PageState::Absent];
    memory.pages(address, &mut states)?;
    Ok(states[0].is_readable())
}

/// Calls `each` with every place where a segment may start.
pub(super) fn places<E>(
    mappings: &Mappings,
    mut each: impl FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    for mapping in mappings.iter().filter(|mapping| is_private_writable(mapping)) {
        let Some(mut start) = mapping.start.checked_next_multiple_of(SEGMENT) else { continue };
        while start < mapping.end {
            each(start)?;
            start += SEGMENT;
        }
    }
    Ok(())
}

impl<'a, M: ReadMemory> Sweep<'a, M> {
    /// Nothing was walked yet.
    pub(super) fn new(
        memory: &'a M,
        mappings: &'a Mappings,
        layout: &'static Layout,
        cookie: u64,
    ) -> Self {
        Self {
            memory,
            mappings,
            layout,
            cookie,
            pages: Pages::new(memory),
            sum: Sum::new(mappings),
            heaps: HashSet::new(),
            found: Found::default(),
            bytes: Vec::new(),
        }
    }

    /// Walks all segments.
    pub(super) fn all(mut self) -> io::Result<Found> {
        let mut books = vec![0; BOOKS as usize];
        let mut done = 0;
        places(self.mappings, |start| {
            if start < done || !is_readable(self.memory, start)? {
                return Ok(());
            }
            self.pages.read(start, &mut books)?;
            let segment = Segment::new(self.layout, start, &books);
            let end = start.saturating_add(segment.len());
            if segment.cookie() == self.cookie && is_mapped(self.mappings, start..end) {
                done = end;
                self.segment(&segment)?;
            }
            Ok::<_, io::Error>(())
        })?;
        for heap in std::mem::take(&mut self.heaps) {
            self.delayed(heap)?;
        }
        let Self { sum, mut pages, mut found, .. } = self;
        found.pages = sum.finish(&mut pages)?;
        Ok(found)
    }

    fn segment(&mut self, segment: &Segment<'_>) -> io::Result<()> {
        let all = segment.all_slices();
        self.found.segments += 1;
        self.found.system = self.found.system.saturating_add(segment.committed(0));
        let mut index = segment.info_slices().clamp(1, all.max(1));
        self.sum.add(&mut self.pages, segment.start..segment.start + index * SLICE, Use::Used)?;
        while index < all {
            let Some(span) = segment.span(index) else {
                self.found.torn += 1;
                self.found.unknown += segment.committed(index);
                break;
            };
            match span.page {
                Some(_) if !span.makes_sense() => {
                    self.found.torn += 1;
                    self.found.unknown += span.count * SLICE;
                    let start = segment.start + index * SLICE;
                    self.sum.add(&mut self.pages, start..start + span.count * SLICE, Use::Used)?;
                }
                Some(page) => self.page(segment.start, span, &page)?,
                None => self.free_span(segment, span)?,
            }
            index += span.count;
        }
        Ok(())
    }

    fn free_span(&mut self, segment: &Segment<'_>, span: Span) -> io::Result<()> {
        for index in (span.index..span.index + span.count).filter(|&at| segment.is_committed(at)) {
            let start = segment.start + index * SLICE;
            self.found.spans += SLICE;
            self.all_free(start..start + SLICE)?;
        }
        Ok(())
    }

    /// Takes what mimalloc itself can give back.
    fn all_free(&mut self, range: Range<u64>) -> io::Result<()> {
        let Frames { own, shared } = self.pages.count(range.clone())?;
        self.found.frames.own += own;
        self.found.frames.shared += shared;
        self.sum.add(&mut self.pages, range, Use::Free)
    }

    fn page(&mut self, segment: u64, span: Span, page: &Page) -> io::Result<()> {
        let start = segment + span.index * SLICE;
        let end = start + span.count * SLICE;
        if page.heap != 0 && page.heap.is_multiple_of(8) && self.heaps.len() < MOST_HEAPS {
            self.heaps.insert(page.heap);
        }
        let is_one = page.reserved <= 1 || end - start > MOST_PAGE;
        let is_listed = !is_one && (page.used < page.capacity || page.thread_free != 0);
        if is_listed {
            self.bytes.resize((end - start) as usize, 0);
            self.pages.read(start, &mut self.bytes)?;
        }
        let first = first_block(page, start, end);
        let block_at = |block: u64| {
            let at = block.checked_sub(first).filter(|at| at % page.block == 0)? / page.block;
            (at < page.capacity).then_some(at as usize)
        };
        let mut uses = vec![Use::Used; page.capacity as usize];
        let mut remote = 0;
        for (head, is_remote) in
            [(page.free, false), (page.local_free, false), (page.thread_free, true)]
        {
            let mut block = head;
            while is_listed && let Some(at) = block_at(block).filter(|&at| uses[at] == Use::Used) {
                uses[at] = Use::Free;
                remote += u64::from(is_remote);
                let at = (block - start) as usize;
                block = self.bytes.get(at..at + 8).map_or(0, word);
            }
        }
        // Its count may have changed since: what lies in its lists is free.
        let listed = uses.iter().filter(|&&is| is == Use::Free).count() as u64;
        let free = (page.capacity - page.used + remote).min(page.capacity).max(listed);
        self.found.blocks += free * page.block;
        let unmade = (page.reserved - page.capacity) * page.block;
        self.found.unmade += unmade;
        if free == page.capacity {
            return self.retired(start..end, free * page.block + unmade);
        }
        let mut at = first;
        self.sum.add(&mut self.pages, start..first, Use::Used)?;
        for run in uses.chunk_by(|one, next| one == next) {
            let run_end = at + run.len() as u64 * page.block;
            self.sum.add(&mut self.pages, at..run_end.min(end), run[0])?;
            at = run_end.min(end);
        }
        self.sum.add(&mut self.pages, at..(at + unmade).min(end), Use::Free)?;
        self.sum.add(&mut self.pages, (at + unmade).min(end)..end, Use::Used)
    }

    /// Takes a page of which every block is free, and what of it is no block.
    fn retired(&mut self, range: Range<u64>, blocks: u64) -> io::Result<()> {
        self.found.spans += (range.end - range.start).saturating_sub(blocks);
        self.all_free(range)
    }

    /// Counts the blocks of full pages that other threads freed: they wait at the heap.
    fn delayed(&mut self, heap: u64) -> io::Result<()> {
        let at = heap.wrapping_add(self.layout.page.delayed_free);
        let mut block = self.memory.word(at)?.unwrap_or(0);
        let mut books = vec![0; BOOKS as usize];
        let mut last = 0;
        for _ in 0..MOST_DELAYED {
            let start = block & !(SEGMENT - 1);
            if block == 0 || block % 8 != 0 || !self.mappings.is_private_writable(start) {
                break;
            }
            if start != last {
                self.pages.read(start, &mut books)?;
                last = start;
            }
            let segment = Segment::new(self.layout, start, &books);
            let Some(size) = segment.block_at(block).filter(|_| segment.cookie() == self.cookie)
            else {
                break;
            };
            self.found.blocks = self.found.blocks.saturating_add(size);
            block = self.memory.word(block)?.unwrap_or(0);
        }
        Ok(())
    }
}

/// Returns the first block of a page. Where the page does not say, its free blocks do
/// (`_mi_segment_page_start_from_slice`, src/segment.c, 2.0.9 and 2.1.2).
fn first_block(page: &Page, start: u64, end: u64) -> u64 {
    let block = page.block;
    let most = end.saturating_sub(page.reserved * block);
    if let Some(first) = page.start {
        return first.clamp(start, most.max(start));
    }
    let newer = match block {
        8..=64 => 3 * block,
        65..=512 => block,
        _ => 0,
    };
    let older = if (8..=1024).contains(&block) { 384 } else { 0 };
    let free = [page.free, page.local_free, page.thread_free];
    let free = free.into_iter().find(|block| (start..end).contains(block));
    let fits = |at: &u64| free.is_none_or(|free| free.wrapping_sub(start + at) % block == 0);
    let at = [older, newer].into_iter().find(fits).unwrap_or(0);
    (start + at).min(most.max(start))
}

/// Tells whether a range lies in memory that an allocator may have.
fn is_mapped(mappings: &Mappings, range: Range<u64>) -> bool {
    let mut next = mappings.at(range.start).filter(|_| range.end > range.start + PAGE);
    while let Some(mapping) = next.filter(|mapping| is_private_writable(mapping)) {
        if range.end <= mapping.end {
            return true;
        }
        next = mappings.after(mapping);
    }
    false
}
