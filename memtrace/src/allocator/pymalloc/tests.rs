use std::io;

use super::*;
use crate::{
    allocator::{
        image::random,
        memory::{PageState, Piece},
    },
    model::region_map::PAGE,
    source::procfs::parse_smaps,
};

const EXE: u64 = 0x40_0000;
const HEAP: u64 = 0x50_0000;
const ARENAS: u64 = 0x7f00_0000_0000;
const MIB: u64 = 1 << 20;
const POOL: u64 = 1 << 14;
/// Where the array lies in the heap.
const ARRAY: u64 = HEAP + 0x110;

/// A Python with a page of data, a heap and four mebibytes for arenas.
struct Image {
    pieces: Vec<(u64, Vec<u8>)>,
    mappings: Mappings,
    /// Pages that were never touched, and that are in swap.
    absent: Vec<u64>,
    swapped: Vec<u64>,
}

impl Image {
    fn of(exe: &str) -> Self {
        let maps = format!(
            "{EXE:x}-{:x} rw-p 00000000 fe:01 7 {exe}\n\
             {HEAP:x}-{:x} rw-p 00000000 00:00 0 [heap]\n\
             {ARENAS:x}-{:x} rw-p 00000000 00:00 0\n",
            EXE + PAGE,
            HEAP + 0x10000,
            ARENAS + 4 * MIB
        );
        let pieces = vec![
            (EXE, vec![0; PAGE as usize]),
            (HEAP, vec![0; 0x10000]),
            (ARENAS, vec![0; 4 << 20]),
        ];
        let mappings = Mappings::new(parse_smaps(&maps));
        Self { pieces, mappings, absent: Vec::new(), swapped: Vec::new() }
    }

    fn put(&mut self, address: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (start, piece) =
            self.pieces.iter_mut().rev().find(|(start, _)| *start <= address).unwrap();
        let at = (address - *start) as usize;
        piece[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    /// The entry of an arena that does not start at a pool: 63 of them.
    fn arena(&mut self, index: u64, start: u64, carved: u64, free: u64) {
        let next = start.next_multiple_of(POOL) + carved * POOL;
        self.put(ARRAY + index * 48, &[start, next, 63 << 32 | free, 0, 0, 0]);
    }

    fn pool(&mut self, address: u64, arena: u64, [used, carved, size]: [u64; 3], freed: u64) {
        let offsets = (POOL - size) << 32 | (48 + carved * size);
        self.put(address, &[used, freed, 0, 0, (size / 16 - 1) << 32 | arena, offsets]);
    }

    /// Two arenas, and between their entries one that is unused.
    fn python() -> Self {
        let mut image = Self::of("/usr/bin/python3.11");
        image.put(EXE + 0x40, &[ARRAY]);
        image.put(ARRAY + 48, &[0, 7, 7, 7, ARRAY + 3 * 48, 7]);
        let (first, second) = (ARENAS + PAGE, ARENAS + PAGE + MIB);
        image.arena(0, first, 4, 60);
        image.arena(2, second, 1, 62);
        let pool = ARENAS + POOL;
        // Full; used in part, with three blocks freed; free; wrecked.
        image.pool(pool, 0, [510, 510, 32], 0);
        let (a, b, c) = (pool + POOL + 48, pool + POOL + 48 + 512, pool + 2 * POOL - 512 - 464);
        image.pool(pool + POOL, 0, [28, 31, 512], a);
        image.put(a, &[b]);
        image.put(b, &[c]);
        image.put(c, &[0]);
        image.pool(pool + 2 * POOL, 0, [0, 510, 32], 0);
        image.pool(pool + 3 * POOL, 9, [1, 510, 32], 0);
        // Every block behind the first 10 was never handed out.
        image.pool(ARENAS + MIB + POOL, 2, [10, 10, 256], 0);
        // What was never carved off was never touched; nor what was not handed out.
        let fresh = [pool + 4 * POOL..second, ARENAS + MIB + 2 * POOL..ARENAS + 4 * MIB];
        image.absent = fresh.into_iter().flat_map(|range| range.step_by(PAGE as usize)).collect();
        image.absent.extend([1, 2].map(|page| ARENAS + MIB + POOL + page * PAGE));
        image.absent.sort_unstable();
        image
    }

    fn walk(&self) -> Result<Walked, Unwalked> {
        walk(self, &self.mappings, Some("/usr/bin/python3.11"))
    }
}

impl ReadMemory for Image {
    fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()> {
        for (page, state) in (start..).step_by(PAGE as usize).zip(states) {
            *state = match page {
                _ if self.swapped.contains(&page) => PageState::Swapped,
                _ if self.absent.binary_search(&page).is_ok() => PageState::Absent,
                _ if self.mappings.at(page).is_some() => PageState::Own,
                _ => PageState::Absent,
            };
        }
        Ok(())
    }

    fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
        for Piece { address, into } in pieces {
            let (start, bytes) =
                self.pieces.iter().rev().find(|(start, _)| start <= address).unwrap();
            assert!(!self.swapped.contains(&(*address & !(PAGE - 1))), "{address:#x} is swapped");
            let at = (*address - start) as usize;
            into.copy_from_slice(&bytes[at..at + into.len()]);
        }
        Ok(())
    }
}

#[test]
fn every_byte_of_the_arenas_is_accounted_for() {
    let walked = Image::python().walk().unwrap();
    assert_eq!((walked.version.as_deref(), walked.system), (Some("3.11"), 2 * MIB));
    // Of 512 bytes 31 fit, of 256 bytes 63.
    let (blocks, fresh) = (3 * 512, 53 * 256);
    assert_eq!(walked.free["blocks"], blocks + fresh);
    assert_eq!(walked.free["pools"], (1 + 59 + 62) * POOL);
    assert_eq!(walked.unknown, POOL);
    let free = walked.free_bytes();
    assert_eq!(walked.in_use, walked.system - free - POOL);
    assert!(!walked.is_lower_bound);
}

#[test]
fn free_blocks_lie_on_the_pages_where_the_list_says() {
    let walked = Image::python().walk().unwrap();
    // Of the pool that was not handed out in full: the end of its first page, and its last page but
    // for 208 bytes that are no block.
    let partly_used = 3 * 512 + (PAGE - 48 - 10 * 256) + (PAGE - 208);
    let trim = walked.trim.unwrap();
    assert_eq!((trim.frees, trim.partly_used, trim.held), (0, partly_used, POOL));
    assert_eq!(walked.free_resident, Some(partly_used + POOL));
    assert_eq!(walked.free_by_region, [(ARENAS, partly_used + POOL)].into());
}

#[test]
fn a_page_of_which_every_block_was_freed_is_not_partly_used() {
    let mut image = Image::python();
    // Blocks of 64 bytes; those that touch the third page were freed, from the last one on.
    let pool = ARENAS + 2 * POOL;
    let freed: Vec<u64> = (0..255)
        .map(|at| pool + 48 + at * 64)
        .filter(|block| block + 64 > pool + 2 * PAGE && *block < pool + 3 * PAGE)
        .collect();
    image.pool(pool, 0, [255 - freed.len() as u64, 255, 64], freed[0]);
    for (at, &block) in freed.iter().enumerate() {
        image.put(block, &[freed.get(at + 1).copied().unwrap_or(0)]);
    }
    assert_eq!(freed.len(), 65);
    let before = Image::python().walk().unwrap().trim.unwrap();
    let trim = image.walk().unwrap().trim.unwrap();
    assert_eq!(trim.held, before.held + PAGE);
    assert_eq!(trim.partly_used, before.partly_used - 3 * 512 + 64);
}

#[test]
fn pools_of_one_page_need_no_list() {
    let mut image = Image::of("/usr/lib/libpython3.8.so.1.0");
    image.put(EXE, &[ARRAY]);
    image.put(ARRAY, &[ARENAS, ARENAS + PAGE, 64 << 32 | 63, 0, 0, 0]);
    image.put(ARENAS, &[100, 1, 0, 0, 1 << 32, (PAGE - 32) << 32 | (48 + 126 * 32)]);
    let walked = image.walk().unwrap();
    assert_eq!((walked.system, walked.version.as_deref()), (1 << 18, Some("3.8")));
    assert_eq!(walked.free, [("blocks", 26 * 32), ("pools", 63 * PAGE)].into());
    assert_eq!(walked.trim.unwrap().partly_used, 26 * 32);
}

#[test]
fn what_is_in_swap_is_not_read_but_said() {
    let mut image = Image::python();
    image.swapped = vec![ARENAS + POOL];
    let walked = image.walk().unwrap();
    assert_eq!(walked.unknown, 2 * POOL);
    // A list that leads through a page in swap.
    image.swapped = vec![ARENAS + 2 * POOL + 3 * PAGE];
    let walked = image.walk().unwrap();
    assert_eq!(walked.free["blocks"], 3 * 512 + 53 * 256);
    // The end of the array.
    image.swapped = vec![HEAP + PAGE];
    assert!(image.walk().unwrap().is_lower_bound);
}

#[test]
fn an_older_copy_of_the_array_is_not_walked() {
    let mut image = Image::python();
    let third = ARENAS + PAGE + 2 * MIB;
    image.absent.retain(|&page| page < third || page >= third + MIB);
    image.arena(4, third, 1, 62);
    image.pool(third.next_multiple_of(POOL), 4, [1, 1, 512], 0);
    assert_eq!(image.walk().unwrap().settings["arenas"], 3);
    // Its place was another one.
    image.pool(third.next_multiple_of(POOL), 3, [1, 1, 512], 0);
    assert_eq!(image.walk().unwrap().settings["arenas"], 2);
}

#[test]
fn an_entry_that_changes_does_not_hide_the_others() {
    let mut image = Image::python();
    image.put(ARRAY + 3 * 48, &[ARENAS, 1, 2, 3, 4, 5]);
    image.arena(4, ARENAS + PAGE + 2 * MIB, 0, 63);
    assert_eq!(image.walk().unwrap().settings["arenas"], 3);
}

#[test]
fn others_memory_is_not_taken_for_it() {
    let mut image = Image::python();
    image.mappings = Image::of("/usr/bin/perl").mappings;
    assert!(matches!(image.walk(), Err(Unwalked::NotUsed(NAME))));
    // Nothing points to the array.
    let mut image = Image::python();
    image.put(EXE + 0x40, &[0]);
    assert!(matches!(image.walk(), Err(Unwalked::NotUsed(NAME))));
    // The arenas are in a heap.
    let image = Image::of("/usr/bin/python3.11");
    assert!(matches!(image.walk(), Err(Unwalked::NotUsed(NAME))));
}

#[test]
fn any_garbage_gives_a_value() {
    let mut random = random(1);
    for round in 0..200 {
        let mut image = Image::python();
        for _ in 0..1 << (round % 12) {
            let place = match random() % 4 {
                0 => ARRAY + random() % 24 * 8,
                1 => ARENAS + POOL + random() % 6 * POOL + random() % 6 * 8,
                2 => ARENAS + random() % (4 * MIB / 8) * 8,
                _ => ARENAS + 2 * POOL + random() % 16 * 8,
            };
            let word = match random() % 4 {
                0 => random(),
                1 => u64::MAX - random() % 4096,
                2 => ARENAS + random() % (4 * MIB),
                _ => (random() % 4096) << (random() % 2 * 32),
            };
            image.put(place, &[word]);
        }
        if let Ok(walked) = image.walk() {
            assert_eq!(walked.system, walked.in_use + walked.free_bytes() + walked.unknown);
            assert!(walked.free_resident.unwrap() <= walked.free_bytes());
        }
    }
}

#[test]
fn names_tell_the_version() {
    assert_eq!(version("/usr/bin/python3.11").as_deref(), Some("3.11"));
    assert_eq!(version("/lib/libpython3.13t.so.1.0").as_deref(), Some("3.13"));
    assert_eq!(version("/x/_ctypes.cpython-312-x86_64-linux-gnu.so").as_deref(), Some("3.12"));
    for other in ["/usr/bin/python3", "/x/a.cpython-.so", "/x/libpythonic.so", "", "/x/é.cpython-é"]
    {
        assert_eq!(version(other), None);
    }
}
