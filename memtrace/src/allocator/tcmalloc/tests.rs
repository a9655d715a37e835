use std::collections::BTreeMap;

use super::*;
use crate::{
    allocator::image::{Image, random},
    source::procfs::parse_smaps,
};

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
        image.write(head, &[0, 0, head, head, 0, 0]);
    }
}

/// A free span, one of eight objects of 32760 bytes, one that was given back, and one in use, of two pages.
fn image() -> Image {
    let mut image = Image::default();
    image.write(ROOT, &[LEAF]);
    heads(&mut image, LISTS, 8);
    image.write(STATISTICS, &[5 * FREE, FREE, FREE, 4 * FREE]);
    image.write(CLASSES_AT, &[32 << 32, 2 | 2 << 32]);
    image.write(CLASSES_AT + 512, &[8 << 32, 32760 | 262_144 << 32]);
    image.write(CLASSES_AT + 1024, &[0, 1, 1, 1]);
    for class in 0..4 {
        let list = CENTRAL + 1216 * class;
        image.write(list, &[0, class]);
        heads(&mut image, list + 16, 2);
    }
    let object = |number: u64| HEAP + FREE + number * 32760;
    // Two objects lie in a chain on their way to a thread.
    image.write(CENTRAL + 2 * 1216 + 128, &[object(6), object(7)]);
    image.write(CENTRAL + 2 * 1216 + 1152, &[1 | 16 << 32]);
    image.write(object(6), &[object(7)]);
    image.write(object(7), &[0]);
    image.write(0x17_0000, &[CACHE]);
    for class in 0..4 {
        image.write(CACHE + 32 * class, &[0, 0, 0, [0, 8, 32760, 262_144][class as usize]]);
    }
    // Makes the last page of the cache be there.
    image.write(CACHE + 4096, &[0]);
    image.write(CACHE + 64, &[object(5), 1]);
    image.write(object(5), &[0]);
    for (at, (page, length, objects, bits)) in
        [(0, 1, 0, 1 << 24), (1, 1, object(1), 6 | 2 << 16), (2, 1, 0, 2 << 24), (3, 2, 0, 0)]
            .into_iter()
            .enumerate()
    {
        let span = SPANS + 48 * at as u64;
        let page = (HEAP >> SHIFT) + page;
        image.write(span, &[page, length, 0, 0, objects, bits]);
        image.write(LEAF + 8 * page, &[span]);
    }
    // Stale: it is inside of a span.
    image.write(LEAF + 8 * ((HEAP >> SHIFT) + 4), &[SPANS]);
    image.write(object(1), &[object(3)]);
    image.write(object(3), &[0]);
    for page in (HEAP..HEAP + 2 * FREE).step_by(PAGE as usize) {
        image.write(page + 8, &[1]);
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
    image.write(ROOT, &[0]);
    let walked = walk_image(&image).unwrap();
    assert!(walked.is_lower_bound);
    assert_eq!(walked.free, BTreeMap::from([("page_heap", FREE), ("unmapped", FREE)]));
    assert_eq!((walked.in_use, walked.free_resident), (3 * FREE, None));
}

#[test]
fn without_its_central_lists_it_is_a_lower_bound() {
    let mut image = image();
    image.write(CENTRAL + 8, &[1]);
    let walked = walk_image(&image).unwrap();
    assert!(walked.is_lower_bound);
    assert_eq!(walked.free["thread_caches"], 0);
}

#[test]
fn statistics_that_do_not_add_up_are_none() {
    let mut image = image();
    image.write(STATISTICS, &[6 * FREE]);
    assert!(matches!(walk_image(&image), Err(Unwalked::NotUsed(NAME))));
}

#[test]
fn an_entry_that_leads_behind_all_memory_is_stale() {
    let mut image = image();
    image.write(LEAF + 8 * (HEAP >> SHIFT), &[u64::MAX - 7]);
    let walked = walk_image(&image).unwrap();
    assert_eq!((walked.free["page_heap"], walked.unknown), (0, FREE));
}

#[test]
fn any_books_give_a_value() {
    let mut random = random(88_172_645_463_325_252);
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
            image.write(at, &[word]);
        }
        if let Ok(walked) = walk_image(&image) {
            assert!(walked.in_use <= walked.system, "{walked:?}");
        }
    }
}
