//! The walk over pools, arena by arena, upwards: their headers, and of pools that span pages the
//! blocks that are free.

use std::io;

use super::{
    find::{Arenas, words_at},
    layout::{Arena, Blocks, HEADER, Pool, Shape},
};
use crate::{
    allocator::{
        mappings::Mappings,
        memory::{ReadMemory, word},
        pages::{OnPages, Pages, Sum, Use},
    },
    model::region_map::PAGE,
};

/// What was found, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Free blocks of pools in use.
    pub(super) blocks: u64,
    /// Pools without a block in use, those that were never carved off among them.
    pub(super) pools: u64,
    /// Pools that make no sense or could not be read.
    pub(super) unknown: u64,
    /// What lies on each page.
    pub(super) pages: OnPages,
}

/// Largest pool there is.
const LARGEST_POOL: usize = 1 << 14;
const LARGEST_POOL_PAGES: usize = LARGEST_POOL / PAGE as usize;

struct Walk<'a, M> {
    memory: &'a M,
    shape: Shape,
    pages: Pages<'a, M>,
    sum: Sum<'a>,
    found: Found,
    pool: Vec<u8>,
}

/// Walks all arenas.
pub(super) fn walk<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    arenas: &Arenas,
) -> io::Result<Found> {
    let mut walk = Walk {
        memory,
        shape: arenas.shape,
        pages: Pages::new(memory),
        sum: Sum::new(mappings),
        found: Found::default(),
        pool: vec![0; arenas.shape.pool as usize],
    };
    for arena in &arenas.all {
        walk.arena(arena)?;
    }
    let Walk { mut pages, sum, mut found, .. } = walk;
    found.pages = sum.finish(&mut pages)?;
    Ok(found)
}

impl<M: ReadMemory> Walk<'_, M> {
    fn arena(&mut self, arena: &Arena) -> io::Result<()> {
        let Shape { pool: size, arena: arena_size, .. } = self.shape;
        let first = self.shape.first_pool(arena.start);
        let pools = self.shape.pools(arena.start);
        self.add(arena.start, first, Use::Used)?;
        let carved: Vec<u64> = (0..u64::from(arena.carved)).map(|at| first + at * size).collect();
        let heads = words_at(self.memory, &mut self.pages, &carved)?;
        for (&pool, words) in carved.iter().zip(heads) {
            match words.and_then(|words| self.shape.header(arena.index, words)) {
                Some(Pool::Free) => {
                    self.found.pools += size;
                    self.add(pool, pool + size, Use::Free)?;
                }
                Some(Pool::Used(blocks)) if blocks.used == blocks.all => {
                    self.add(pool, pool + size, Use::Used)?;
                }
                Some(Pool::Used(blocks)) => self.blocks(arena, pool, blocks)?,
                None => {
                    self.found.unknown += size;
                    self.add(pool, pool + size, Use::Used)?;
                }
            }
        }
        let (fresh, end) = (first + carved.len() as u64 * size, first + pools * size);
        self.found.pools += end - fresh;
        self.add(fresh, end, Use::Free)?;
        self.add(end, arena.start + arena_size, Use::Used)
    }

    /// Takes a pool of which a part is in use.
    fn blocks(&mut self, arena: &Arena, pool: u64, mut blocks: Blocks) -> io::Result<()> {
        let mut free = [0; LARGEST_POOL_PAGES];
        if self.shape.pool == PAGE {
            // Its header is in use, so it does not matter where on the page blocks are free.
            free[0] = (blocks.all - blocks.used) * blocks.size;
        } else {
            /// Times that it is read when it changes meanwhile.
            const TRIES: u32 = 3;
            for _ in 0..TRIES {
                self.pages.read(pool, &mut self.pool)?;
                let words = std::array::from_fn(|at| word(&self.pool[at * 8..at * 8 + 8]));
                if let Some(Pool::Used(now)) = self.shape.header(arena.index, words) {
                    blocks = now;
                }
                let (on_pages, is_whole) = free_on_pages(pool, &self.pool, blocks);
                free = on_pages;
                if is_whole {
                    break;
                }
            }
        }
        self.found.blocks += (blocks.all - blocks.used) * blocks.size;
        for (page, free) in (pool..pool + self.shape.pool).step_by(PAGE as usize).zip(free) {
            let used = PAGE.saturating_sub(free);
            self.add(page, page + used, Use::Used)?;
            self.add(page + used, page + PAGE, Use::Free)?;
        }
        Ok(())
    }

    fn add(&mut self, start: u64, end: u64, is: Use) -> io::Result<()> {
        if start < end { self.sum.add(&mut self.pages, start..end, is) } else { Ok(()) }
    }
}

/// Returns the free bytes on each page of a pool, and whether all of its free blocks were seen.
fn free_on_pages(pool: u64, bytes: &[u8], blocks: Blocks) -> ([u64; LARGEST_POOL_PAGES], bool) {
    let Blocks { size, all, used, carved, freed } = blocks;
    let mut free = [0; LARGEST_POOL_PAGES];
    let mut add = |mut start: u64, end: u64| {
        while start < end {
            let next = (start / PAGE + 1) * PAGE;
            if let Some(sum) = free.get_mut((start / PAGE) as usize) {
                *sum = (*sum + next.min(end) - start).min(PAGE);
            }
            start = next;
        }
    };
    // Those that were never handed out; the free list ends in one of them while there are any
    // (`pymalloc_pool_extend`).
    add(HEADER + carved * size, HEADER + all * size);
    let expected = carved.saturating_sub(used);
    let (mut link, mut seen) = (freed, 0);
    while link != 0 && seen < expected {
        let at = link.wrapping_sub(pool);
        let is_inside = at >= HEADER && at.saturating_add(size) <= bytes.len() as u64;
        let is_block = is_inside && (at - HEADER).is_multiple_of(size);
        if !is_block {
            return (free, false);
        }
        add(at, at + size);
        seen += 1;
        link = word(&bytes[at as usize..at as usize + 8]);
    }
    (free, link == 0 && seen == expected)
}
