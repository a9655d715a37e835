//! The arenas of a process and the pieces of memory that they are made of.

use std::{collections::HashSet, io, ops::Range};

use super::{
    find::Parameters,
    layout::{
        ALIGN, FASTBINS, HEAP_MAX, Layout, NON_CONTIGUOUS,
        arena::{END, NEXT, SYSTEM, THREADS, TOP},
    },
};
use crate::{
    allocator::{
        mappings::{Mappings, is_private_writable},
        memory::{ReadMemory, pages_of},
    },
    model::region_map::PAGE,
};

/// Arenas, and heaps of one arena, that are followed at most.
const MOST: usize = 65536;

/// An arena.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arena {
    /// Where its `malloc_state` is.
    pub(super) start: u64,
    /// Its top chunk.
    pub(super) top: u64,
    /// Bytes that it has from the kernel.
    pub(super) system: u64,
    /// Threads that use it.
    pub(super) threads: u64,
    /// Its lock was held.
    pub(super) is_locked: bool,
    /// It is not one piece.
    pub(super) is_split: bool,
    /// Heads of its fastbins.
    pub(super) fastbins: [u64; FASTBINS],
}

/// A piece of memory that an arena has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heap {
    /// Index of its arena.
    pub(super) arena: usize,
    /// How it came.
    pub(super) kind: HeapKind,
    /// Its pages.
    pub(super) range: Range<u64>,
    /// Its first chunk.
    pub(super) first: u64,
    /// Bytes of the arena before it: its own books, or what aligns the chunk.
    pub(super) before: u64,
}

/// How a piece of memory came to an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeapKind {
    /// By `brk`.
    Brk,
    /// A mapping in which the main arena has something, since it could not move `brk`.
    Mapped,
    /// `heap_info`, of another arena.
    Other,
}

/// Reads the ring of arenas.
pub(super) fn arenas<M: ReadMemory>(
    memory: &M,
    layout: Layout,
    main: u64,
) -> io::Result<Vec<Arena>> {
    let mut arenas = Vec::new();
    let mut seen = HashSet::new();
    let mut start = main;
    while seen.insert(start) && arenas.len() < MOST {
        let bins = layout.bins_at;
        let Some(words) = memory.words(start, ((bins + END) / 8) as usize)? else { break };
        let field = |offset: u64| words[(offset / 8) as usize];
        let mut fastbins = [0; FASTBINS];
        if let Some(at) = layout.fastbins_at() {
            fastbins.copy_from_slice(&words[(at / 8) as usize..][..FASTBINS]);
        }
        arenas.push(Arena {
            start,
            top: field(bins - TOP),
            system: field(bins + SYSTEM),
            threads: field(bins + THREADS),
            is_locked: words[0] as u32 != 0,
            is_split: words[0] >> 32 & NON_CONTIGUOUS != 0,
            fastbins,
        });
        start = field(bins + NEXT);
    }
    Ok(arenas)
}

/// Returns the pieces of all arenas, ascending.
pub(super) fn heaps<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    layout: Layout,
    parameters: Option<&Parameters>,
    arenas: &[Arena],
) -> io::Result<Vec<Heap>> {
    let mut heaps = Vec::new();
    for (index, arena) in arenas.iter().enumerate().skip(1) {
        of_thread(memory, mappings, layout, parameters, index, arena, &mut heaps)?;
    }
    if let Some(main) = arenas.first() {
        of_main(mappings, parameters, main, &mut heaps);
    }
    heaps.sort_by_key(|heap| heap.range.start);
    // Damaged links may lead to the same memory twice.
    heaps.dedup_by(|next, heap| next.range.start < heap.range.end);
    Ok(heaps)
}

fn of_main(
    mappings: &Mappings,
    parameters: Option<&Parameters>,
    main: &Arena,
    heaps: &mut Vec<Heap>,
) {
    let brk = mappings.heap();
    let base = parameters.map_or(0, |parameters| parameters.base);
    if let Some(brk) = &brk
        && (parameters.is_none() || brk.contains(&base))
    {
        let base = if brk.contains(&base) { base } else { brk.start };
        let range = pages_of(base..brk.end);
        heaps.push(Heap {
            arena: 0,
            kind: HeapKind::Brk,
            range,
            first: base.next_multiple_of(ALIGN),
            before: base.next_multiple_of(ALIGN) - base,
        });
    }
    if main.is_split || brk.is_none_or(|brk| !brk.contains(&main.top)) {
        let others: Vec<Range<u64>> = heaps.iter().map(|heap| heap.range.clone()).collect();
        let is_free = |range: &Range<u64>| {
            others.iter().all(|other| other.end <= range.start || range.end <= other.start)
        };
        let mapped = mappings.iter().filter(|m| m.name.is_empty() && is_private_writable(m));
        let ranges = mapped.map(|mapping| mapping.start..mapping.end).filter(is_free);
        heaps.extend(ranges.map(|range| Heap {
            arena: 0,
            kind: HeapKind::Mapped,
            first: range.start,
            before: 0,
            range,
        }));
    }
}

fn of_thread<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    layout: Layout,
    parameters: Option<&Parameters>,
    index: usize,
    arena: &Arena,
    heaps: &mut Vec<Heap>,
) -> io::Result<()> {
    // `heap_max_size` (malloc/arena.c, 2.35).
    let huge_page = parameters.map_or(0, |parameters| parameters.huge_page);
    let most = if huge_page == 0 { HEAP_MAX } else { huge_page.saturating_mul(4) };
    let mut seen = HashSet::new();
    let mut start = arena.top & !(most - 1);
    while start != 0 && seen.insert(start) && seen.len() < MOST {
        let Some(words) = memory.words(start, 3)? else { break };
        let &[owner, previous, size] = words.as_slice() else { break };
        let fits = size > 0 && size <= most && size % PAGE == 0;
        if owner != arena.start || !fits || !mappings.is_private_writable(start) {
            break;
        }
        let first = match previous {
            0 => (arena.start + layout.bins_at + END).next_multiple_of(ALIGN),
            _ => start + layout.heap_head,
        };
        let range = start..start + size;
        if !range.contains(&first) {
            break;
        }
        let own = first - start;
        heaps.push(Heap { arena: index, kind: HeapKind::Other, range, first, before: own });
        start = previous;
    }
    Ok(())
}
