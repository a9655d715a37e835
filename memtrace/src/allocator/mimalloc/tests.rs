use super::{
    layout::{LAYOUTS, SEGMENT, SLICE},
    *,
};
use crate::{
    allocator::image::{Image, random},
    source::procfs::parse_smaps,
};

const MAPS: &str = "100000-101000 rw-p 00000000 fe:01 7 /usr/lib/libmimalloc.so.2.1\n\
                    2000000-6000000 rw-p 00000000 00:00 0\n";
const START: u64 = SEGMENT;
const COOKIE: u64 = 0x1234_5678_9abc_def1;
const HEAP: u64 = 0x10_0800;
const BLOCK: u64 = 4096;

/// Sets a slice: the word of its counts, lists, what was used, the size of a block.
fn slice(image: &mut Image, layout: &Layout, index: u64, count: u64, page: Option<[u64; 6]>) {
    let at = START + layout.slices + index * layout.page.size;
    image.write(at, &[count]);
    let Some([counts, free, local_free, thread_free, used, block]) = page else { return };
    let page = &layout.page;
    image.write(at + 8, &[counts, free]);
    image.write(at + page.local_free, &[local_free]);
    image.write(at + page.thread_free, &[thread_free | 2, HEAP]);
    match page.is_packed {
        true => image.write(at + page.used, &[used | block << 32]),
        false => image.write(at + page.used, &[used, block, START + index * SLICE]),
    }
}

/// A segment: its books, a page of 16 blocks of which 10 were made, another one that is full, a page of
/// one large block, and free slices of which two have memory.
fn image(layout: &Layout) -> Image {
    let mut image = Image::default();
    image.write(0x10_0100, &[COOKIE]);
    image.write(START + layout.cookie, &[START ^ COOKIE]);
    image.write(START + layout.segment_slices, &[512, 1, 0]);
    image.write(START + layout.slice_entries, &[512]);
    image.write(START + layout.commit_mask, &[0b111_1111]);
    let block = |page: u64, number: u64| START + page * SLICE + number * BLOCK;
    slice(&mut image, layout, 0, 1, Some([0, 0, 0, 0, 0, SLICE]));
    let counts = 10 << 16 | 16 << 32;
    let lists = [counts, block(1, 0), block(1, 4), block(1, 6), 7, BLOCK];
    slice(&mut image, layout, 1, 1, Some(lists));
    image.write(block(1, 0), &[block(1, 2)]);
    for at in [2, 4, 6] {
        image.write(block(1, at), &[0]);
    }
    slice(&mut image, layout, 2, 1, Some([16 << 16 | 16 << 32, 0, 0, 0, 16, BLOCK]));
    slice(&mut image, layout, 3, 2, Some([1 << 16 | 1 << 32, 0, 0, 0, 1, 2 * SLICE]));
    slice(&mut image, layout, 5, 507, None);
    image.write(START + 5 * SLICE, &[1]);
    // A block of the full page waits at the heap.
    image.write(HEAP + layout.page.delayed_free, &[block(2, 3)]);
    image.write(block(2, 3), &[0]);
    image
}

fn walk_image(image: &Image) -> Result<Walked, Unwalked> {
    walk(image, &Mappings::new(parse_smaps(MAPS)))
}

#[test]
fn what_is_free_is_told_in_every_layout() {
    for layout in &LAYOUTS {
        let walked = walk_image(&image(layout)).unwrap();
        // Three were freed by their own thread, one by another, and one waits.
        let free = [("blocks", 5 * BLOCK), ("spans", 2 * SLICE), ("unmade_blocks", 6 * BLOCK)];
        assert_eq!(walked.free, BTreeMap::from(free), "{layout:?}");
        assert_eq!((walked.system, walked.unknown), (7 * SLICE, 0));
        assert_eq!(walked.in_use, 5 * SLICE - 11 * BLOCK);
        assert_eq!(walked.free_resident, Some(5 * BLOCK));
        assert_eq!(walked.free_by_region, BTreeMap::from([(START, 5 * BLOCK)]));
        let trim = walked.trim.map(|trim| (trim.frees, trim.partly_used, trim.held));
        assert_eq!(trim, (!layout.page.is_packed).then_some((PAGE, 0, 4 * BLOCK)));
        assert_eq!(walked.version.as_deref(), Some("2.1"));
    }
}

#[test]
fn a_page_that_is_all_free_is_given_back_whole() {
    let layout = &LAYOUTS[1];
    let mut image = image(layout);
    let page = [10 << 16 | 16 << 32, 0, 0, 0, 0, 4000];
    slice(&mut image, layout, 1, 1, Some(page));
    let walked = walk_image(&image).unwrap();
    assert_eq!(walked.free["blocks"], 10 * 4000 + BLOCK);
    assert_eq!(walked.free["unmade_blocks"], 6 * 4000);
    assert_eq!(walked.free["spans"], 2 * SLICE + SLICE - 64000);
    assert_eq!(walked.trim.map(|trim| trim.frees), Some(5 * PAGE));
}

#[test]
fn what_lies_in_lists_is_free_whatever_the_count_says() {
    let layout = &LAYOUTS[1];
    let mut image = image(layout);
    let at = START + layout.slices + layout.page.size + layout.page.used;
    image.write(at, &[10]);
    let walked = walk_image(&image).unwrap();
    // One was freed by another thread: the count does not know of it. One more waits.
    assert_eq!(walked.free["blocks"], (4 + 1) * BLOCK);
}

#[test]
fn what_has_no_memory_by_its_mask_is_there_where_it_is_found() {
    let layout = &LAYOUTS[1];
    let mut image = image(layout);
    image.write(START + layout.commit_mask, &[1]);
    let walked = walk_image(&image).unwrap();
    assert_eq!(walked.system, walked.in_use + walked.free_bytes());
}

#[test]
fn the_number_of_its_segments_must_stand_in_a_file() {
    let mut image = image(&LAYOUTS[0]);
    image.write(0x10_0100, &[COOKIE + 1]);
    assert!(matches!(walk_image(&image), Err(Unwalked::NotUnderstood { .. })));
    let maps = MAPS.replace("libmimalloc", "libother");
    let other = walk(&image, &Mappings::new(parse_smaps(&maps)));
    assert!(matches!(other, Err(Unwalked::NotUsed(NAME))));
}

#[test]
fn a_block_that_is_larger_than_its_page_does_not_count() {
    for layout in &LAYOUTS {
        let mut image = image(layout);
        let most = if layout.page.is_packed { u64::from(u32::MAX) } else { u64::MAX };
        slice(&mut image, layout, 2, 1, Some([0, 0, 0, 0, 0, most]));
        let mappings = Mappings::new(parse_smaps(MAPS));
        let found = Sweep::new(&image, &mappings, layout, COOKIE).all().unwrap();
        // Three were freed by their own thread, one by another; the one that waits has no size.
        assert_eq!((found.blocks, found.unknown), (4 * BLOCK, SLICE), "{layout:?}");
    }
}

#[test]
fn any_books_give_a_value() {
    let mut random = random(88_172_645_463_325_252);
    for round in 0..300 {
        let layout = &LAYOUTS[round % 3];
        let mut image = image(layout);
        for _ in 0..4 {
            let word = match random() % 4 {
                0 => random(),
                1 => START + random() % (8 * SLICE),
                2 => random() % 1024,
                _ => random() >> (random() % 64),
            };
            let at = match random() % 4 {
                0 => START + random() % 40 * 8,
                1 => START + layout.slices + random() % 80 * 8,
                2 => START + SLICE + random() % 16 * BLOCK,
                _ => HEAP + layout.page.delayed_free,
            };
            image.write(at, &[word]);
        }
        if let Ok(walked) = walk_image(&image) {
            assert!(walked.in_use <= walked.system, "{walked:?}");
        }
    }
    // What was understood once may be anything when it is read again.
    for _ in 0..300 {
        let mut image = image(&LAYOUTS[0]);
        for at in (START + 264..START + 700).step_by(8) {
            image.write(at, &[random() >> (random() % 64)]);
        }
        let mappings = Mappings::new(parse_smaps(MAPS));
        Sweep::new(&image, &mappings, &LAYOUTS[0], COOKIE).all().unwrap();
    }
}
