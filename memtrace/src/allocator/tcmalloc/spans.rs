//! Goes over the spans of the page map, upwards, and says what is free on each page.

use std::{io, ops::Range};

use super::{
    caches::{Cached, Words},
    find::{Classes, PageHeap},
    layout::{
        ADDRESS_BITS,
        span::{BITS, LENGTH, OBJECTS, START, WORDS},
    },
};
use crate::{
    allocator::{
        mappings::{Mappings, is_private_writable},
        memory::{ReadMemory, word},
        pages::{Frames, OnPages, Pages, Sum, Use},
    },
    model::region_map::PAGE,
};

/// Entries of the page map that are read at once.
const ENTRIES: u64 = 8192;
/// The largest span of small objects that is looked into.
const MOST_SMALL: u64 = 1 << 20;

/// What was found, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Of all spans.
    pub(super) spans: u64,
    /// Of free spans, and of those that were given back.
    pub(super) free: u64,
    pub(super) unmapped: u64,
    /// Of objects in central lists, and of what is left behind the last object of a span: tcmalloc
    /// counts it as theirs.
    pub(super) central: u64,
    pub(super) slack: u64,
    /// Frames of free spans.
    pub(super) frames: Frames,
    /// What lies on each page.
    pub(super) pages: OnPages,
}

/// A span (`Span`, src/span.h).
struct Span {
    range: Range<u64>,
    objects: u64,
    /// Objects of it that are not in its own list.
    taken: u64,
    class: usize,
    location: u64,
}

/// Where the walk stands.
pub(super) struct Walk<'a, M> {
    pub(super) mappings: &'a Mappings,
    pub(super) heap: PageHeap,
    pub(super) classes: &'a Classes,
    pub(super) cached: &'a Cached,
    words: Words<'a, M>,
    /// The page map is read by one, the heap by the other.
    map_pages: Pages<'a, M>,
    pages: Pages<'a, M>,
    sum: Sum<'a>,
    found: Found,
    bytes: Vec<u8>,
}

impl<'a, M: ReadMemory> Walk<'a, M> {
    /// Nothing was walked yet.
    pub(super) fn new(
        memory: &'a M,
        mappings: &'a Mappings,
        heap: PageHeap,
        classes: &'a Classes,
        cached: &'a Cached,
    ) -> Self {
        Self {
            mappings,
            heap,
            classes,
            cached,
            words: Words::new(memory),
            map_pages: Pages::new(memory),
            pages: Pages::new(memory),
            sum: Sum::new(mappings),
            found: Found::default(),
            bytes: Vec::new(),
        }
    }

    /// Walks all spans.
    pub(super) fn all(mut self) -> io::Result<Found> {
        let PageHeap { shift, root, root_bits, .. } = self.heap;
        let leaf_bits = ADDRESS_BITS - shift - root_bits;
        let mut next = 0;
        let mut done = 0;
        for mapping in self.mappings.iter().filter(|mapping| is_private_writable(mapping)) {
            let first = (mapping.start >> (shift + leaf_bits)).max(done);
            let last = (mapping.end - 1) >> (shift + leaf_bits);
            for index in first..=last.min((1 << root_bits) - 1) {
                done = index + 1;
                let leaf = self.words.word(root + index * 8)?.unwrap_or(0);
                if leaf != 0 && leaf % 8 == 0 && self.mappings.is_private_writable(leaf) {
                    self.leaf(leaf, index << leaf_bits, 1 << leaf_bits, &mut next)?;
                }
            }
        }
        let Self { sum, mut pages, mut found, .. } = self;
        found.pages = sum.finish(&mut pages)?;
        Ok(found)
    }

    /// Walks what a leaf of the page map leads to: entries of pages from `first` on.
    fn leaf(&mut self, leaf: u64, first: u64, count: u64, next: &mut u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut at = next.saturating_sub(first);
        while at < count {
            let len = ENTRIES.min(count - at);
            // From a whole page on.
            let start = leaf.saturating_add(at * 8);
            let before = start % PAGE;
            bytes.resize((before + len * 8) as usize, 0);
            self.map_pages.read(start - before, &mut bytes)?;
            for (page, entry) in (first + at..).zip(bytes[before as usize..].chunks_exact(8)) {
                let entry = word(entry);
                if page < *next || entry == 0 {
                    continue;
                }
                if let Some(span) = self.span(page, entry)? {
                    *next = span.range.end >> self.heap.shift;
                    self.take(&span)?;
                }
            }
            at = (at + len).max(next.saturating_sub(first));
        }
        Ok(())
    }

    /// Reads the span that starts at a page; `None` when the entry is stale.
    fn span(&mut self, page: u64, address: u64) -> io::Result<Option<Span>> {
        let mut words = [0; WORDS];
        for (at, into) in (0..).map(|n: u64| address.wrapping_add(8 * n)).zip(&mut words) {
            let Some(word) = self.words.word(at)? else { return Ok(None) };
            *into = word;
        }
        let length = words[LENGTH];
        if words[START] != page || length == 0 || length >> (ADDRESS_BITS - self.heap.shift) != 0 {
            return Ok(None);
        }
        let range = page << self.heap.shift..(page + length) << self.heap.shift;
        let bits = words[BITS];
        let span = Span {
            objects: words[OBJECTS],
            taken: bits & 0xffff,
            class: (bits >> 16 & 0xff) as usize,
            location: bits >> 24 & 3,
            range,
        };
        Ok(is_mapped(self.mappings, &span.range).then_some(span))
    }

    fn take(&mut self, span: &Span) -> io::Result<()> {
        let range = span.range.clone();
        let len = range.end - range.start;
        self.found.spans += len;
        match span.location {
            1 => {
                self.found.free += len;
                let Frames { own, shared } = self.pages.count(range.clone())?;
                self.found.frames.own += own;
                self.found.frames.shared += shared;
                self.sum.add(&mut self.pages, range, Use::Free)
            }
            // What of it is there was not given back yet.
            2 => {
                self.found.unmapped += len;
                Ok(())
            }
            _ => match self.classes.sizes.get(span.class) {
                Some(&size) if size > 0 && len <= MOST_SMALL => self.small(span, size),
                _ => self.sum.add(&mut self.pages, range, Use::Used),
            },
        }
    }

    /// Takes a span of small objects.
    fn small(&mut self, span: &Span, size: u64) -> io::Result<()> {
        let Range { start, end } = span.range;
        let count = (end - start) / size;
        let mut uses = vec![Use::Used; count as usize];
        let first = self.cached.objects.partition_point(|&object| object < start);
        for object in self.cached.objects[first..].iter().take_while(|&&object| object < end) {
            if let Some(is) = uses.get_mut(((object - start) / size) as usize) {
                *is = Use::Cached;
            }
        }
        let free = count.saturating_sub(span.taken);
        self.found.central += free * size;
        if free > 0 {
            self.bytes.resize((end - start) as usize, 0);
            self.pages.read(start, &mut self.bytes)?;
        }
        let mut object = span.objects;
        for _ in 0..free {
            let at = object.wrapping_sub(start);
            let is = uses.get_mut((at / size) as usize);
            let Some(is) = is.filter(|_| at % size == 0) else { break };
            *is = Use::Free;
            object = self.bytes.get(at as usize..at as usize + 8).map_or(0, word);
        }
        let mut at = start;
        for run in uses.chunk_by(|one, next| one == next) {
            let run_end = at + run.len() as u64 * size;
            self.sum.add(&mut self.pages, at..run_end, run[0])?;
            at = run_end;
        }
        self.found.slack += end - at;
        self.sum.add(&mut self.pages, at..end, Use::Free)
    }
}

/// Tells whether a range lies in memory that an allocator may have.
fn is_mapped(mappings: &Mappings, range: &Range<u64>) -> bool {
    let mut next = mappings.at(range.start);
    while let Some(mapping) = next.filter(|mapping| is_private_writable(mapping)) {
        if range.end <= mapping.end {
            return true;
        }
        next = mappings.after(mapping);
    }
    false
}
