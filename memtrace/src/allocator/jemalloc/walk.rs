//! The walk over the extents of one tree, upwards, while the program goes on.

use std::{collections::BTreeMap, io};

use super::{
    base::Blocks,
    find::Root,
    layout::{Extent, State, class_size},
    slab,
    tree::Tree,
};
use crate::{
    allocator::{
        mappings::Mappings,
        memory::ReadMemory,
        pages::{OnPages, Pages, Sum, Use},
    },
    model::region_map::PAGE,
};

/// What was found in a tree, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What each arena has, by its index.
    pub(super) arenas: BTreeMap<u16, InArena>,
    /// Where the books are.
    pub(super) books: u64,
    /// Times that an extent did not hold what leads to it.
    pub(super) torn: u64,
}

/// What was found in an arena, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InArena {
    /// Where the first of its extents is written down.
    pub(super) address: u64,
    /// What the program has, by jemalloc's account: whole regions and classes (`stats.allocated`).
    pub(super) allocated: u64,
    /// Extents by their state.
    pub(super) active: u64,
    pub(super) dirty: u64,
    pub(super) muzzy: u64,
    pub(super) retained: u64,
    pub(super) changing: u64,
    /// Free regions in slabs, which are active.
    pub(super) slab_regions: u64,
    /// Frames that lie behind retained memory all the same.
    pub(super) retained_resident: u64,
    /// Frames that a purge frees, and pages that it detaches from this process only.
    pub(super) purged: u64,
    pub(super) purged_shared: u64,
    /// What lies on each page that is free in part or as a whole.
    pub(super) pages: OnPages,
}

impl InArena {
    /// Returns what it has from the kernel: retained memory is address space alone.
    pub(super) fn system(&self) -> u64 {
        let &Self { active, dirty, muzzy, changing, retained_resident, .. } = self;
        [active, dirty, muzzy, changing, retained_resident].into_iter().fold(0, u64::saturating_add)
    }
}

/// Walks a tree.
pub(super) fn tree<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    root: Root,
) -> io::Result<Found> {
    let mut tree = Tree::new(memory, mappings, root.layout);
    let mut pages = Pages::new(memory);
    let mut blocks = Blocks::default();
    let mut arenas: BTreeMap<u16, (InArena, Sum<'_>)> = BTreeMap::new();
    let leaves = tree.leaves(root)?;
    for &(_, leaf) in &leaves {
        blocks.learn(memory, mappings, leaf)?;
    }
    tree.extents(&leaves, |address, extent| {
        blocks.learn(memory, mappings, address)?;
        let (arena, sum) = arenas
            .entry(extent.arena)
            .or_insert_with(|| (InArena { address, ..InArena::default() }, Sum::new(mappings)));
        take(&mut pages, extent, arena, sum)
    })?;
    let mut found = Found { books: blocks.bytes(), torn: tree.torn, ..Found::default() };
    for (index, (mut arena, sum)) in arenas {
        arena.pages = sum.finish(&mut pages)?;
        found.arenas.insert(index, arena);
    }
    Ok(found)
}

/// Books an extent.
fn take<M: ReadMemory>(
    pages: &mut Pages<'_, M>,
    extent: &Extent,
    arena: &mut InArena,
    sum: &mut Sum<'_>,
) -> io::Result<()> {
    let &Extent { is_slab, state, class, start, size, .. } = extent;
    let range = start..extent.end();
    match state {
        State::Active if is_slab => {
            let region = class_size(class);
            let free = slab::free_regions(extent);
            let used = extent.regions().map_or(0, |regions| regions - free);
            arena.active += size;
            arena.allocated += used * region;
            arena.slab_regions += free * region;
            if free > 0 {
                regions(pages, extent, sum)?;
            }
        }
        State::Active => {
            arena.active += size;
            arena.allocated += class_size(class).min(size);
        }
        State::Dirty => {
            arena.dirty += size;
            let frames = pages.count(range.clone())?;
            arena.purged += frames.own * PAGE;
            arena.purged_shared += frames.shared * PAGE;
            sum.add(pages, range, Use::Free)?;
        }
        State::Muzzy => arena.muzzy += size,
        State::Retained => {
            arena.retained += size;
            // Huge pages are made of what is next to frames, too (`khugepaged`).
            let frames = pages.count(range.clone())?;
            arena.retained_resident += frames.bytes();
            if frames.bytes() > 0 {
                sum.add(pages, range, Use::Free)?;
            }
        }
        State::Changing => arena.changing += size,
    }
    Ok(())
}

/// Books the pages of a slab. Where on its page a free region lies does not matter.
fn regions<M: ReadMemory>(
    pages: &mut Pages<'_, M>,
    slab: &Extent,
    sum: &mut Sum<'_>,
) -> io::Result<()> {
    let mut result = Ok(());
    slab::each_page(slab, |page, free| {
        if free > 0 && result.is_ok() {
            let mut add = |range, is| sum.add(pages, range, is);
            result = add(page..page + free, Use::Free)
                .and_then(|()| add(page + free..page + PAGE, Use::Used));
        }
    });
    result
}
