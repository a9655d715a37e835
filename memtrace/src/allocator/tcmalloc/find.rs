//! Finds the page heap, the size classes, the central lists and the caches of threads in the data of
//! tcmalloc by what they look like: no symbols are needed.

use std::{io, ops::Range};

use super::layout::{
    ADDRESS_BITS, CLASSES, MAX_OBJECT, ROOT_END, central,
    span::{self, BITS, LENGTH, NEXT, OBJECTS, PREV, START},
};
use crate::{
    allocator::{
        mappings::Mappings,
        memory::ReadMemory,
        search::{self, at_most, position},
    },
    model::region_map::PAGE,
};

/// How much two pieces that are searched overlap: more than any structure has.
const OVERLAP: u64 = 256 << 10;
/// Data of a program that is searched at most.
const MOST: u64 = 256 << 20;

/// The page heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeap {
    /// log2 of a page of its own.
    pub(super) shift: u32,
    /// The root of the page map, and log2 of its entries.
    pub(super) root: u64,
    pub(super) root_bits: u32,
    /// `PageHeap::Stats`.
    pub(super) system: u64,
    pub(super) free: u64,
    pub(super) unmapped: u64,
}

/// Sizes of objects and how many are moved at once, by class; class 0 is of no object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes {
    pub(super) sizes: Vec<u64>,
    pub(super) moved: Vec<u64>,
}

/// Calls `each` with pieces of the data, as words. Stops at the first result.
pub(super) fn search<M: ReadMemory, T>(
    memory: &M,
    data: &[Range<u64>],
    mut each: impl FnMut(u64, &[u64]) -> Option<T>,
) -> io::Result<Option<T>> {
    search::search(memory, at_most(data, MOST), OVERLAP, |start, words| Ok(each(start, words)))
}

/// Returns the page heap: statistics that add up, behind the heads of lists of spans.
pub(super) fn page_heap(mappings: &Mappings, start: u64, words: &[u64]) -> Option<PageHeap> {
    (2 * span::WORDS..words.len().saturating_sub(3)).find_map(|at| {
        let [system, free, unmapped, committed] = words[at..at + 4] else { return None };
        let are_pages = (system | free | unmapped) % PAGE == 0;
        let adds_up = system > 0
            && are_pages
            && committed.checked_add(unmapped) == Some(system)
            && free <= committed;
        if !adds_up {
            return None;
        }
        let heads = (1..=at / span::WORDS)
            .take_while(|&back| is_head(mappings, start, words, at - back * span::WORDS))
            .count();
        // `kMaxPages`, by two: normal and returned. A page of tcmalloc has 4 to 256 KiB.
        let lists = (heads / 2).checked_ilog2()?;
        let shift = 20_u32.checked_sub(lists).filter(|shift| (12..=18).contains(shift))?;
        let lists_start = start + (at - ((2 * span::WORDS) << lists)) as u64 * 8;
        let bits = ADDRESS_BITS - shift;
        let root_bits = bits - bits.div_ceil(2);
        let root = lists_start.checked_sub(ROOT_END + (8 << root_bits))?;
        Some(PageHeap { shift, root, root_bits, system, free, unmapped })
    })
}

/// Tells whether `words[at]` is the head of a list of spans.
fn is_head(mappings: &Mappings, start: u64, words: &[u64], at: usize) -> bool {
    let own = start + at as u64 * 8;
    let head = &words[at..at + span::WORDS];
    let is_link = |link: u64| {
        link == own || link != 0 && link.is_multiple_of(8) && mappings.is_private_writable(link)
    };
    [START, LENGTH, OBJECTS, BITS].iter().all(|&field| head[field] == 0)
        && (head[NEXT] == own) == (head[PREV] == own)
        && is_link(head[NEXT])
        && is_link(head[PREV])
}

/// Returns the size classes (`SizeMap`, src/common.h): sizes ascend to the largest.
pub(super) fn classes(words: &[u64], shift: u32) -> Option<Classes> {
    let halves: Vec<u32> =
        words.iter().flat_map(|&word| [word as u32, (word >> 32) as u32]).collect();
    (CLASSES..halves.len().saturating_sub(CLASSES)).find_map(|at| {
        if halves[at] != 0 || !matches!(halves[at + 1], 8 | 16) {
            return None;
        }
        let sizes = &halves[at..at + CLASSES];
        let count = 1 + sizes.iter().position(|&size| size == MAX_OBJECT)?;
        let ascend = sizes[..count].windows(2).all(|pair| pair[0] < pair[1]);
        if !ascend || sizes[count..].iter().any(|&size| size != 0) {
            return None;
        }
        let moved = &halves[at - CLASSES..][..count];
        let pages = words.get((at + CLASSES).div_ceil(2)..)?.get(..count)?;
        let fits = (1..count).all(|class| {
            pages[class].checked_shl(shift).is_some_and(|bytes| bytes >= sizes[class].into())
                && (1..=1 << 16).contains(&moved[class])
        });
        let wide = |halves: &[u32]| halves.iter().map(|&half| half.into()).collect();
        fits.then(|| Classes { sizes: wide(&sizes[..count]), moved: wide(moved) })
    })
}

/// Returns the words of the central lists: each tells its class.
pub(super) fn central_lists(
    mappings: &Mappings,
    start: u64,
    words: &[u64],
    classes: usize,
) -> Option<Vec<u64>> {
    let len = classes * central::WORDS;
    (0..=words.len().checked_sub(len)?).find_map(|at| {
        let is_list = |class: usize| {
            let list = at + class * central::WORDS;
            words[list + central::CLASS] == class as u64
                && is_head(mappings, start, words, list + central::EMPTY)
                && is_head(mappings, start, words, list + central::NONEMPTY)
        };
        (0..classes).all(is_list).then(|| words[at..at + len].to_vec())
    })
}

/// Tells whether a mapped file is tcmalloc.
pub fn is_tcmalloc(path: &str) -> bool {
    path.rsplit('/').next().unwrap_or_default().starts_with("libtcmalloc")
}

/// Returns the version of gperftools out of the contents of its file (`TC_VERSION_STRING`).
pub fn version(file: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = b"gperftools ";
    let at = position(file, BEFORE)? + BEFORE.len();
    let text = file[at..].iter().take(16).take_while(|byte| matches!(byte, b'0'..=b'9' | b'.'));
    let text: String = text.map(|&byte| char::from(byte)).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_tells_its_version() {
        assert_eq!(version(b"\0gperftools 2.10\0x").as_deref(), Some("2.10"));
        assert_eq!(version(b"gperftools x"), None);
        assert_eq!(version(b""), None);
    }

    #[test]
    fn classes_ascend_to_the_largest() {
        let mut halves = vec![0_u32; 1024];
        let sizes = [0, 8, 16, 32, 1024, MAX_OBJECT];
        // An odd place: they are not at the start of a word.
        halves[301..307].copy_from_slice(&sizes);
        halves[173..179].copy_from_slice(&[0, 32, 32, 32, 16, 2]);
        for (class, pages) in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 32)] {
            halves[430 + 2 * class] = pages;
        }
        let words = |halves: &[u32]| -> Vec<u64> {
            halves.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32).collect()
        };
        let found = classes(&words(&halves), 13).unwrap();
        assert_eq!(found.sizes, [0, 8, 16, 32, 1024, 262_144]);
        assert_eq!(found.moved, [0, 32, 32, 32, 16, 2]);
        halves[440] = 31;
        assert_eq!(classes(&words(&halves), 13), None);
    }
}
