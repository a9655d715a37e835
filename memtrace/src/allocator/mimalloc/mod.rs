//! mimalloc 2.0.9 to 2.4.1, found without symbols. Not 1.x and not 3.x, whose memory is laid out in other
//! ways, and not what is built secure or for debugging, whose lists are encoded.
//!
//! Reading order: `layout` (what differs between versions), `segment` (the books of one), `sweep` (what
//! lies on each page).

mod layout;
mod segment;
mod sweep;

use std::{collections::BTreeMap, io};

use self::{
    layout::Layout,
    segment::{BOOKS, Segment},
    sweep::Sweep,
};
use super::{
    mappings::Mappings,
    memory::{ReadMemory, word},
    pages::Pages,
    walked::{Trim, Unwalked, Walked},
};
use crate::model::region_map::PAGE;

/// Its name in every output.
pub const NAME: &str = "mimalloc";

/// Tells whether a mapped file is mimalloc.
pub fn is_mimalloc(path: &str) -> bool {
    path.rsplit('/').next().unwrap_or_default().starts_with("libmimalloc")
}

/// Returns the version that the name of a file tells.
fn version(path: &str) -> Option<String> {
    let (_, version) = path.rsplit_once(".so.")?;
    version.contains('.').then(|| version.to_owned())
}

/// Walks the segments of a process.
///
/// Errors: it does not use mimalloc; its segments were not found; it cannot be read.
pub fn walk<M: ReadMemory>(memory: &M, mappings: &Mappings) -> Result<Walked, Unwalked> {
    let file = mappings.iter().find(|mapping| is_mimalloc(mapping.path()));
    let Some((layout, cookie)) = find(memory, mappings)? else {
        if file.is_none() {
            return Err(Unwalked::NotUsed(NAME));
        }
        let why = "its segments are not those of 2.0.9 to 2.4.1".to_owned();
        return Err(Unwalked::NotUnderstood { name: NAME, why });
    };
    let found = Sweep::new(memory, mappings, layout, cookie).all()?;
    let mut walked = Walked { name: NAME, system: found.system, ..Walked::default() };
    walked.free = BTreeMap::from([
        ("blocks", found.blocks),
        ("unmade_blocks", found.unmade),
        ("spans", found.spans),
    ]);
    walked.unknown = found.unknown;
    walked.resyncs = found.torn;
    walked.settle();
    walked.version = file.and_then(|file| version(file.path()));
    let (frees, shared) = (found.frames.own * PAGE, found.frames.shared * PAGE);
    let partly_used = found.pages.partly_used;
    let held = found.pages.free.saturating_sub(frees + shared).saturating_sub(partly_used);
    // `mi_collect` of 2.0.9 and 2.1.2 gives back nothing that is in a segment (`_mi_segment_thread_collect`,
    // src/segment.c); later ones do, each thread its own.
    if !layout.page.is_packed {
        walked.trim = Some(Trim { frees, shared, partly_used, held, ..Trim::default() });
    }
    walked.free_resident = Some(found.pages.free);
    walked.add_regions(&found.pages);
    Ok(walked)
}

/// Returns the layout of the segments, and the number that they share: it stands in the data of a file.
fn find<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
) -> io::Result<Option<(&'static Layout, u64)>> {
    /// Different numbers that are looked for.
    const MOST: usize = 16;
    let mut pages = Pages::new(memory);
    let mut books = vec![0; BOOKS as usize];
    let mut candidates: Vec<(&'static Layout, u64)> = Vec::new();
    sweep::places(mappings, |start| {
        if candidates.len() < MOST && sweep::is_readable(memory, start)? {
            pages.read(start, &mut books)?;
            if let Some(layout) = Segment::layout_of(start, &books) {
                let candidate = (layout, Segment::new(layout, start, &books).cookie());
                if !candidates.contains(&candidate) {
                    candidates.push(candidate);
                }
            }
        }
        Ok::<_, io::Error>(())
    })?;
    if candidates.is_empty() {
        return Ok(None);
    }
    let is_file = |path: &str| path.starts_with('/');
    let mut bytes = Vec::new();
    for range in mappings.data_of(|mapping| is_file(mapping.path())) {
        for start in range.clone().step_by(1 << 20) {
            bytes.resize((range.end - start).min(1 << 20) as usize, 0);
            pages.read(start, &mut bytes)?;
            let numbers = bytes.chunks_exact(8).map(word).filter(|&number| number != 0);
            for number in numbers {
                if let Some(found) = candidates.iter().find(|(_, cookie)| *cookie == number) {
                    return Ok(Some(*found));
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
