//! The heap of Go's runtime, 1.15 to 1.27 on amd64, found without symbols.
//!
//! Reading order: `version` (is it Go, by its file), `layout` (what its books look like), `find` (where
//! they are), `gather` (how many small pieces are read), `walk`. What was not collected yet, and stacks
//! that a `P` caches, count as in use, as they do in `runtime.MemStats`: what is free is a lower bound.

mod find;
mod gather;
mod layout;
mod version;
mod walk;

use std::collections::BTreeMap;

use super::{
    mappings::Mappings,
    memory::ReadMemory,
    walked::{Trim, Unwalked, Walked},
};
use crate::model::region_map::PAGE;

pub use version::version;

/// Its name in every output.
pub const NAME: &str = "go";

/// What to know beside the memory.
#[derive(Clone, Debug, Default)]
pub struct About<'a> {
    /// The executable, whose data has the books.
    pub exe: Option<&'a str>,
    /// The version of Go that it was built with, as its file says; none where it is not written in Go.
    pub version: Option<String>,
}

/// The first version 1.x that gives memory back at once (`MADV_DONTNEED`) by default.
const FIRST_EAGER: u32 = 16;

/// Walks the heap of a process.
///
/// Errors: it is not written in Go; its books make no sense; it cannot be read.
pub fn walk<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    about: About<'_>,
) -> Result<Walked, Unwalked> {
    let Some(version) = about.version else { return Err(Unwalked::NotUsed(NAME)) };
    let data = mappings.data_of(|mapping| Some(mapping.path()) == about.exe);
    let Some(heap) = find::heap(memory, mappings, &data)? else {
        let why = format!("the books of version {version} were not found: they look unfamiliar");
        return Err(Unwalked::NotUnderstood { name: NAME, why });
    };
    let is_lazy = minor(&version).is_some_and(|minor| minor < FIRST_EAGER);
    let found = walk::heap(memory, mappings, &heap, is_lazy)?;
    let free = BTreeMap::from([
        ("span_slots", found.slots),
        ("stacks", found.stacks),
        ("idle", found.idle),
        ("page_caches", found.cached),
        ("released_resident", found.released),
    ]);
    let mut walked = Walked { name: NAME, is_lower_bound: true, free, ..Walked::default() };
    walked.version = Some(version).filter(|version| !version.is_empty());
    walked.system = found.system();
    walked.unknown = found.unknown;
    walked.resyncs = found.torn;
    walked.settle();
    // `debug.FreeOSMemory` gives idle pages back. Free pages of spans in use stay, and frames that the
    // kernel put under what was given back already (`khugepaged`).
    let (frees, shared) = (found.idle_frames.own * PAGE, found.idle_frames.shared * PAGE);
    let on = found.pages;
    let held = on.free.saturating_sub(frees + shared + on.partly_used + on.cached);
    // What older ones give back the kernel takes when it needs it.
    walked.trim = (!is_lazy).then_some(Trim {
        frees,
        shared,
        partly_used: on.partly_used,
        cached: on.cached,
        held,
        ..Trim::default()
    });
    walked.free_resident = Some(on.free);
    walked.add_regions(&on);
    Ok(walked)
}

/// Returns the second part of a version.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests;
