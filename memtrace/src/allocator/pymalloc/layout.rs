//! The books of pymalloc (Objects/obmalloc.c; from CPython 3.12 also
//! Include/internal/pycore_obmalloc.h), 64 bits: `arena_object` and `pool_header`.

use crate::{
    allocator::mappings::{Mappings, is_private_writable},
    model::region_map::PAGE,
};

/// Words of an `arena_object`, and its size.
pub(super) const ENTRY_WORDS: usize = 6;
pub(super) const ENTRY: u64 = 48;
/// Words of a `pool_header`, and its size: blocks follow it.
pub(super) const HEADER_WORDS: usize = 6;
pub(super) const HEADER: u64 = 48;
/// Largest block (`SMALL_REQUEST_THRESHOLD`).
const LARGEST: u64 = 512;

/// The sizes that it is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// `ARENA_SIZE`.
    pub(super) arena: u64,
    /// `POOL_SIZE`.
    pub(super) pool: u64,
    /// `ALIGNMENT`.
    pub(super) align: u64,
}

/// From 3.10 on; up to 3.9; from 3.10 on without the radix tree; up to 3.7.3.
pub(super) const SHAPES: [Shape; 4] = [
    Shape { arena: 1 << 20, pool: 1 << 14, align: 16 },
    Shape { arena: 1 << 18, pool: 1 << 12, align: 16 },
    Shape { arena: 1 << 20, pool: 1 << 12, align: 16 },
    Shape { arena: 1 << 18, pool: 1 << 12, align: 8 },
];

/// An arena that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arena {
    /// Its first byte.
    pub(super) start: u64,
    /// Its place among the others, as its pools know it.
    pub(super) index: u32,
    /// Pools that were carved off so far.
    pub(super) carved: u32,
}

/// An `arena_object`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// No arena; true when it links to another one.
    Unused(bool),
    /// An arena.
    Arena(Arena),
}

impl Entry {
    /// Returns its arena.
    pub(super) const fn arena(self) -> Option<Arena> {
        match self {
            Self::Arena(arena) => Some(arena),
            Self::Unused(_) => None,
        }
    }
}

/// A `pool_header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// No block of it is in use.
    Free,
    /// Some are.
    Used(Blocks),
}

/// The blocks of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Bytes of each.
    pub(super) size: u64,
    /// How many there are.
    pub(super) all: u64,
    /// … in use.
    pub(super) used: u64,
    /// … that were handed out once: the others follow them.
    pub(super) carved: u64,
    /// The first of those that were freed, 0 for none.
    pub(super) freed: u64,
}

impl Shape {
    /// Returns the first pool of an arena: those that `mmap` did not align lose one.
    pub(super) const fn first_pool(self, arena: u64) -> u64 {
        arena.next_multiple_of(self.pool)
    }

    /// Returns how many pools an arena has.
    pub(super) const fn pools(self, arena: u64) -> u64 {
        (arena + self.arena - self.first_pool(arena)) / self.pool
    }

    /// Returns what an entry of the array that starts at `array` is; `None` when it is none.
    pub(super) fn entry(
        self,
        mappings: &Mappings,
        array: u64,
        index: u32,
        words: [u64; ENTRY_WORDS],
    ) -> Option<Entry> {
        /// More than fit into any address space that is in use.
        const MOST: u64 = 1 << 28;
        let [start, next_pool, counts, _, next, _] = words;
        if start == 0 {
            let link = next.wrapping_sub(array);
            let is_link = link.is_multiple_of(ENTRY) && link / ENTRY < MOST;
            return (is_link || next == 0).then_some(Entry::Unused(is_link));
        }
        let last = start.checked_add(self.arena)? - 1;
        let is_own = |address| mappings.at(address).is_some_and(is_anonymous);
        if start % PAGE != 0 || !is_own(start) || !is_own(last) {
            return None;
        }
        let (free, all) = (counts & 0xffff_ffff, counts >> 32);
        let carved = next_pool.checked_sub(self.first_pool(start))?;
        let fits = carved.is_multiple_of(self.pool) && carved / self.pool <= all;
        if all != self.pools(start) || free > all || !fits {
            return None;
        }
        let carved = carved / self.pool;
        // One arena without a used pool is kept (`insert_to_freepool`).
        let is_arena = free >= all - carved;
        is_arena.then_some(Entry::Arena(Arena { start, index, carved: carved as u32 }))
    }

    /// Returns what a pool of an arena is; `None` when it is none.
    pub(super) fn header(self, arena: u32, words: [u64; HEADER_WORDS]) -> Option<Pool> {
        let [used, freed, _, _, whose, offsets] = words;
        let (index, class) = (whose & 0xffff_ffff, whose >> 32);
        if index != u64::from(arena) {
            return None;
        }
        let used = used & 0xffff_ffff;
        let size = (class + 1) * self.align;
        let (next, most) = (offsets & 0xffff_ffff, offsets >> 32);
        let fits = size <= LARGEST && most == self.pool - size;
        if !fits {
            return None;
        }
        if used == 0 {
            return Some(Pool::Free);
        }
        let all = (self.pool - HEADER) / size;
        let carved = next.checked_sub(HEADER)?;
        let is_whole = carved.is_multiple_of(size) && carved / size <= all;
        let blocks = Blocks { size, all, used, carved: carved / size, freed };
        (is_whole && used <= blocks.carved).then_some(Pool::Used(blocks))
    }
}

/// Tells whether arenas may lie in a region: mapped by pymalloc itself, and in nobody's heap.
fn is_anonymous(mapping: &crate::source::procfs::Mapping) -> bool {
    let is_plain = mapping.name.is_empty() || mapping.name.starts_with("[anon");
    is_plain && is_private_writable(mapping)
}
