//! Which pages are resident, and what lies on each: a walk goes through memory once, upwards.

use std::{collections::BTreeMap, io, ops::Range};

use super::{
    mappings::Mappings,
    memory::{PageState, Piece, ReadMemory},
};
use crate::model::region_map::PAGE;

/// Pages that are looked up at once: 64 MiB.
const BLOCK_PAGES: u64 = 16384;
const BLOCK: u64 = BLOCK_PAGES * PAGE;

/// Blocks that are kept: 1 MiB of states, for 4 GiB of memory.
const MOST_BLOCKS: usize = 64;

/// What is behind the pages of a process. Keeps a bounded number of answers, whatever is asked for.
#[derive(Debug)]
pub struct Pages<'a, M> {
    memory: &'a M,
    blocks: Vec<Block>,
    /// Which of them was used last.
    last: usize,
}

#[derive(Debug, Default)]
struct Block {
    /// Number of the block, plus one.
    tag: u64,
    states: Vec<PageState>,
}

impl<'a, M: ReadMemory> Pages<'a, M> {
    /// Nothing is looked up yet.
    pub fn new(memory: &'a M) -> Self {
        Self { memory, blocks: vec![Block::default()], last: 0 }
    }

    /// Returns what is behind the page of an address.
    pub fn state(&mut self, address: u64) -> io::Result<PageState> {
        let states = self.block(address / BLOCK)?;
        Ok(states[(address % BLOCK / PAGE) as usize])
    }

    /// Calls `each` with the address of each page of a range of whole pages and what is behind it.
    pub fn each(
        &mut self,
        range: Range<u64>,
        mut each: impl FnMut(u64, PageState),
    ) -> io::Result<()> {
        let mut start = range.start;
        while start < range.end {
            let end = (start / BLOCK + 1).saturating_mul(BLOCK).min(range.end);
            let first = (start % BLOCK / PAGE) as usize;
            let states = &self.block(start / BLOCK)?[first..];
            for (page, state) in (start..end).step_by(PAGE as usize).zip(states) {
                each(page, *state);
            }
            start = end;
        }
        Ok(())
    }

    /// Counts the pages of a range of whole pages that only this process has, and those that it shares.
    pub fn count(&mut self, range: Range<u64>) -> io::Result<Frames> {
        let mut frames = Frames::default();
        self.each(range, |_, state| {
            frames.own += u64::from(state == PageState::Own);
            frames.shared += u64::from(state == PageState::Shared);
        })?;
        Ok(frames)
    }

    /// Reads from `start` on. What is not there to be read becomes zeros.
    pub fn read(&mut self, start: u64, into: &mut [u8]) -> io::Result<()> {
        self.memory.read(&mut [Piece { address: start, into }])
    }

    fn block(&mut self, number: u64) -> io::Result<&[PageState]> {
        let tag = number + 1;
        if self.blocks[self.last].tag != tag {
            self.last = match self.blocks.iter().position(|block| block.tag == tag) {
                Some(known) => known,
                None => self.load(tag)?,
            };
        }
        Ok(&self.blocks[self.last].states)
    }

    /// Looks a block up, in place of the oldest one. Returns where it is.
    #[cold]
    fn load(&mut self, tag: u64) -> io::Result<usize> {
        let at = (self.last + 1) % MOST_BLOCKS;
        if at == self.blocks.len() {
            self.blocks.push(Block::default());
        }
        let block = &mut self.blocks[at];
        block.tag = 0;
        block.states.clear();
        block.states.resize(BLOCK_PAGES as usize, PageState::Absent);
        self.memory.pages((tag - 1) * BLOCK, &mut block.states)?;
        block.tag = tag;
        Ok(at)
    }
}

/// Frames behind a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Only this process has them.
    pub own: u64,
    /// Others have them too.
    pub shared: u64,
}

impl Frames {
    /// Returns the bytes that are resident.
    pub const fn bytes(self) -> u64 {
        (self.own + self.shared) * PAGE
    }
}

/// What a piece of memory is to its allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// In use, the allocator's own, or not understood.
    Used,
    /// Free, in a cache of a thread: it keeps its pages from being given back.
    Cached,
    /// Free.
    Free,
}

/// Free bytes that are resident, by what else lies on their pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnPages {
    /// Resident bytes that were walked.
    pub resident: u64,
    /// Free bytes of them.
    pub free: u64,
    /// … on pages of which a part is in use: nobody can give those back.
    pub partly_used: u64,
    /// … on pages without a used byte, but with some in a thread's cache.
    pub cached: u64,
    /// Free resident bytes by first byte of their region.
    pub by_region: BTreeMap<u64, u64>,
    /// Where in these they are, if that is asked for.
    pub in_cells: Vec<InCells>,
}

/// Free resident bytes in cells of a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InCells {
    /// First byte of the region.
    pub start: u64,
    /// Binary logarithm of the pages of a cell.
    pub order: u32,
    /// The number of each cell that has some, and its bytes.
    pub bytes: Vec<(u64, u64)>,
}

/// Sums what lies on each page. Takes pieces in ascending order.
pub struct Sum<'a> {
    mappings: &'a Mappings,
    /// The region of the last page.
    region: InRegion,
    /// The page that is not complete, and its bytes by [`Use`].
    page: u64,
    used: u64,
    cached: u64,
    free: u64,
    sums: OnPages,
}

impl<'a> Sum<'a> {
    /// Nothing was walked yet.
    pub fn new(mappings: &'a Mappings) -> Self {
        let sums = OnPages::default();
        Self { mappings, region: InRegion::default(), page: 0, used: 0, cached: 0, free: 0, sums }
    }

    /// Takes the next piece.
    #[inline]
    pub fn add<M: ReadMemory>(
        &mut self,
        pages: &mut Pages<'_, M>,
        piece: Range<u64>,
        is: Use,
    ) -> io::Result<()> {
        let Range { mut start, end } = piece;
        if start & !(PAGE - 1) != self.page {
            self.flush(pages)?;
            self.page = start & !(PAGE - 1);
        }
        let first_end = end.min(self.page + PAGE);
        self.count(first_end.saturating_sub(start), is);
        start = first_end;
        if start >= end {
            return Ok(());
        }
        self.flush(pages)?;
        // Pages on which there is nothing else.
        let whole = start..end & !(PAGE - 1);
        if !whole.is_empty() {
            let total = pages.count(whole.clone())?.bytes();
            self.sums.resident += total;
            if is != Use::Used {
                self.sums.free += total;
                self.sums.cached += if is == Use::Cached { total } else { 0 };
                self.by_region(pages, whole.clone())?;
            }
            start = whole.end;
        }
        self.page = start;
        self.count(end - start, is);
        Ok(())
    }

    /// Returns the sums.
    pub fn finish<M: ReadMemory>(mut self, pages: &mut Pages<'_, M>) -> io::Result<OnPages> {
        self.flush(pages)?;
        self.close_region();
        Ok(self.sums)
    }

    fn count(&mut self, bytes: u64, is: Use) {
        match is {
            Use::Used => self.used += bytes,
            Use::Cached => self.cached += bytes,
            Use::Free => self.free += bytes,
        }
    }

    /// Books the page that is complete.
    fn flush<M: ReadMemory>(&mut self, pages: &mut Pages<'_, M>) -> io::Result<()> {
        let Self { used, cached, free, .. } = *self;
        (self.used, self.cached, self.free) = (0, 0, 0);
        if used + cached + free == 0 || !pages.state(self.page)?.is_resident() {
            return Ok(());
        }
        self.sums.resident += PAGE;
        let given_up = cached + free;
        self.sums.free += given_up;
        if used > 0 {
            self.sums.partly_used += given_up;
        } else if cached > 0 {
            self.sums.cached += given_up;
        }
        if given_up > 0 {
            self.enter_region(self.page);
            self.region.add(self.page, given_up);
        }
        Ok(())
    }

    /// Books whole free pages to their regions.
    fn by_region<M: ReadMemory>(
        &mut self,
        pages: &mut Pages<'_, M>,
        mut range: Range<u64>,
    ) -> io::Result<()> {
        while !range.is_empty() {
            self.enter_region(range.start);
            let end = self.region.end.clamp(range.start + PAGE, range.end);
            let here = range.start..end;
            match self.region.order {
                Some(_) => pages.each(here, |page, state| {
                    if state.is_resident() {
                        self.region.add(page, PAGE);
                    }
                })?,
                None => self.region.free += pages.count(here)?.bytes(),
            }
            range.start = end;
        }
        Ok(())
    }

    fn enter_region(&mut self, address: u64) {
        if (self.region.start..self.region.end).contains(&address) {
            return;
        }
        self.close_region();
        if let Some(mapping) = self.mappings.at(address) {
            let (start, end, order) = (mapping.start, mapping.end, self.mappings.order(mapping));
            self.region = InRegion { start, end, order, ..InRegion::default() };
        }
    }

    fn close_region(&mut self) {
        let InRegion { start, end, free, order, cells } = std::mem::take(&mut self.region);
        if end > start && free > 0 {
            *self.sums.by_region.entry(start).or_insert(0) += free;
            self.sums.in_cells.extend(order.map(|order| InCells { start, order, bytes: cells }));
        }
    }
}

/// Free bytes of a region that is walked.
#[derive(Debug, Default)]
struct InRegion {
    start: u64,
    end: u64,
    free: u64,
    /// As in [`InCells`], and what will be there.
    order: Option<u32>,
    cells: Vec<(u64, u64)>,
}

impl InRegion {
    fn add(&mut self, page: u64, bytes: u64) {
        self.free += bytes;
        let Some(order) = self.order else { return };
        let cell = ((page - self.start) / PAGE) >> order;
        match self.cells.last_mut() {
            Some((last, sum)) if *last == cell => *sum += bytes,
            Some(_) | None => self.cells.push((cell, bytes)),
        }
    }
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
