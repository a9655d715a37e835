//! tcmalloc of gperftools, 2.10 to 2.16, found without symbols. Not the one of github.com/google/tcmalloc.
//!
//! Reading order: `layout`, `find` (its page heap and what else is in its data), `caches` (of threads,
//! and of what goes between them), `spans` (what lies on each page). Its own books, a few MiB, are not in
//! what it says it has from the kernel (`generic.heap_size`), nor in what the walk says.

mod caches;
mod find;
mod layout;
mod spans;

use std::collections::BTreeMap;

use self::{caches::Cached, find::Classes, spans::Walk};
use super::{
    mappings::Mappings,
    memory::ReadMemory,
    pages::OnPages,
    walked::{Trim, Unwalked, Walked},
};
use crate::model::region_map::PAGE;

/// Its name in every output.
pub const NAME: &str = "tcmalloc";

pub use find::{is_tcmalloc, version};

/// What to know beside the memory.
#[derive(Clone, Debug, Default)]
pub struct About<'a> {
    /// The executable, whose data is searched where no tcmalloc is mapped: it may be linked statically.
    pub exe: Option<&'a str>,
    /// Its version, as its file says.
    pub version: Option<String>,
}

/// Walks the spans of a process.
///
/// Errors: it does not use tcmalloc; it cannot be read.
pub fn walk<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    about: &About<'_>,
) -> Result<Walked, Unwalked> {
    let mut data = mappings.data_of(|mapping| is_tcmalloc(mapping.path()));
    if data.is_empty() {
        data = mappings.data_of(|mapping| Some(mapping.path()) == about.exe);
    }
    let heap = find::search(memory, &data, |start, words| find::page_heap(mappings, start, words))?
        .ok_or(Unwalked::NotUsed(NAME))?;
    let mut walked = Walked { name: NAME, version: about.version.clone(), ..Walked::default() };
    walked.system = heap.system;
    let classes = find::search(memory, &data, |_, words| find::classes(words, heap.shift))?;
    let cached = match &classes {
        Some(classes) => Cached::read(memory, mappings, &data, classes)?,
        None => None,
    };
    walked.is_lower_bound = cached.as_ref().is_none_or(|cached| cached.is_cut);
    let (classes, cached): (Classes, Cached) =
        (classes.unwrap_or_default(), cached.unwrap_or_default());
    let found = Walk::new(memory, mappings, heap, &classes, &cached).all()?;
    if found.spans == 0 {
        // The page map is not where it is looked for: what the page heap says of itself is left.
        walked.is_lower_bound = true;
        walked.free = BTreeMap::from([("page_heap", heap.free), ("unmapped", heap.unmapped)]);
        walked.settle();
        return Ok(walked);
    }
    walked.free = BTreeMap::from([
        ("page_heap", found.free),
        ("unmapped", found.unmapped),
        ("central", found.central),
        ("slack", found.slack),
        ("transfer_cache", cached.transfer),
        ("thread_caches", cached.threads),
    ]);
    walked.unknown = walked.system.saturating_sub(found.spans);
    walked.settle();
    let (frees, shared) = (found.frames.own * PAGE, found.frames.shared * PAGE);
    let OnPages { free, partly_used, cached, .. } = found.pages;
    let held = [frees, shared, partly_used, cached]
        .iter()
        .fold(free, |rest, &part| rest.saturating_sub(part));
    walked.trim = Some(Trim { frees, shared, partly_used, cached, held, ..Trim::default() });
    walked.free_resident = Some(free);
    walked.add_regions(&found.pages);
    Ok(walked)
}

#[cfg(test)]
mod tests;
