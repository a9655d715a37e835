use proptest::prelude::*;

use super::{super::image::Image, *};
use crate::model::region_map::PAGE;

const EXE: u64 = 0x40_0000;
/// `main_arena`, somewhere in the data of libc.
const LIBC: u64 = 0x7000_0000;
const ARENA: u64 = LIBC + 0x350;
const BINS: u64 = ARENA + 112;
const HEAP: u64 = 0x5555_0000;
const HEAP_END: u64 = HEAP + 64 * PAGE;
const KEY: u64 = 0x1122_3344_5566_7788;

/// A heap that is written chunk by chunk.
struct Heap {
    image: Image,
    next: u64,
    /// The size of the chunk before, if it is free.
    free_before: Option<u64>,
}

impl Heap {
    /// As in glibc 2.36: a cache comes first, and nothing is in it.
    fn new() -> Self {
        let mut image = Image::default();
        image.add(EXE..EXE + PAGE, "/usr/bin/program");
        image.add(HEAP..HEAP_END, "[heap]");
        image.add(LIBC..LIBC + 2 * PAGE, "/usr/lib/libc.so.6");
        for bin in 0..127 {
            let own = BINS + 16 * bin - 16;
            image.write(own + 16, &[own, own]);
        }
        // Links of the ring, of free arenas, threads, and what it has from the kernel.
        image.write(BINS + 2048, &[ARENA, 0, 1, HEAP_END - HEAP, HEAP_END - HEAP]);
        let mut heap = Self { image, next: HEAP, free_before: None };
        heap.chunk(0x290);
        heap
    }

    fn chunk(&mut self, size: u64) -> u64 {
        let chunk = self.next;
        let head = if self.free_before.is_some() { size } else { size | 1 };
        self.image.write(chunk, &[self.free_before.unwrap_or(0), head]);
        self.free_before = None;
        self.next += size;
        chunk
    }

    fn used(&mut self, size: u64) -> u64 {
        let chunk = self.chunk(size);
        self.image.write(chunk + 16, &[0x4141_4141_4141_4141; 2]);
        chunk
    }

    /// A chunk of a bin.
    fn free(&mut self, size: u64) {
        self.chunk(size);
        self.free_before = Some(size);
    }

    /// A chunk that the thread's cache holds.
    fn cached(&mut self, size: u64) {
        let chunk = self.chunk(size);
        self.image.write(chunk + 16, &[(chunk + 16) >> 12, KEY]);
        let list = (size - 32) / 16;
        self.image.write(HEAP + 16 + 128 + list * 8, &[chunk + 16]);
        self.image.write(HEAP + 16 + list / 4 * 8, &[1 << (list % 4 * 16)]);
    }

    /// The only chunk of a fastbin.
    fn fast(&mut self, size: u64) {
        let chunk = self.chunk(size);
        self.image.write(chunk + 16, &[(chunk + 16) >> 12]);
        self.image.write(ARENA + 16 + (size - 32) / 2, &[chunk]);
    }

    /// The top takes the rest.
    fn walk(&mut self) -> Walked {
        let top = self.chunk(HEAP_END - self.next);
        self.image.write(BINS - 16, &[top, 0]);
        walk_image(&self.image).expect("it is a heap")
    }
}

fn walk_image(image: &Image) -> Result<Walked, Unwalked> {
    let about = About { exe: Some("/usr/bin/program"), minor: Some(36), is_stopped: true };
    walk(image, &image.mappings(), &about)
}

#[test]
fn every_class_is_told_and_the_sums_are_what_the_kernel_gave() {
    let mut heap = Heap::new();
    heap.used(0x100);
    heap.free(0x1000);
    heap.used(0x20);
    heap.cached(0x40);
    heap.fast(0x30);
    heap.used(0x500);
    let used = 0x290 + 0x100 + 0x20 + 0x500;
    let walked = heap.walk();
    let top = HEAP_END - HEAP - used - 0x1000 - 0x40 - 0x30;
    let free = [("tcache", 0x40), ("fastbins", 0x30), ("bins", 0x1000), ("top", top)];
    assert_eq!(walked.free, free.into());
    assert_eq!((walked.system, walked.in_use), (HEAP_END - HEAP, used));
    assert_eq!((walked.unknown, walked.resyncs, walked.locked), (0, 0, 0));
    assert_eq!(walked.version.as_deref(), Some("2.36"));
    assert_eq!(walked.free_by_region, [(HEAP, walked.free_bytes())].into());
}

#[test]
fn a_trim_takes_whole_pages_of_free_runs_and_of_the_top() {
    let mut heap = Heap::new();
    // From here to the end of the third page, of which a trim takes the second and the third.
    heap.free(3 * PAGE - 0x290);
    heap.used(0x200);
    // A fastbin chunk and its free neighbour are one to a trim.
    heap.fast(0x80);
    heap.free(2 * PAGE);
    heap.used(2 * PAGE - 0x280);
    let walked = heap.walk();
    let trim = walked.trim.expect("glibc has one");
    // Seven pages are in use or begun; of the top all goes but what one more chunk needs.
    let pages_of_top = 64 - 7 - 1;
    assert_eq!(trim.frees, (2 + 1 + pages_of_top) * PAGE, "{walked:?}");
    assert_eq!((trim.shared, trim.other_tops, trim.cached), (0, 0, 0));
    let free = walked.free_resident.expect("residency is known");
    assert_eq!(trim.frees + trim.partly_used + trim.edges, free);
}

#[test]
fn a_cached_chunk_keeps_its_page() {
    let mut heap = Heap::new();
    heap.used(PAGE - 0x290);
    heap.free(2 * PAGE - 0x40);
    heap.cached(0x40);
    heap.free(PAGE);
    heap.used(0x20);
    let trim = heap.walk().trim.expect("glibc has one");
    assert_eq!(trim.cached, PAGE);
}

#[test]
fn what_was_overwritten_is_passed_over_and_said() {
    let mut heap = Heap::new();
    heap.free(0x1000);
    heap.used(0x20);
    let damaged = heap.used(0x2000);
    for _ in 0..8 {
        heap.used(0x60);
    }
    heap.free(0x800);
    heap.used(0x40);
    heap.image.write(damaged + 8, &[0xdead_beef]);
    let walked = heap.walk();
    assert_eq!((walked.unknown, walked.resyncs), (0x2000, 1));
    assert_eq!(walked.free["bins"], 0x1800);
}

#[test]
fn a_free_chunk_whose_neighbour_disagrees_is_not_understood() {
    let mut heap = Heap::new();
    heap.free(0x1000);
    let next = heap.used(0x40);
    heap.image.write(next, &[0x900]);
    let walked = heap.walk();
    assert_eq!((walked.unknown, walked.free["bins"]), (0x1000, 0));
}

#[test]
fn a_process_whose_malloc_was_never_used_has_none() {
    let mut image = Image::default();
    image.add(LIBC..LIBC + 2 * PAGE, "/usr/lib/libc.so.6");
    assert!(matches!(walk_image(&image), Err(Unwalked::NotUsed(NAME))));
    assert!(matches!(walk_image(&Image::default()), Err(Unwalked::NotUsed(NAME))));
}

#[test]
fn a_ring_that_does_not_close_is_told() {
    let mut heap = Heap::new();
    heap.image.write(BINS + 2048, &[HEAP + 0x100]);
    let top = heap.chunk(HEAP_END - heap.next);
    heap.image.write(BINS - 16, &[top, 0]);
    let error = walk_image(&heap.image).expect_err("there is no way back").to_string();
    assert_eq!(
        error,
        "glibc is in use, but the ring of its arenas does not lead back to the first"
    );
}

proptest! {
    #[test]
    fn any_heap_gives_a_value_that_adds_up(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        at in 0..64 * PAGE,
        words in prop::collection::vec((0..64 * PAGE / 8, 0_u64..0x3000), 0..60),
    ) {
        let mut heap = Heap::new();
        heap.free(0x1000);
        heap.used(0x40);
        let top = heap.chunk(HEAP_END - heap.next);
        heap.image.write(BINS - 16, &[top, 0]);
        heap.image.overwrite(HEAP + at, &bytes);
        for (word, value) in words {
            heap.image.write(HEAP + word * 8, &[value]);
        }
        let walked = walk_image(&heap.image).expect("its arena is whole");
        prop_assert!(walked.free_bytes() + walked.unknown <= walked.system);
        prop_assert!(walked.free_resident.expect("known") <= walked.system);
    }

    #[test]
    fn any_arena_gives_a_value_or_a_sentence(
        words in prop::collection::vec((0..2 * PAGE / 8, any::<u64>()), 0..8),
        links in prop::collection::vec((0..2 * PAGE / 8, HEAP..HEAP_END), 0..8),
    ) {
        let mut heap = Heap::new();
        let top = heap.chunk(HEAP_END - heap.next);
        heap.image.write(BINS - 16, &[top, 0]);
        for (word, value) in words.into_iter().chain(links) {
            heap.image.write(LIBC + word * 8, &[value]);
        }
        let _ = walk_image(&heap.image);
    }
}
