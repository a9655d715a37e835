//! glibc's malloc (ptmalloc), 2.27 to 2.43, dynamic and static, found without symbols.
//!
//! Reading order: `layout` (what differs between versions), `find` (`main_arena` and `mp_`), `heaps`
//! (the arenas' memory), `marks` and `fast` (how free chunks are told), `walk` and
//! `place` (over the chunks of one heap).

mod fast;
mod find;
mod heaps;
mod layout;
mod marks;
mod place;
mod version;
mod walk;

use std::{collections::BTreeMap, io, ops::Range};

use self::{
    find::Parameters,
    heaps::Heap,
    layout::Layout,
    marks::Marks,
    place::Found,
    walk::{Walk, link_number},
};
use super::{
    mappings::{Mappings, is_private_writable},
    memory::ReadMemory,
    walked::{Arena, Trim, Unwalked, Walked},
};

/// Its name in every output.
pub const NAME: &str = "glibc";

pub use version::minor_version;

/// Tells whether a mapped file is glibc.
pub fn is_libc(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name == "libc.so.6" || name.starts_with("libc-2.") && name.ends_with(".so")
}

/// What to know beside the memory.
#[derive(Clone, Debug, Default)]
pub struct About<'a> {
    /// The executable, whose data is searched where no glibc is mapped: it may be linked statically.
    pub exe: Option<&'a str>,
    /// The minor version of glibc 2, as its file says.
    pub minor: Option<u32>,
    /// Nothing changes while it is walked.
    pub is_stopped: bool,
}

/// Walks the heaps of a process.
///
/// Errors: it does not use glibc's malloc; its books make no sense; it cannot be read.
pub fn walk<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    about: &About<'_>,
) -> Result<Walked, Unwalked> {
    let data = data(mappings, about.exe);
    let Some(bins) = find::bins(memory, mappings, &data)? else {
        return Err(Unwalked::NotUsed(NAME));
    };
    let bins_at =
        find::bins_at(memory, mappings, bins)?.ok_or_else(|| Unwalked::NotUnderstood {
            name: NAME,
            why: "the ring of its arenas does not lead back to the first".to_owned(),
        })?;
    let heap = mappings.heap();
    let is_at_start = |address| {
        heap.as_ref().is_some_and(|heap| address >= heap.start && address - heap.start < 0x2000)
    };
    let parameters = find::parameters(memory, &is_at_start, &data)?;
    let minor = about.minor.unwrap_or_else(|| guess_minor(bins_at, parameters.as_ref()));
    let layout = Layout::of(minor, bins_at);
    let arenas = heaps::arenas(memory, layout, bins - bins_at)?;
    let heaps = heaps::heaps(memory, mappings, layout, parameters.as_ref(), &arenas)?;
    let marks = Marks::learn(memory, mappings, layout, &arenas, &heaps)?;
    let mut walk = Walk { memory, mappings, layout, parameters, marks };

    let mut found = walk_all(&mut walk, &arenas, &heaps)?;
    if found.iter().any(|found| found.learned) {
        found = walk_all(&mut walk, &arenas, &heaps)?;
    }
    if about.is_stopped && !are_lists_whole(&arenas, &found) {
        walk.marks.follow_fastbins(memory, layout, &arenas, &heaps)?;
        found = walk_all(&mut walk, &arenas, &heaps)?;
    }
    let mut walked = sum(&arenas, &heaps, &found, walk.parameters.as_ref());
    walked.version = about.minor.map(|minor| format!("2.{minor}"));
    walked.is_lower_bound = walk.marks.are_cut();
    Ok(walked)
}

/// Returns where the main arena begins that `brk` made, for memory of which nobody says where its
/// heap is.
///
/// Errors: it cannot be read.
pub fn brk_start<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    exe: Option<&str>,
) -> io::Result<Option<u64>> {
    let is_anonymous = |address| {
        let mapping = mappings.at(address);
        mapping.is_some_and(|mapping| mapping.name.is_empty() && is_private_writable(mapping))
    };
    let found = find::parameters(memory, &is_anonymous, &data(mappings, exe))?;
    Ok(found.map(|found| found.base).filter(|&base| base != 0))
}

/// Returns the data of libc; of the executable where no libc is mapped. What is searched for lies in
/// its initialized part, which comes first.
fn data(mappings: &Mappings, exe: Option<&str>) -> Vec<Range<u64>> {
    const MOST: u64 = 256 << 20;
    let mut data = mappings.data_of(|mapping| is_libc(mapping.path()));
    if data.is_empty() {
        data = mappings.data_of(|mapping| Some(mapping.path()) == exe);
    }
    for range in &mut data {
        range.end = range.end.min(range.start.saturating_add(MOST));
    }
    data
}

/// Returns a version that has the layout that was found.
fn guess_minor(bins_at: u64, parameters: Option<&Parameters>) -> u32 {
    match (bins_at, parameters) {
        (24, _) => 43,
        (_, Some(parameters)) => parameters.minor,
        (_, None) => 36,
    }
}

fn walk_all<M: ReadMemory>(
    walk: &mut Walk<'_, M>,
    arenas: &[heaps::Arena],
    heaps: &[Heap],
) -> Result<Vec<Found>, Unwalked> {
    let mut bounds: BTreeMap<usize, Range<u64>> = BTreeMap::new();
    for heap in heaps {
        let all = bounds.entry(heap.arena).or_insert_with(|| heap.range.clone());
        *all = all.start.min(heap.range.start)..all.end.max(heap.range.end);
    }
    let found = heaps
        .iter()
        .map(|heap| walk.heap(heap, &arenas[heap.arena], bounds[&heap.arena].clone()))
        .collect::<Result<_, _>>()?;
    Ok(found)
}

/// Tells whether the chunks that were taken for fastbins' are those of their lists.
fn are_lists_whole(arenas: &[heaps::Arena], found: &[Found]) -> bool {
    let heads = arenas.iter().flat_map(|arena| arena.fastbins).filter(|&head| head != 0);
    let heads = heads.fold(0, |sum: u64, head| sum.wrapping_add(link_number(head)));
    let chunks = found.iter().fold(0, |sum: u64, found| sum.wrapping_add(found.fast_links));
    chunks == heads
}

fn sum(
    arenas: &[heaps::Arena],
    heaps: &[Heap],
    found: &[Found],
    parameters: Option<&Parameters>,
) -> Walked {
    let mut walked = Walked { name: NAME, ..Walked::default() };
    let mut trim = Trim::default();
    let mut resident = 0;
    let mut free = [0; 4];
    for (index, arena) in arenas.iter().enumerate() {
        let mut one = Arena {
            address: arena.start,
            system: arena.system,
            threads: Some(arena.threads),
            ..Arena::default()
        };
        let (mut own_walked, mut own_resident, mut trimmable) = (0, 0, 0);
        for (_, found) in heaps.iter().zip(found).filter(|(heap, _)| heap.arena == index) {
            let kinds = [found.cached, found.fast, found.binned, found.top];
            for (sum, bytes) in free.iter_mut().zip(kinds) {
                *sum += bytes;
            }
            one.free += kinds.iter().sum::<u64>();
            own_walked += found.walked;
            own_resident += found.pages.free;
            trimmable += found.trimmed;
            walked.unknown += found.unknown;
            walked.resyncs += found.resyncs;
            trim.frees += found.trimmed;
            trim.late += found.trimmed_late;
            trim.shared += found.trimmed_shared;
            trim.other_tops += found.other_top;
            trim.partly_used += found.pages.partly_used;
            trim.cached += found.pages.cached;
            walked.add_regions(&found.pages);
        }
        // It may have grown meanwhile, or what it says may be damaged.
        one.system = arena.system.max(own_walked);
        one.free_resident = Some(own_resident);
        one.trimmable = Some(trimmable);
        resident += own_resident;
        walked.system = walked.system.saturating_add(one.system);
        walked.locked += u64::from(arena.is_locked);
        walked.unknown = walked.unknown.saturating_add(one.system.saturating_sub(own_walked));
        walked.arenas.push(one);
    }
    let mut edges: u64 = resident;
    for part in [trim.frees, trim.shared, trim.other_tops, trim.partly_used, trim.cached] {
        edges = edges.saturating_sub(part);
    }
    trim.edges = edges;
    walked.free = ["tcache", "fastbins", "bins", "top"].into_iter().zip(free).collect();
    walked.free_resident = Some(resident);
    walked.trim = Some(trim);
    walked.system =
        walked.system.saturating_add(parameters.map_or(0, |parameters| parameters.mapped));
    if let Some(parameters) = parameters {
        let limit = (parameters.most_arenas > 0).then_some(parameters.most_arenas);
        let settings = [
            ("mmap_threshold", Some(parameters.map_threshold)),
            ("mmap_threshold_is_dynamic", Some(parameters.is_dynamic.into())),
            ("trim_threshold", Some(parameters.trim_threshold)),
            ("arena_max", limit),
            ("mmapped_chunks", Some(parameters.maps.into())),
            ("mmapped_bytes", Some(parameters.mapped)),
        ];
        walked.settings = settings.into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
    }
    walked.settle();
    walked
}

#[cfg(test)]
mod tests;
