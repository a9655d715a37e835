//! What the fuzz targets of walks share: how the fuzzer scribbles in a made-up memory, and what must hold
//! of a walk whatever it finds there.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use memtrace::allocator::{
    image::Image,
    walked::{Unwalked, Walked},
};

/// Bytes that a walk may take, whatever the heap's size.
const MOST_TAKEN: usize = 16 << 20;
/// Words that are scribbled at most.
const MOST_WORDS: usize = 1024;

/// Writes words where the fuzzer's bytes say, in some of the areas: any number, one that leads into
/// an area, a small one, or what is there with a bit turned or a little more.
pub fn scribble(memory: &mut Image, bytes: &[u8], areas: &[Range<u64>]) {
    for record in bytes.chunks_exact(12).take(MOST_WORDS) {
        let (head, value) = record.split_at(4);
        let value = u64::from_le_bytes(value.try_into().expect("eight bytes"));
        let area = &areas[usize::from(head[0]) % areas.len()];
        let offset = u64::from(u16::from_le_bytes([head[2], head[3]])) * 8;
        let at = area.start + offset % (area.end - area.start);
        let word = match head[1] % 5 {
            0 => value,
            1 => {
                let to = &areas[value as usize % areas.len()];
                to.start + (value >> 8) % (to.end - to.start)
            }
            2 => value & 0xffff,
            3 => memory.word(at) ^ 1 << (value % 64),
            _ => memory.word(at).wrapping_add_signed(i64::from(value as i8)),
        };
        memory.write(at, &[word]);
    }
}

/// Walks, and panics where what is found does not add up, or where it took more memory than it may.
pub fn walk_adds_up(walk: impl FnOnce() -> Result<Walked, Unwalked>) {
    let before = TAKEN.load(Relaxed);
    MOST.store(before, Relaxed);
    let result = walk();
    let taken = MOST.load(Relaxed).saturating_sub(before);
    assert!(taken <= MOST_TAKEN, "{taken} bytes were taken");
    if let Ok(walked) = result {
        let free = walked.free_bytes();
        let sum = walked.in_use.saturating_add(free).saturating_add(walked.unknown);
        assert_eq!(walked.system, sum, "{walked:?}");
        assert!(walked.free_resident.unwrap_or(0) <= free, "{walked:?}");
    }
}

/// Counts what is taken.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(taken, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(taken, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}
