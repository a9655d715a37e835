//! How a free chunk is told whose neighbour does not say so: those of thread caches and fastbins keep
//! their neighbours' `PREV_INUSE` set.

use std::{collections::HashSet, io};

use super::{
    fast::Fast,
    heaps::{Arena, Heap},
    layout::{ALIGN, FLAGS, Layout, MAX_FAST, MIN_CHUNK},
};
use crate::allocator::{mappings::Mappings, memory::ReadMemory};

/// Largest chunk of a thread cache before 2.42.
const MAX_CACHED: u64 = 0x410;

/// What tells free chunks.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// The words that cached chunks carry, ascending: a random number, or the addresses of the caches.
    keys: Vec<u64>,
    /// Caches that were found, by their address.
    caches: HashSet<u64>,
    /// Chunks of fastbins, where their contents alone do not tell them.
    fast: Option<Fast>,
}

impl Marks {
    /// Learns from the caches that are the first chunks of arenas, and from the fastbins where their
    /// links alone tell nothing.
    pub(super) fn learn<M: ReadMemory>(
        memory: &M,
        mappings: &Mappings,
        layout: Layout,
        arenas: &[Arena],
        heaps: &[Heap],
    ) -> io::Result<Self> {
        let mut marks = Self::default();
        for heap in heaps {
            if let Some(words) = memory.words(heap.first, 2)?
                && words[1] & !FLAGS == layout.cache.chunk
            {
                marks.learn_cache(memory, mappings, layout, heap.first + 16)?;
            }
        }
        if !layout.mangled && layout.fastbins_at().is_some() {
            marks.follow_fastbins(memory, layout, arenas, heaps)?;
        }
        Ok(marks)
    }

    /// Learns from a chunk that may be a thread's cache. Returns whether it told something new.
    pub(super) fn learn_cache<M: ReadMemory>(
        &mut self,
        memory: &M,
        mappings: &Mappings,
        layout: Layout,
        cache: u64,
    ) -> io::Result<bool> {
        if self.caches.contains(&cache) {
            return Ok(false);
        }
        let Some(key) = key_of(memory, mappings, layout, cache)? else { return Ok(false) };
        self.caches.insert(cache);
        let Err(at) = self.keys.binary_search(&key) else { return Ok(false) };
        self.keys.insert(at, key);
        Ok(true)
    }

    /// Follows the fastbins, so that they are told by where they are.
    pub(super) fn follow_fastbins<M: ReadMemory>(
        &mut self,
        memory: &M,
        layout: Layout,
        arenas: &[Arena],
        heaps: &[Heap],
    ) -> io::Result<()> {
        self.fast = Some(Fast::follow(memory, layout, arenas, heaps)?);
        Ok(())
    }

    /// Tells whether more fastbin chunks were there than are kept.
    pub(super) fn are_cut(&self) -> bool {
        self.fast.as_ref().is_some_and(|fast| fast.is_cut)
    }

    /// Tells whether a chunk lies in a thread's cache, by the first two words of its contents.
    #[inline]
    pub(super) fn is_cached(&self, layout: Layout, chunk: u64, size: u64, words: [u64; 2]) -> bool {
        let fits = size <= MAX_CACHED || !layout.cache.counts_entries;
        words[1] != 0
            && fits
            && layout.link(chunk + 16, words[0]).is_multiple_of(ALIGN)
            && self.keys.binary_search(&words[1]).is_ok()
    }

    /// Returns the next chunk of its fastbin if a chunk lies in one; 0 for the last, or where only the
    /// place tells.
    #[inline]
    pub(super) fn is_fast(
        &self,
        layout: Layout,
        chunk: u64,
        size: u64,
        word: u64,
        bounds: &std::ops::Range<u64>,
    ) -> Option<u64> {
        if size > MAX_FAST || layout.fastbins_at().is_none() {
            return None;
        }
        if let Some(fast) = &self.fast {
            return fast.has(chunk).then_some(0);
        }
        let next = layout.link(chunk + 16, word);
        (next == 0 || next.is_multiple_of(ALIGN) && bounds.contains(&next)).then_some(next)
    }
}

/// Returns the word that the chunks in a cache carry, if it is a thread's cache and has one.
fn key_of<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    layout: Layout,
    cache: u64,
) -> io::Result<Option<u64>> {
    let shape = layout.cache;
    let len = shape.counts() + shape.lists as u64 * 8;
    let Some(words) = memory.words(cache, (len / 8) as usize)? else { return Ok(None) };
    let heads = &words[(shape.counts() / 8) as usize..];
    let count = |list: usize| words[list / 4] >> (list % 4 * 16) & 0xffff;
    let mut key = None;
    for (list, &head) in heads.iter().enumerate() {
        if shape.counts_entries && (count(list) == 0) != (head == 0) {
            return Ok(None);
        }
        if head == 0 {
            continue;
        }
        if head % ALIGN != 0 || !mappings.is_private_writable(head) {
            return Ok(None);
        }
        let Some(entry) = memory.words(head - 8, 3)? else { return Ok(None) };
        // From list 64 on sizes grow by powers of two (2.42).
        if list < 64 && entry[0] & !FLAGS != MIN_CHUNK + ALIGN * list as u64 {
            return Ok(None);
        }
        let is_key = if layout.random_key { entry[2] != 0 } else { entry[2] == cache };
        match key {
            None if is_key => key = Some(entry[2]),
            Some(known) if known == entry[2] => {}
            _ => return Ok(None),
        }
    }
    Ok(key)
}
