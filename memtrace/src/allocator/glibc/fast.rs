//! The chunks in fastbins, by following the lists: needed where links are not mangled (before 2.32), and
//! where a stopped process shall be exact.

use std::{io, ops::Range};

use super::{
    heaps::{Arena, Heap},
    layout::{ALIGN, FLAGS, Layout, MIN_CHUNK},
};
use crate::allocator::memory::{Piece, ReadMemory, word};

/// Chunks that are kept at most: 12 MiB of them.
const MOST: usize = 3 << 20;

/// Bytes of a chunk that tell its size and the next one of its list.
const HEAD: usize = 24;

/// Chunks in fastbins.
#[derive(Clone, Debug, Default)]
pub(super) struct Fast {
    /// First byte and end of each heap, and the bytes of those before it.
    heaps: Vec<(u64, u64, u64)>,
    /// Places in all heaps together, in units of [`ALIGN`], ascending.
    chunks: Vec<u32>,
    /// There are more than are kept.
    pub(super) is_cut: bool,
}

/// Where one list is followed.
struct Cursor {
    chunk: u64,
    size: u64,
    /// A chunk that was met before, and when the next one is remembered: a list that changes under our
    /// hands may become a ring (Brent's way to find that).
    before: u64,
    steps: u64,
    next_mark: u64,
}

impl Fast {
    /// Follows the lists of all arenas, a step of each at a time. `heaps` are ascending.
    pub(super) fn follow<M: ReadMemory>(
        memory: &M,
        layout: Layout,
        arenas: &[Arena],
        heaps: &[Heap],
    ) -> io::Result<Self> {
        let mut before = 0;
        let heaps = heaps.iter().map(|heap| {
            let Range { start, end } = heap.range;
            before += end - start;
            (start, end, before - (end - start))
        });
        let mut fast = Self { heaps: heaps.collect(), ..Self::default() };
        let lists = arenas.iter().flat_map(|arena| arena.fastbins.iter().zip(0_u64..));
        let mut cursors: Vec<Cursor> = lists
            .filter(|(head, _)| **head != 0)
            .map(|(&chunk, list)| {
                let size = MIN_CHUNK + ALIGN * list;
                Cursor { chunk, size, before: 0, steps: 0, next_mark: 1 }
            })
            .collect();
        let mut bytes = vec![0; cursors.len() * HEAD];
        while !cursors.is_empty() && !fast.is_cut {
            let parts = cursors.iter().zip(bytes.chunks_exact_mut(HEAD));
            let mut pieces: Vec<Piece<'_>> =
                parts.map(|(cursor, into)| Piece { address: cursor.chunk, into }).collect();
            memory.read(&mut pieces)?;
            let mut heads = bytes.chunks_exact(HEAD);
            cursors.retain_mut(|cursor| {
                let Some(head) = heads.next() else { return false };
                fast.step(layout, cursor, word(&head[8..16]), word(&head[16..]))
            });
        }
        fast.chunks.sort_unstable();
        fast.chunks.dedup();
        Ok(fast)
    }

    /// Takes a chunk of a list. Returns whether there is another.
    fn step(&mut self, layout: Layout, cursor: &mut Cursor, head: u64, next: u64) -> bool {
        let chunk = cursor.chunk;
        let is_one = chunk.is_multiple_of(ALIGN) && head & !FLAGS == cursor.size;
        if !is_one || chunk == cursor.before {
            return false;
        }
        let Some(place) = self.place(chunk) else { return false };
        if self.chunks.len() >= MOST {
            self.is_cut = true;
            return false;
        }
        self.chunks.push(place);
        cursor.steps += 1;
        if cursor.steps == cursor.next_mark {
            cursor.before = chunk;
            cursor.next_mark *= 2;
        }
        cursor.chunk = layout.link(chunk + 16, next);
        cursor.chunk != 0
    }

    /// Tells whether a chunk is one of them.
    pub(super) fn has(&self, chunk: u64) -> bool {
        self.place(chunk).is_some_and(|place| self.chunks.binary_search(&place).is_ok())
    }

    /// Returns where a chunk is in all heaps together: 64 GiB have a place.
    fn place(&self, chunk: u64) -> Option<u32> {
        let index = self.heaps.partition_point(|&(_, end, _)| end <= chunk);
        let &(start, _, before) = self.heaps.get(index).filter(|(start, ..)| *start <= chunk)?;
        u32::try_from((before + (chunk - start)) / ALIGN).ok()
    }
}
