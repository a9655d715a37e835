use super::{
    layout::{GO_PAGE, Layout},
    *,
};
use crate::allocator::image::{Image, random};

const EXE: &str = "/bin/prog";
const DATA: u64 = 0x50_0000;
/// In the data: the tables of bitmaps, and the word that leads to the arenas.
const CHUNKS: u64 = DATA + 0x100;
const ARENAS: u64 = CHUNKS + (64 << 10) + 0x200;
const RANGES: u64 = 0x7000_0000_0000;
const SPANS: u64 = RANGES + 0x1000;
const BITS: u64 = RANGES + 0x8000;
const TABLE: u64 = 0x7100_0000_0000;
const BITMAPS: u64 = 0x7200_0000_0000;
const ARENA: u64 = 0x7300_0000_0000;
const HEAP: u64 = 0xc0_0000_0000;
const LEN: u64 = 4 << 20;

/// A heap of one chunk: 40 spans of a page with 8 slots of 1 KiB, of which the first two are in use; one
/// of two pages that is in use as a whole; a pool of stacks of 8 KiB of which the second is free; a page
/// that a `P` caches; 100 that are free; and the rest, which was given back.
fn image(layout: Layout) -> Image {
    let mut image = Image::default();
    image.add(DATA..DATA + 0x20000, EXE);
    image.add(HEAP..HEAP + LEN, "");
    image.add(RANGES..RANGES + 0x10000, "");
    for page in [0, 0x20_3000 * 8, (32 << 20) - 0x1000] {
        image.add(TABLE + page..TABLE + page + 0x1000, "");
    }
    for page in [0, (1 << 20) - 0x1000] {
        image.add(BITMAPS + page..BITMAPS + page + 0x1000, "");
    }
    image.add(ARENA..ARENA + 0x1000, "");
    if layout.spans() > 0 {
        image.add(ARENA + layout.spans()..ARENA + layout.spans() + 0x1000, "");
    }
    // 0xc000000000 is in table 0x1018.
    image.write(CHUNKS + 0x1018 * 8, &[BITMAPS]);
    image.write(CHUNKS + (64 << 10) + 24, &[RANGES, 1, 1, LEN]);
    image.write(RANGES, &[HEAP, HEAP + LEN]);
    image.write(ARENAS, &[TABLE]);
    image.write(TABLE + 0x20_3000 * 8, &[ARENA]);
    for number in 0..40 {
        add_span(&mut image, layout, number, number..number + 1, [2, 8, 2, 1, 1024]);
        image.write(BITS + 8 * number, &[3]);
    }
    add_span(&mut image, layout, 40, 40..42, [1, 1, 1, 1, 2 * GO_PAGE]);
    add_span(&mut image, layout, 41, 42..46, [0, 0, 3, 2, GO_PAGE]);
    image.write(SPANS + 160 * 41 + 40, &[HEAP + 43 * GO_PAGE]);
    // 47 pages are in use, and all from the 147th on were given back.
    image.write(BITMAPS, &[(1 << 47) - 1, 0, 0, 0, 0, 0, 0, 0]);
    image.write(BITMAPS + 64, &[0, 0, !0 << 19, !0, !0, !0, !0, !0]);
    image
}

/// Adds a span with its first free slot, its slots, how many are in use, its state and their size.
fn add_span(
    image: &mut Image,
    layout: Layout,
    number: u64,
    pages: std::ops::Range<u64>,
    [free, slots, used, state, size]: [u64; 5],
) {
    let at = SPANS + 160 * number;
    let bits = BITS + 8 * number;
    image.write(at + 24, &[HEAP + pages.start * GO_PAGE, pages.end - pages.start]);
    let rest = match layout {
        Layout::Go122 => {
            image.write(at + 48, &[free | slots << 16, 0, bits]);
            96
        }
        Layout::Go121 | Layout::Go120 | Layout::Go115 => {
            image.write(at + 48, &[free, slots, 0, bits]);
            if layout == Layout::Go121 { 104 } else { 96 }
        }
    };
    image.write(at + rest, &[used | state << 24, size]);
    for page in pages {
        image.write(ARENA + layout.spans() + 8 * page, &[at]);
    }
}

fn walk_image(image: &Image, version: &str) -> Result<Walked, Unwalked> {
    let about = About { exe: Some(EXE), version: Some(version.to_owned()) };
    walk(image, &image.mappings(), about)
}

#[test]
fn every_page_of_a_heap_is_told() {
    for layout in Layout::ALL {
        let walked = walk_image(&image(layout), "1.22.1").unwrap();
        assert_eq!(walked.free["span_slots"], 40 * 6 * 1024);
        assert_eq!(walked.free["stacks"], 8192);
        assert_eq!(walked.free["idle"], 100 * GO_PAGE);
        assert_eq!(walked.free["page_caches"], GO_PAGE);
        // All is resident here, also what was given back.
        assert_eq!(walked.free["released_resident"], LEN - 147 * GO_PAGE);
        assert_eq!((walked.system, walked.unknown, walked.resyncs), (LEN, 0, 0));
        assert_eq!(walked.in_use, 46 * GO_PAGE - 40 * 6 * 1024 - 8192);
        assert_eq!(walked.free_resident, Some(walked.free_bytes()));
        let trim = walked.trim.unwrap();
        assert_eq!((trim.frees, trim.cached), (100 * GO_PAGE, GO_PAGE));
        // Of each span the second page of the kernel's is free as a whole, and half of the first.
        assert_eq!(trim.partly_used, 40 * 2048);
        assert_eq!(trim.held, 40 * 4096 + 8192 + LEN - 147 * GO_PAGE);
    }
}

#[test]
fn what_is_given_back_lazily_is_the_kernels_to_count() {
    let walked = walk_image(&image(Layout::Go115), "1.15.15").unwrap();
    assert_eq!((walked.free["released_resident"], walked.trim), (0, None));
    assert_eq!(walked.system, 147 * GO_PAGE);
}

#[test]
fn spans_whose_bits_say_something_else_are_not_counted() {
    let mut image = image(Layout::Go122);
    image.write(BITS, &[7]);
    let walked = walk_image(&image, "1.22").unwrap();
    assert_eq!((walked.unknown, walked.resyncs), (GO_PAGE, 1));
    assert_eq!(walked.free["span_slots"], 39 * 6 * 1024);
}

#[test]
fn books_that_do_not_agree_are_refused() {
    let breaks: [(u64, &[u64]); 5] = [
        (ARENAS, &[TABLE + 0x1000]),
        (BITS, &[7, 7, 7, 7, 7, 7, 7, 7]),
        (BITMAPS, &[0]),
        (CHUNKS + (64 << 10) + 24 + 24, &[LEN + 1]),
        (RANGES, &[HEAP, HEAP + 2 * LEN]),
    ];
    for (at, words) in breaks {
        let mut image = image(Layout::Go122);
        image.write(at, words);
        let result = walk_image(&image, "1.22");
        assert!(matches!(result, Err(Unwalked::NotUnderstood { name: NAME, .. })), "{at:x}");
    }
}

#[test]
fn only_what_is_written_in_go_is_walked() {
    let image = image(Layout::Go122);
    let about = About { exe: Some(EXE), version: None };
    let result = walk(&image, &image.mappings(), about);
    assert!(matches!(result, Err(Unwalked::NotUsed(NAME))));
    assert_eq!((minor("1.9"), minor("1.21rc2"), minor("devel")), (Some(9), Some(21), None));
}

#[test]
fn any_books_give_a_value() {
    let mut random = random(88_172_645_463_325_252);
    let mut walks = 0;
    for _ in 0..3000 {
        let mut image = image(Layout::Go122);
        for _ in 0..1 + random() % 8 {
            let at = match random() % 5 {
                0 => SPANS + random() % 0x500,
                1 => BITS + random() % 0x40,
                2 => BITMAPS + random() % 0x80,
                3 => ARENA + random() % 0x1000,
                _ => RANGES + random() % 16,
            } & !7;
            let word = match random() % 4 {
                0 => random(),
                1 => HEAP + random() % 64 * GO_PAGE,
                2 => SPANS + random() % 12 * 160,
                _ => random() >> (random() % 64),
            };
            image.write(at, &[word]);
        }
        if let Ok(walked) = walk_image(&image, "1.22") {
            walks += 1;
            let sum = walked.in_use + walked.free_bytes() + walked.unknown;
            assert_eq!(walked.system, sum, "{walked:?}");
            assert!(walked.free_resident <= Some(walked.free_bytes()), "{walked:?}");
        }
    }
    assert!(walks > 500, "{walks}");
}
