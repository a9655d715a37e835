//! Finds the tree of extents in the zeroed data of the program and its libraries, without symbols: a
//! word there leads to a leaf, whose extents say which part of the address space it describes, and
//! so which word of the root it is (`je_extents_rtree` in 5.2, `je_arena_emap_global` in 5.3).

use std::{collections::HashSet, io, ops::Range};

use super::layout::{EXTENT, LEAF_SPAN, Layout, TABLE, extent_address};
use crate::{
    allocator::{
        mappings::{Mappings, is_private_writable},
        memory::{ReadMemory, pages_of, word},
        pages::Pages,
        search::search,
    },
    model::region_map::PAGE,
};

/// Data that is searched of one file, and words of it that are tried.
const MOST_DATA: u64 = 256 << 20;
const MOST_TRIED: usize = 1 << 16;
/// Trees that one process may have: one for each copy of jemalloc.
const MOST_TREES: usize = 8;
/// Extents that are compared with their leaf, how many of them must be there, and how many of a
/// hundred must agree: the program goes on while they are read.
const SAMPLES: usize = 256;
const AT_LEAST: usize = 4;
const AGREE: usize = 90;

/// The root of a tree of extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// Where its table is.
    pub(super) at: u64,
    /// How its extents look.
    pub(super) layout: Layout,
}

/// Returns the trees of a process.
pub(super) fn roots<M: ReadMemory>(memory: &M, mappings: &Mappings) -> io::Result<Vec<Root>> {
    let mut roots: Vec<Root> = Vec::new();
    let mut books = Search {
        memory,
        mappings,
        data: Pages::new(memory),
        books: Pages::new(memory),
        tried: HashSet::new(),
    };
    for data in zeroed_data(mappings) {
        if roots.len() >= MOST_TREES {
            break;
        }
        search(memory, [data.clone()], 0, |start, words| {
            for (at, &leaf) in (start..).step_by(8).zip(words) {
                let is_known = |root: &Root| (root.at..root.at + TABLE).contains(&at);
                if leaf == 0 || !books.may_be_leaf(leaf) || roots.iter().any(is_known) {
                    continue;
                }
                if let Some(root) = books.root(at, leaf, &data)? {
                    roots.push(root);
                }
            }
            Ok((roots.len() >= MOST_TREES).then_some(()))
        })?;
    }
    Ok(roots)
}

/// Returns data of files that is large enough to hold a root.
fn zeroed_data(mappings: &Mappings) -> Vec<Range<u64>> {
    let mut data = mappings.data_of(|mapping| mapping.inode != 0 && mapping.name.starts_with('/'));
    for range in &mut data {
        // Without address space randomization, the heap of a static program is one with its data.
        let heap = mappings.at(range.end).filter(|m| m.start == range.end && m.name == "[heap]");
        let end = heap.map_or(range.end, |heap| heap.end);
        range.end = end.min(range.start.saturating_add(MOST_DATA));
    }
    data.retain(|range| range.end - range.start >= TABLE);
    data
}

struct Search<'a, M> {
    memory: &'a M,
    mappings: &'a Mappings,
    data: Pages<'a, M>,
    books: Pages<'a, M>,
    tried: HashSet<u64>,
}

impl<M: ReadMemory> Search<'_, M> {
    /// Tells whether a leaf may be here: in anonymous memory, to its last byte.
    fn may_be_leaf(&self, leaf: u64) -> bool {
        let is_anonymous = |address: u64| {
            let mapping = self.mappings.at(address);
            mapping.is_some_and(|m| m.inode == 0 && is_private_writable(m))
        };
        leaf.is_multiple_of(64)
            && is_anonymous(leaf)
            && is_anonymous(leaf.saturating_add(TABLE - 1))
    }

    /// Returns the root of which the word at `at` would be one that leads to a leaf.
    fn root(&mut self, at: u64, leaf: u64, data: &Range<u64>) -> io::Result<Option<Root>> {
        if self.tried.len() >= MOST_TRIED || !self.tried.insert(leaf) {
            return Ok(None);
        }
        let samples = self.samples(leaf)?;
        if samples.len() < AT_LEAST {
            return Ok(None);
        }
        for layout in Layout::ALL {
            let Some(number) = leaf_number(layout, &samples) else { continue };
            let Some(root) = at.checked_sub(8 * number) else { continue };
            if root >= data.start
                && root.saturating_add(TABLE) <= data.end
                && self.are_all_leaves(root)?
            {
                return Ok(Some(Root { at: root, layout }));
            }
        }
        Ok(None)
    }

    /// Reads the first words of a leaf and the extents that they lead to; nothing when one of them
    /// leads to no memory that extents may be in.
    fn samples(&mut self, leaf: u64) -> io::Result<Vec<Sample>> {
        let table = pages_of(leaf..leaf + TABLE);
        // Of a core file, pages that were never touched look as if they were there.
        let most = if self.memory.knows_residency() { SAMPLES } else { TABLE as usize };
        let mut present = Vec::new();
        self.books.each(table, |page, state| {
            if state.is_readable() && present.len() < most {
                present.push(page);
            }
        })?;
        let mut samples = Vec::new();
        for page in present {
            let mut bytes = [0; PAGE as usize];
            self.books.read(page, &mut bytes)?;
            for (at, entry) in (page..).step_by(8).zip(bytes.chunks_exact(8).map(word)) {
                if at < leaf || at >= leaf + TABLE || extent_address(entry) == 0 {
                    continue;
                }
                let address = extent_address(entry);
                if entry >> 56 != 0 || !self.mappings.is_private_writable(address) {
                    return Ok(Vec::new());
                }
                let Some(words) = self.memory.words(address, EXTENT / 8)? else {
                    return Ok(Vec::new());
                };
                let mut extent = [0; EXTENT];
                for (into, word) in extent.chunks_exact_mut(8).zip(words) {
                    into.copy_from_slice(&word.to_le_bytes());
                }
                samples.push(Sample { offset: (at - leaf) / 8 * PAGE, entry, extent });
                // A heap of something else shows at once.
                let is_hopeless = samples.len() == AT_LEAST
                    && Layout::ALL.iter().all(|&layout| leaf_number(layout, &samples).is_none());
                if is_hopeless || samples.len() == SAMPLES {
                    return Ok(samples);
                }
            }
        }
        Ok(samples)
    }

    /// Tells whether every word of a root leads to a leaf.
    fn are_all_leaves(&mut self, root: u64) -> io::Result<bool> {
        let whole = pages_of(root..root + TABLE);
        let mut bytes = vec![0; (whole.end - whole.start) as usize];
        self.data.read(whole.start, &mut bytes)?;
        let skip = (root - whole.start) as usize;
        let mut leaves = bytes[skip..][..TABLE as usize].chunks_exact(8).map(word);
        Ok(leaves.all(|leaf| leaf == 0 || self.may_be_leaf(leaf)))
    }
}

/// A word of a leaf and the extent that it leads to.
struct Sample {
    /// What the word describes, from the start of what the leaf does.
    offset: u64,
    entry: u64,
    extent: [u8; EXTENT],
}

/// Returns which part of the address space a leaf describes, if most samples agree on it.
fn leaf_number(layout: Layout, samples: &[Sample]) -> Option<u64> {
    let number_of = |sample: &Sample| {
        let extent = layout.decode(&sample.extent);
        // An extent may lie across two leaves.
        let first = extent.start / LEAF_SPAN;
        // What lies beyond the tree is no extent.
        let numbers = [first, first + 1].into_iter().filter(|&number| number < TABLE / 8);
        let mut pages = numbers.map(|number| (number, number * LEAF_SPAN + sample.offset));
        let (number, page) = pages.find(|(_, page)| (extent.start..extent.end()).contains(page))?;
        layout.agrees(page, sample.entry, &extent).then_some(number)
    };
    let numbers: Vec<u64> = samples.iter().filter_map(number_of).collect();
    let &number = numbers.get(numbers.len() / 2)?;
    let agree = numbers.iter().filter(|&&other| other == number).count();
    (agree * 100 >= samples.len() * AGREE).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        allocator::{
            jemalloc::tests::{Process, process},
            memory::PageState,
        },
        source::procfs::parse_smaps,
    };

    #[test]
    fn the_root_is_found_where_a_leaf_says_it_is() {
        for layout in Layout::ALL {
            let Process { memory, mappings, root, .. } = process(layout);
            let found = roots(&memory, &mappings).expect("it can be read");
            assert_eq!(found, [Root { at: root, layout }]);
        }
    }

    #[test]
    fn extents_that_lie_elsewhere_are_no_ones_leaf() {
        for layout in Layout::ALL {
            let Process { mut memory, mappings, extents, .. } = process(layout);
            for (extent, start) in extents {
                memory.write(extent + 8, &[start + (1 << 20)]);
            }
            assert_eq!(roots(&memory, &mappings).expect("it can be read"), []);
        }
    }

    #[test]
    fn data_that_cannot_hold_a_root_is_not_read() {
        struct Never;
        impl ReadMemory for Never {
            fn pages(&self, _: u64, _: &mut [PageState]) -> io::Result<()> {
                panic!("it was looked at")
            }
            fn read(&self, _: &mut [crate::allocator::memory::Piece<'_>]) -> io::Result<()> {
                panic!("it was read")
            }
        }
        let maps = "10000-20000 rw-p 00000000 fe:01 7 /bin/true\n\
                    20000-120000 rw-p 00000000 00:00 0\n\
                    200000-900000 rw-p 00000000 00:00 0\n";
        let mappings = Mappings::new(parse_smaps(maps));
        assert_eq!(roots(&Never, &mappings).expect("nothing is read"), []);
    }
}
