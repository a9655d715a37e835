//! The extents of a tree, in ascending order, read in small batches.

use std::{io, ops::Range};

use super::{
    find::Root,
    layout::{EXTENT, Extent, LEAF_SPAN, Layout, TABLE, extent_address},
};
use crate::{
    allocator::{
        mappings::Mappings,
        memory::{Piece, ReadMemory, pages_of, word},
        pages::Pages,
    },
    model::region_map::PAGE,
};

/// Pages of a table that are read at once: 8,192 words, whose extents have 1 MiB at most.
const BATCH: u64 = 16;

/// Reads trees of extents.
pub(super) struct Tree<'a, M> {
    memory: &'a M,
    mappings: &'a Mappings,
    layout: Layout,
    tables: Pages<'a, M>,
    books: Pages<'a, M>,
    /// End of the last extent.
    next: u64,
    /// Words that led to no extent that holds what they describe.
    pub(super) torn: u64,
    /// Kept from batch to batch: pages and the extents that they lead to, and the bytes of these.
    entries: Vec<(u64, u64)>,
    extents: Vec<u8>,
}

impl<'a, M: ReadMemory> Tree<'a, M> {
    /// Nothing is read yet.
    pub(super) fn new(memory: &'a M, mappings: &'a Mappings, layout: Layout) -> Self {
        Self {
            memory,
            mappings,
            layout,
            tables: Pages::new(memory),
            books: Pages::new(memory),
            next: 0,
            torn: 0,
            entries: Vec::new(),
            extents: Vec::new(),
        }
    }

    /// Returns the leaves of a root, with their numbers, ascending.
    pub(super) fn leaves(&mut self, root: Root) -> io::Result<Vec<(u64, u64)>> {
        let mut leaves = Vec::new();
        self.table(root.at, |_, words| {
            leaves.extend_from_slice(words);
            Ok(())
        })?;
        Ok(without_overlaps(leaves))
    }

    /// Calls `each` with every extent of leaves and its address.
    pub(super) fn extents(
        &mut self,
        leaves: &[(u64, u64)],
        mut each: impl FnMut(u64, &Extent) -> io::Result<()>,
    ) -> io::Result<()> {
        for &(number, leaf) in leaves {
            let first = number * LEAF_SPAN;
            self.table(leaf, |tree, words| tree.batch(first, words, &mut each))?;
        }
        Ok(())
    }

    /// Calls `each` with batches of words of a table that are not zero, with their index.
    fn table(
        &mut self,
        table: u64,
        mut each: impl FnMut(&mut Self, &[(u64, u64)]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(end) = table.checked_add(TABLE) else { return Ok(()) };
        let pages = pages_of(table..end);
        let mut bytes = vec![0; (BATCH * PAGE) as usize];
        let mut words = Vec::new();
        let mut present = Vec::new();
        self.tables.each(pages.clone(), |page, state| {
            if state.is_readable() {
                present.push(page);
            }
        })?;
        let mut present = present.as_slice();
        while let Some(&start) = present.first() {
            let stop = pages.end.min(start + BATCH * PAGE);
            let bytes = &mut bytes[..(stop - start) as usize];
            self.tables.read(start, bytes)?;
            words.clear();
            let read = (start..stop).step_by(8).zip(bytes.chunks_exact(8).map(word));
            let inside = read.filter(|&(at, word)| word != 0 && at >= table && at + 8 <= end);
            words.extend(inside.map(|(at, word)| ((at - table) / 8, word)));
            each(self, &words)?;
            present = &present[present.partition_point(|&page| page < stop)..];
        }
        Ok(())
    }

    /// Takes words of a leaf, the first of which describes the page at `first`.
    fn batch(
        &mut self,
        first: u64,
        words: &[(u64, u64)],
        each: &mut impl FnMut(u64, &Extent) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        for &(index, word) in words {
            // All pages of a slab lead to it, and both ends of anything else.
            let (page, extent) = (first + index * PAGE, extent_address(word));
            if extent != 0 && page >= self.next && entries.last().is_none_or(|&(_, e)| e != extent)
            {
                entries.push((page, extent));
            }
        }
        self.read(&entries)?;
        let read = std::mem::take(&mut self.extents);
        for (&(page, address), bytes) in entries.iter().zip(read.as_chunks().0) {
            let extent = self.layout.decode(bytes);
            if page < self.next {
                continue;
            }
            let range = extent.start..extent.end();
            let is_next = extent.start >= self.next && range.contains(&page);
            if !is_next || !self.is_mapped(range) {
                self.torn += 1;
                continue;
            }
            self.next = extent.end();
            each(address, &extent)?;
        }
        (self.entries, self.extents) = (entries, read);
        Ok(())
    }

    /// Tells whether all of a range is mapped: extents may lie across mappings, and across no hole.
    fn is_mapped(&self, range: Range<u64>) -> bool {
        let mut start = range.start;
        while start < range.end {
            match self.mappings.at(start) {
                Some(mapping) => start = mapping.end,
                None => return false,
            }
        }
        true
    }

    /// Reads extents, as zeros those that are not there to be read.
    fn read(&mut self, entries: &[(u64, u64)]) -> io::Result<()> {
        self.extents.clear();
        self.extents.resize(entries.len() * EXTENT, 0);
        let mut pieces = Vec::with_capacity(entries.len());
        for (&(_, address), into) in entries.iter().zip(self.extents.chunks_exact_mut(EXTENT)) {
            let last = address.saturating_add(EXTENT as u64 - 1);
            if self.books.state(address)?.is_readable() && self.books.state(last)?.is_readable() {
                pieces.push(Piece { address, into });
            }
        }
        self.memory.read(&mut pieces)
    }
}

/// Returns the words of a root whose leaves are memory of their own: damaged ones may not be, and
/// each is read once.
fn without_overlaps(mut leaves: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    leaves.sort_by_key(|&(_, leaf)| leaf);
    leaves.dedup_by(|(_, next), (_, leaf)| next.wrapping_sub(*leaf) < TABLE);
    leaves.sort_by_key(|&(number, _)| number);
    leaves
}
