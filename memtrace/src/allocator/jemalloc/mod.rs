//! jemalloc, 5.1 to 5.3, preloaded or linked into the program or a library, found without symbols.
//!
//! Reading order: `layout` (what its books look like), `find` (the tree of extents), `tree` (over its
//! extents), `slab` (which regions of one are free), `base` (where its books are), `walk`. What the
//! caches of threads hold counts as in use, as it does in jemalloc's own statistics
//! (`stats.allocated`): what is free is a lower bound.

mod base;
mod find;
mod layout;
mod slab;
mod tree;
mod walk;

use self::walk::Found;
use super::{
    mappings::Mappings,
    memory::ReadMemory,
    walked::{Arena, Unwalked, Walked},
};

/// Its name in every output.
pub const NAME: &str = "jemalloc";

/// What a thread is called that gives free memory back in the background (`background_thread.c`,
/// 5.2 and 5.3).
pub const BACKGROUND_THREAD: &str = "jemalloc_bg_thd";

/// Walks the extents of a process. `has_background_thread` tells whether one of its threads is a
/// [`BACKGROUND_THREAD`], where that is known.
///
/// Errors: it does not use jemalloc; it cannot be read.
pub fn walk<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    has_background_thread: impl FnOnce() -> Option<bool>,
) -> Result<Walked, Unwalked> {
    let roots = find::roots(memory, mappings)?;
    let Some(first) = roots.first() else { return Err(Unwalked::NotUsed(NAME)) };
    let mut walked = Walked {
        name: NAME,
        version: Some(first.layout.version().to_owned()),
        is_lower_bound: true,
        ..Walked::default()
    };
    for &root in &roots {
        add(&mut walked, &walk::tree(memory, mappings, root)?);
    }
    if !memory.knows_residency() {
        walked.free.remove("retained_resident");
    }
    let settings = has_background_thread().map(|has| ("background_thread", u64::from(has)));
    walked.settings = settings.into_iter().collect();
    walked.settle();
    Ok(walked)
}

/// Adds what was found in one tree.
fn add(walked: &mut Walked, found: &Found) {
    let mut trim = walked.trim.unwrap_or_default();
    let mut resident = 0;
    for arena in found.arenas.values() {
        let kinds = [
            ("slab_regions", arena.slab_regions),
            ("dirty", arena.dirty),
            ("muzzy", arena.muzzy),
            ("retained_resident", arena.retained_resident),
        ];
        let free = kinds.iter().map(|(_, bytes)| bytes).sum();
        for (kind, bytes) in kinds {
            *walked.free.entry(kind).or_insert(0) += bytes;
        }
        walked.add_regions(&arena.pages);
        let system = arena.system();
        walked.system = walked.system.saturating_add(system);
        walked.unknown = walked.unknown.saturating_add(arena.changing);
        resident += arena.pages.free;
        trim.frees += arena.purged;
        trim.shared += arena.purged_shared;
        trim.partly_used += arena.pages.partly_used;
        // Free pages of slabs that are in use, and frames that the kernel put under retained memory.
        trim.held += arena
            .pages
            .free
            .saturating_sub(arena.purged + arena.purged_shared + arena.pages.partly_used);
        walked.arenas.push(Arena {
            address: arena.address,
            system,
            free,
            free_resident: Some(arena.pages.free),
            trimmable: Some(arena.purged),
            threads: None,
        });
    }
    walked.resyncs += found.torn;
    walked.system = walked.system.saturating_add(found.books);
    walked.free_resident = Some(walked.free_resident.unwrap_or(0) + resident);
    walked.trim = Some(trim);
}

#[cfg(test)]
mod tests;
