//! Finds `main_arena` and `mp_` in the data of libc by what they look like: no symbols are needed.

use std::{io, ops::Range};

use super::layout::{
    ALIGN, BINS_AT, PARAMETERS, ParametersLayout,
    arena::{BINS, MAX_SYSTEM, NEXT, SYSTEM, TOP},
};
use crate::allocator::{mappings::Mappings, memory::ReadMemory, search::search};

/// How much two pieces that are searched overlap: more than either structure has.
const OVERLAP: u64 = 4096;

/// Returns the address of `main_arena.bins`.
pub(super) fn bins<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    data: &[Range<u64>],
) -> io::Result<Option<u64>> {
    search(memory, data.iter().cloned(), OVERLAP, |start, words| {
        let first = (TOP / 8) as usize;
        let last = words.len().checked_sub((MAX_SYSTEM / 8) as usize + 1);
        let mut places = first..last.map_or(first, |last| last + 1);
        let at = places.find(|&at| is_bins(mappings, start, words, at));
        Ok(at.map(|at| start + at as u64 * 8))
    })
}

/// Tells whether `words[at]` is `bins[0]` of an arena that is in use.
fn is_bins(mappings: &Mappings, start: u64, words: &[u64], at: usize) -> bool {
    let address = start + at as u64 * 8;
    for bin in 0..BINS {
        // An empty bin links to itself, as if it were a chunk.
        let own = (address + 16 * bin as u64).wrapping_sub(16);
        let links = [words[at + 2 * bin], words[at + 2 * bin + 1]];
        let is_empty = links == [own, own];
        let may_be_chunk =
            |&link: &u64| link != own && link % ALIGN == 0 && mappings.is_private_writable(link);
        if !is_empty && !links.iter().all(may_be_chunk) {
            return false;
        }
    }
    let field = |offset: u64| words[at + (offset / 8) as usize];
    let (top, system, most) = (words[at - (TOP / 8) as usize], field(SYSTEM), field(MAX_SYSTEM));
    mappings.is_private_writable(top) && system > 0 && system <= most && field(NEXT) != 0
}

/// Returns the distance of `bins` from the start of `malloc_state`: the ring of arenas leads back to
/// the start.
pub(super) fn bins_at<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    bins: u64,
) -> io::Result<Option<u64>> {
    /// Arenas that are asked for the way back.
    const MOST_ARENAS: usize = 4096;
    let Some(mut next) = memory.word(bins + NEXT)? else { return Ok(None) };
    for _ in 0..MOST_ARENAS {
        if let Some(&at) = BINS_AT.iter().find(|&&at| next == bins - at) {
            return Ok(Some(at));
        }
        let mut further = None;
        for at in BINS_AT {
            let link = memory.word(next.wrapping_add(at + NEXT))?;
            let is_link = |&link: &u64| {
                let is_arena = mappings.is_private_writable(link) && link % (1 << 20) < 4096;
                link != next && (link == bins - at || is_arena)
            };
            further = further.or(link.filter(is_link));
        }
        match further {
            Some(link) => next = link,
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// What the walk and the advice need of `malloc_par`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// First byte of the main arena, 0 while it has none from `brk`.
    pub(super) base: u64,
    /// Chunks that are mappings of their own, and their bytes.
    pub(super) maps: u32,
    pub(super) mapped: u64,
    /// Huge pages that the arenas are made of, 0 for none.
    pub(super) huge_page: u64,
    /// Huge pages by which the top is trimmed, 0 for none.
    pub(super) thp_page: u64,
    /// Size from which a chunk is a mapping of its own, and whether it still moves.
    pub(super) map_threshold: u64,
    pub(super) is_dynamic: bool,
    /// Free bytes at the top from which `free` trims.
    pub(super) trim_threshold: u64,
    /// Limit of arenas, 0 for the default.
    pub(super) most_arenas: u64,
    /// The oldest version that has this layout.
    pub(super) minor: u32,
}

/// Returns what most looks like `mp_`, given where the heap may begin.
pub(super) fn parameters<M: ReadMemory>(
    memory: &M,
    may_begin: &dyn Fn(u64) -> bool,
    data: &[Range<u64>],
) -> io::Result<Option<Parameters>> {
    /// Points without which it is none.
    const ENOUGH: u32 = 9;
    let mut best: Option<(u32, Parameters)> = None;
    search(memory, data.iter().cloned(), OVERLAP, |_, words| {
        for (at, layout) in (0..words.len()).flat_map(|at| PARAMETERS.iter().map(move |l| (at, l)))
        {
            let Some((points, found)) = judge(may_begin, words, at, layout) else { continue };
            if points >= ENOUGH && best.is_none_or(|(most, _)| points > most) {
                best = Some((points, found));
            }
        }
        Ok(None::<()>)
    })?;
    Ok(best.map(|(_, found)| found))
}

/// Returns how much `words[at]` looks like `mp_` of a layout.
fn judge(
    may_begin: &dyn Fn(u64) -> bool,
    words: &[u64],
    at: usize,
    layout: &ParametersLayout,
) -> Option<(u32, Parameters)> {
    let &ParametersLayout { maps, mapped, base, huge, minor } = layout;
    let field = |offset: u64| words.get(at + (offset / 8) as usize).copied();
    let half = |offset: u64| Some((field(offset)? >> (offset % 8 * 8)) as u32);
    let sbrk = field(base)?;
    let in_heap = sbrk != 0 && may_begin(sbrk);
    let (bytes, most_bytes) = (field(mapped)?, field(mapped + 8)?);
    if !in_heap && sbrk != 0 || bytes % 4096 != 0 || bytes > most_bytes || most_bytes % 4096 != 0 {
        return None;
    }
    let [count, limit, most, fixed] =
        [half(maps)?, half(maps + 4)?, half(maps + 8)?, half(maps + 12)?];
    let (lists, cached) = (field(base + 8)?, field(base + 24)?);
    let (threshold, tests) = (field(16)?, field(24)?);
    let points = [
        (3, limit == 65536),
        (1, count <= most),
        (1, (count == 0) == (bytes == 0)),
        (2, lists == 64 || lists == 76),
        (1, cached > 0 && cached <= 65535),
        (1, (4096..1 << 40).contains(&threshold)),
        (2, tests == 8 || tests == 2),
        (2, in_heap),
    ];
    let points = points.iter().map(|&(points, holds)| if holds { points } else { 0 }).sum();
    let huge =
        |which: u64| huge.and_then(|at| field(at + which)).filter(|size| size.is_power_of_two());
    let found = Parameters {
        base: sbrk,
        maps: count,
        mapped: bytes,
        thp_page: huge(0).unwrap_or(0),
        huge_page: huge(8).unwrap_or(0),
        map_threshold: threshold,
        is_dynamic: fixed == 0,
        trim_threshold: field(0)?,
        most_arenas: field(32)?,
        minor,
    };
    Some((points, found))
}
