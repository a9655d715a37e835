use std::{collections::BTreeMap, io};

use super::*;
use crate::{
    allocator::memory::{PageState, Piece},
    source::procfs::parse_smaps,
};

/// Pages that are there.
#[derive(Default)]
struct Image(BTreeMap<u64, Vec<u64>>);

impl Image {
    fn set(&mut self, address: u64, words: &[u64]) {
        for (at, word) in (address..).step_by(8).zip(words) {
            let page = self.0.entry(at & !(PAGE - 1)).or_insert_with(|| vec![0; 512]);
            page[(at % PAGE / 8) as usize] = *word;
        }
    }
}

impl ReadMemory for Image {
    fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()> {
        for (page, state) in (start..).step_by(PAGE as usize).zip(states) {
            *state = if self.0.contains_key(&page) { PageState::Own } else { PageState::Absent };
        }
        Ok(())
    }

    fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
        for piece in pieces {
            for (address, byte) in (piece.address..).zip(piece.into.iter_mut()) {
                let page = self.0.get(&(address & !(PAGE - 1)));
                let word = page.map_or(0, |page| page[(address % PAGE / 8) as usize]);
                *byte = word.to_le_bytes()[(address % 8) as usize];
            }
        }
        Ok(())
    }
}

const MAPS: &str = "100000-200000 rw-p 00000000 fe:01 7 /usr/lib/libtcmalloc.so.4\n\
                    200000-300000 rw-p 00000000 00:00 0\n\
                    10000000-10200000 rw-p 00000000 00:00 0\n";
/// A page of tcmalloc, here of the largest size that it is built with.
const SHIFT: u32 = 18;
const ROOT: u64 = 0x10_0000;
const LISTS: u64 = ROOT + (8 << 15) + 104;
const STATISTICS: u64 = LISTS + 8 * 48;
const CLASSES_AT: u64 = 0x15_0000;
const CENTRAL: u64 = 0x16_0000;
const LEAF: u64 = 0x20_0000;
const SPANS: u64 = 0x25_0000;
const CACHE: u64 = 0x26_0000;
const HEAP: u64 = 0x1000_0000;
const FREE: u64 = 1 << SHIFT;

fn heads(image: &mut Image, at: u64, count: u64) {
    for head in (at..).step_by(48).take(count as usize) {
        image.set(head, &[0, 0, head, head, 0, 0]);
    }
}

/// A free span, one of eight objects of 32760 bytes, one that was given back, and one in use, of two pages.
fn image() -> Image {
    let mut image = Image::default();
    image.set(ROOT, &[LEAF]);
    heads(&mut image, LISTS, 8);
    image.set(STATISTICS, &[5 * FREE, FREE, FREE, 4 * FREE]);
    image.set(CLASSES_AT, &[32 << 32, 2 | 2 << 32]);
    image.set(CLASSES_AT + 512, &[8 << 32, 32760 | 262_144 << 32]);
    image.set(CLASSES_AT + 1024, &[0, 1, 1, 1]);
    for class in 0..4 {
        let list = CENTRAL + 1216 * class;
        image.set(list, &[0, class]);
        heads(&mut image, list + 16, 2);
    }
    let object = |number: u64| HEAP + FREE + number * 32760;
    // Two objects lie in a chain on their way to a thread.
    image.set(CENTRAL + 2 * 1216 + 128, &[object(6), object(7)]);
    image.set(CENTRAL + 2 * 1216 + 1152, &[1 | 16 << 32]);
    image.set(object(6), &[object(7)]);
    image.set(object(7), &[0]);
    image.set(0x17_0000, &[CACHE]);
    for class in 0..4 {
        image.set(CACHE + 32 * class, &[0, 0, 0, [0, 8, 32760, 262_144][class as usize]]);
    }
    // Makes the last page of the cache be there.
    image.set(CACHE + 4096, &[0]);
    image.set(CACHE + 64, &[object(5), 1]);
    image.set(object(5), &[0]);
    for (at, (page, length, objects, bits)) in
        [(0, 1, 0, 1 << 24), (1, 1, object(1), 6 | 2 << 16), (2, 1, 0, 2 << 24), (3, 2, 0, 0)]
            .into_iter()
            .enumerate()
    {
        let span = SPANS + 48 * at as u64;
        let page = (HEAP >> SHIFT) + page;
        image.set(span, &[page, length, 0, 0, objects, bits]);
        image.set(LEAF + 8 * page, &[span]);
    }
    // Stale: it is inside of a span.
    image.set(LEAF + 8 * ((HEAP >> SHIFT) + 4), &[SPANS]);
    image.set(object(1), &[object(3)]);
    image.set(object(3), &[0]);
    for page in (HEAP..HEAP + 2 * FREE).step_by(PAGE as usize) {
        image.set(page + 8, &[1]);
    }
    image
}

fn walk_image(image: &Image) -> Result<Walked, Unwalked> {
    walk(image, &Mappings::new(parse_smaps(MAPS)), &About::default())
}

#[test]
fn what_is_free_is_told_by_its_place() {
    let walked = walk_image(&image()).unwrap();
    let free = [
        ("central", 2 * 32760),
        ("page_heap", FREE),
        ("slack", 64),
        ("thread_caches", 32760),
        ("transfer_cache", 2 * 32760),
        ("unmapped", FREE),
    ];
    assert_eq!(walked.free, BTreeMap::from(free));
    assert_eq!((walked.system, walked.unknown), (5 * FREE, 0));
    assert_eq!(walked.in_use, 5 * FREE - 2 * FREE - 5 * 32760 - 64);
    assert!(!walked.is_lower_bound);
    let free = FREE + 5 * 32760 + 64;
    assert_eq!(walked.free_resident, Some(free));
    assert_eq!(walked.free_by_region, BTreeMap::from([(HEAP, free)]));
    let trim = walked.trim.unwrap();
    assert_eq!(trim.frees, FREE);
    assert_eq!(trim.frees + trim.partly_used + trim.cached + trim.held, free);
}

#[test]
fn without_its_page_map_the_page_heap_is_left() {
    let mut image = image();
    image.set(ROOT, &[0]);
    let walked = walk_image(&image).unwrap();
    assert!(walked.is_lower_bound);
    assert_eq!(walked.free, BTreeMap::from([("page_heap", FREE), ("unmapped", FREE)]));
    assert_eq!((walked.in_use, walked.free_resident), (3 * FREE, None));
}

#[test]
fn without_its_central_lists_it_is_a_lower_bound() {
    let mut image = image();
    image.set(CENTRAL + 8, &[1]);
    let walked = walk_image(&image).unwrap();
    assert!(walked.is_lower_bound);
    assert_eq!(walked.free["thread_caches"], 0);
}

#[test]
fn statistics_that_do_not_add_up_are_none() {
    let mut image = image();
    image.set(STATISTICS, &[6 * FREE]);
    assert!(matches!(walk_image(&image), Err(Unwalked::NotUsed(NAME))));
}

#[test]
fn an_entry_that_leads_behind_all_memory_is_stale() {
    let mut image = image();
    image.set(LEAF + 8 * (HEAP >> SHIFT), &[u64::MAX - 7]);
    let walked = walk_image(&image).unwrap();
    assert_eq!((walked.free["page_heap"], walked.unknown), (0, FREE));
}

#[test]
fn any_books_give_a_value() {
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let mut image = image();
        for _ in 0..12 {
            let word = match random() % 5 {
                0 => random(),
                1 => HEAP + random() % (6 * FREE),
                2 => SPANS + random() % 256,
                3 => (HEAP >> SHIFT) + random() % 8,
                _ => random() >> (random() % 64),
            };
            let at = match random() % 6 {
                0 => SPANS + random() % 32 * 8,
                1 => LEAF + 8 * (HEAP >> SHIFT) + random() % 8 * 8,
                2 => CACHE + random() % 544 * 8,
                3 => CENTRAL + random() % 608 * 8,
                4 => HEAP + FREE + random() % 8 * 32760,
                _ => STATISTICS + random() % 4 * 8,
            };
            image.set(at, &[word]);
        }
        if let Ok(walked) = walk_image(&image) {
            assert!(walked.in_use <= walked.system, "{walked:?}");
        }
    }
}
