//! What the fuzz targets of walks share: a made-up memory that the fuzzer scribbles in, and what must
//! hold of a walk whatever it finds there.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    io,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use memtrace::allocator::{
    memory::{PageState, Piece, ReadMemory},
    walked::{Unwalked, Walked},
};

const PAGE: u64 = 4096;
/// Bytes that a walk may take, whatever the heap's size.
const MOST_TAKEN: usize = 16 << 20;
/// Words that are scribbled at most.
const MOST_WORDS: usize = 1024;

/// Pages that are there; all else reads as zeros.
#[derive(Clone, Debug, Default)]
pub struct Sparse(BTreeMap<u64, Vec<u64>>);

impl Sparse {
    /// Writes words, whose pages are there from then on.
    pub fn set(&mut self, address: u64, words: &[u64]) {
        for (at, word) in (address..).step_by(8).zip(words) {
            let page = self.0.entry(at & !(PAGE - 1)).or_insert_with(|| vec![0; 512]);
            page[(at % PAGE / 8) as usize] = *word;
        }
    }

    /// Makes pages be there.
    pub fn touch(&mut self, range: Range<u64>) {
        for page in range.step_by(PAGE as usize) {
            self.0.entry(page & !(PAGE - 1)).or_insert_with(|| vec![0; 512]);
        }
    }

    fn word(&self, at: u64) -> u64 {
        let page = self.0.get(&(at & !(PAGE - 1)));
        page.map_or(0, |page| page[(at % PAGE / 8) as usize])
    }

    /// Writes words where the fuzzer's bytes say, in some of the areas: any number, one that leads into
    /// an area, a small one, or what is there with a bit turned or a little more.
    pub fn scribble(&mut self, bytes: &[u8], areas: &[Range<u64>]) {
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
                3 => self.word(at) ^ 1 << (value % 64),
                _ => self.word(at).wrapping_add_signed(i64::from(value as i8)),
            };
            self.set(at, &[word]);
        }
    }
}

impl ReadMemory for Sparse {
    fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()> {
        states.fill(PageState::Absent);
        let end = start.saturating_add(states.len() as u64 * PAGE);
        for (page, _) in self.0.range(start..end) {
            states[((page - start) / PAGE) as usize] = PageState::Own;
        }
        Ok(())
    }

    fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
        for Piece { address, into } in pieces {
            into.fill(0);
            let end = address.saturating_add(into.len() as u64);
            for (&page, words) in self.0.range(*address & !(PAGE - 1)..end) {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                let (from, to) = (page.max(*address), (page + PAGE).min(end));
                into[(from - *address) as usize..(to - *address) as usize]
                    .copy_from_slice(&bytes[(from - page) as usize..(to - page) as usize]);
            }
        }
        Ok(())
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
