//! Finds `arenas`, the array of all arenas, by what it looks like: no symbols are needed. A word in
//! the data of Python leads to it, and each arena's first pool tells its place in it.

use std::{io, ops::Range};

use super::layout::{Arena, ENTRY, ENTRY_WORDS, Entry, SHAPES, Shape};
use crate::{
    allocator::{
        mappings::Mappings,
        memory::{PageState, Piece, ReadMemory, pages_of, word},
        pages::Pages,
        search::search,
    },
    model::region_map::PAGE,
};

/// Entries that are read at once.
const ENTRIES: u64 = 4096;
/// Arenas that are kept at most: of 1 MiB each, more than half a terabyte.
const MOST: usize = 600_000;

/// The arenas of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arenas {
    /// Sizes of theirs.
    pub(super) shape: Shape,
    /// Those in use, ascending.
    pub(super) all: Vec<Arena>,
    /// There are more, which could not be seen.
    pub(super) is_cut: bool,
}

/// Returns the arenas, given the data of Python.
pub(super) fn arenas<M: ReadMemory>(
    memory: &M,
    pages: &mut Pages<'_, M>,
    mappings: &Mappings,
    data: &[Range<u64>],
) -> io::Result<Option<Arenas>> {
    let is_elsewhere = |&address: &u64| {
        // `PyMem_RawRealloc` gave it.
        let is_aligned = address % 16 == 0 && address != 0;
        is_aligned
            && mappings.is_private_writable(address)
            && !data.iter().any(|range| range.contains(&address))
    };
    search(memory, data.iter().cloned(), 0, |_, words| {
        let mut places: Vec<u64> = words.iter().copied().filter(is_elsewhere).collect();
        places.sort_unstable();
        places.dedup();
        first_array(memory, pages, mappings, &places)
    })
}

/// Returns the arenas of the first place that is the array.
fn first_array<M: ReadMemory>(
    memory: &M,
    pages: &mut Pages<'_, M>,
    mappings: &Mappings,
    places: &[u64],
) -> io::Result<Option<Arenas>> {
    /// The first entries of an array, of which at most one is the end of the list of unused ones.
    const FIRST: usize = 2 * ENTRY_WORDS;
    for places in places.chunks(ENTRIES as usize) {
        let firsts = words_at::<M, FIRST>(memory, pages, places)?;
        for (&array, words) in places.iter().zip(firsts) {
            let Some(words) = words else { continue };
            for shape in SHAPES {
                let mut is_strong = false;
                let is_array = (0..2).all(|index| {
                    let words = std::array::from_fn(|at| words[index * ENTRY_WORDS + at]);
                    let entry = shape.entry(mappings, array, index as u32, words);
                    is_strong |= entry.is_some_and(|entry| entry != Entry::Unused(false));
                    entry.is_some()
                });
                if !is_array || !is_strong {
                    continue;
                }
                let found = read_array(memory, pages, mappings, shape, array)?;
                if !found.all.is_empty() {
                    return Ok(Some(found));
                }
            }
        }
    }
    Ok(None)
}

/// Returns the arenas of an array: up to where entries are none any more. One that is none by itself
/// was read while it changed.
fn read_array<M: ReadMemory>(
    memory: &M,
    pages: &mut Pages<'_, M>,
    mappings: &Mappings,
    shape: Shape,
    array: u64,
) -> io::Result<Arenas> {
    /// Entries without an arena after which there is none any more, and entries in all.
    const UNUSED: u32 = 1 << 16;
    const LAST: u32 = 1 << 22;
    /// Entries in a row that are none.
    const BROKEN: u32 = 64;
    let mut found = Arenas { shape, all: Vec::new(), is_cut: false };
    let limit = mappings.at(array).map_or(array, |mapping| mapping.end);
    let (mut index, mut last_used, mut broken) = (0, 0, 0);
    let (mut at_end, mut is_proven) = (false, false);
    while !at_end && found.all.len() < MOST && index - last_used < UNUSED && index < LAST {
        let start = array + u64::from(index) * ENTRY;
        let count = ENTRIES.min((limit - start) / ENTRY);
        let places: Vec<u64> = (0..count).map(|at| start + at * ENTRY).collect();
        let mut arenas = Vec::new();
        for (&place, words) in places.iter().zip(words_at(memory, pages, &places)?) {
            broken += 1;
            match words.map(|words| shape.entry(mappings, array, index, words)) {
                Some(Some(entry)) => {
                    broken = 0;
                    arenas.extend(entry.arena());
                }
                None if is_swapped(pages, place)? => {
                    broken = 0;
                    found.is_cut = true;
                }
                None | Some(None) => {}
            }
            index += 1;
            if broken > BROKEN {
                break;
            }
        }
        at_end = count < ENTRIES || broken > BROKEN;
        // What lies behind the array may be an older copy of it: its places are not those.
        let heads: Vec<u64> = arenas.iter().map(|arena| shape.first_pool(arena.start)).collect();
        let heads = words_at(memory, pages, &heads)?;
        for (arena, words) in arenas.into_iter().zip(heads) {
            let pool = words.map(|words| shape.header(arena.index, words));
            if matches!(pool, Some(None)) {
                continue;
            }
            is_proven |= pool.is_some();
            last_used = arena.index;
            found.all.push(arena);
        }
    }
    if !is_proven {
        found.all.clear();
    }
    found.is_cut |= found.all.len() >= MOST;
    found.all.sort_unstable_by_key(|arena| arena.start);
    found.all.dedup_by(|next, arena| next.start - arena.start < shape.arena);
    Ok(found)
}

/// Tells whether an entry is there, but not to be read.
fn is_swapped<M: ReadMemory>(pages: &mut Pages<'_, M>, entry: u64) -> io::Result<bool> {
    let last = pages.state(entry + ENTRY - 1)?;
    Ok(pages.state(entry)? == PageState::Swapped || last == PageState::Swapped)
}

/// Reads a few words at each address, ascending; `None` where they are not there to be read.
pub(super) fn words_at<M: ReadMemory, const N: usize>(
    memory: &M,
    pages: &mut Pages<'_, M>,
    addresses: &[u64],
) -> io::Result<Vec<Option<[u64; N]>>> {
    let mut bytes = vec![0; addresses.len() * N * 8];
    let mut pieces = Vec::with_capacity(addresses.len());
    let mut is_read = Vec::with_capacity(addresses.len());
    for (&address, into) in addresses.iter().zip(bytes.chunks_exact_mut(N * 8)) {
        let mut is_there = true;
        let end = address.saturating_add(N as u64 * 8);
        for page in pages_of(address..end).step_by(PAGE as usize) {
            is_there &= pages.state(page)?.is_readable();
        }
        is_read.push(is_there);
        if is_there {
            pieces.push(Piece { address, into });
        }
    }
    memory.read(&mut pieces)?;
    let words = bytes.chunks_exact(N * 8).zip(is_read).map(|(bytes, is_read)| {
        is_read.then(|| std::array::from_fn(|at| word(&bytes[at * 8..at * 8 + 8])))
    });
    Ok(words.collect())
}
