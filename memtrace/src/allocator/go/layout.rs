//! What the books of Go's runtime look like on amd64: spans, arenas and the bitmaps of pages. Fields that
//! moved from version to version have a table; a heap is believed only where its books agree.

use std::ops::Range;

use crate::allocator::memory::word;

/// A page of the runtime (`pageSize`, src/runtime/malloc.go, 1.15 to 1.27).
pub(super) const GO_PAGE: u64 = 8192;
/// Memory that one `heapArena` describes (`heapArenaBytes`).
pub(super) const ARENA: u64 = 64 << 20;
/// Arenas of the one table of them (`1 << arenaL2Bits`), in bytes.
pub(super) const ARENA_TABLE: u64 = 8 << 22;
/// What is added to an address before it is divided (`-arenaBaseOffset`).
const BASE_OFFSET: u64 = 1 << 47;

/// Memory that one `pallocData` describes, and its bytes: the bits of pages in use, and those of pages
/// that were given back to the kernel (src/runtime/mpallocbits.go, 1.15 to 1.27).
pub(super) const CHUNK: u64 = 4 << 20;
pub(super) const CHUNK_DATA: u64 = 128;
/// `pallocData` of a table (`1 << pallocChunksL2Bits`), and tables (`1 << pallocChunksL1Bits`).
pub(super) const TABLE_CHUNKS: u64 = 8192;
pub(super) const CHUNK_TABLES: u64 = 8192;
/// `inUse` in `struct pageAlloc`, from its `chunks` (src/runtime/mpagealloc.go, 1.15 to 1.27).
pub(super) const IN_USE: u64 = CHUNK_TABLES * 8 + 24;

/// Bytes of a `struct mspan` that are read.
pub(super) const SPAN: usize = 120;
/// Slots that a span may have: more than any has.
const MOST_SLOTS: u64 = 4096;
/// The stacks of goroutines that are kept for others have spans of their own (`_StackCacheSize`).
const STACK_SPAN: u64 = 32 << 10;
const SMALLEST_STACK: u64 = 2048;

/// Returns the number of the arena of an address.
pub(super) fn arena_number(address: u64) -> u64 {
    address.wrapping_add(BASE_OFFSET) / ARENA
}

/// Returns the first address of an arena.
pub(super) fn arena_start(number: u64) -> u64 {
    number.wrapping_mul(ARENA).wrapping_sub(BASE_OFFSET)
}

/// Returns the number of the chunk of an address.
pub(super) fn chunk_number(address: u64) -> u64 {
    address.wrapping_add(BASE_OFFSET) / CHUNK
}

/// How the books of a version look (src/runtime/mheap.go).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// 1.22 to 1.27.
    Go122,
    /// 1.21.
    Go121,
    /// 1.20.
    Go120,
    /// 1.15 to 1.19.
    Go115,
}

impl Layout {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Go122, Self::Go121, Self::Go120, Self::Go115];

    /// Returns where a `heapArena` has its spans: a bitmap comes first up to 1.21.
    pub(super) const fn spans(self) -> u64 {
        match self {
            Self::Go122 => 0,
            Self::Go121 | Self::Go120 => (1 << 20) + (16 << 10),
            Self::Go115 => 2 << 20,
        }
    }

    /// Reads a `struct mspan`; `None` for one that has no memory, or makes no sense.
    pub(super) fn span(self, bytes: &[u8]) -> Option<Span> {
        let number = |at: usize, len: usize| {
            let mut buffer = [0; 8];
            buffer[..len].copy_from_slice(bytes.get(at..at + len)?);
            Some(word(&buffer))
        };
        let (index_len, count_at, bits, rest) = match self {
            Self::Go122 => (2, 50, 64, 96),
            Self::Go121 => (8, 56, 72, 104),
            Self::Go120 | Self::Go115 => (8, 56, 72, 96),
        };
        let span = Span {
            start: number(24, 8)?,
            pages: number(32, 8)?,
            free_list: number(40, 8)?,
            first_free: number(48, index_len)?,
            slots: number(count_at, index_len)?,
            bits: number(bits, 8)?,
            used: number(rest, 2)?,
            state: State::from_raw(number(rest + 3, 1)?)?,
            size: number(rest + 8, 8)?,
        };
        span.makes_sense().then_some(span)
    }
}

/// What a span is for (`mSpanState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The heap that is collected.
    InUse,
    /// Stacks, and what the collector needs.
    Manual,
}

impl State {
    fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            1 => Some(Self::InUse),
            2 => Some(Self::Manual),
            _ => None,
        }
    }
}

/// A run of pages, for slots of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Its first byte.
    pub(super) start: u64,
    pages: u64,
    /// The first free stack.
    pub(super) free_list: u64,
    /// No slot before this one is free.
    pub(super) first_free: u64,
    /// Slots that it has.
    pub(super) slots: u64,
    /// Where the bits of used slots are.
    pub(super) bits: u64,
    /// Slots that are in use.
    pub(super) used: u64,
    /// What it is for.
    pub(super) state: State,
    /// Bytes of a slot.
    pub(super) size: u64,
}

impl Span {
    fn makes_sense(&self) -> bool {
        let Some(len) = self.pages.checked_mul(GO_PAGE) else { return false };
        let is_range = self.start.is_multiple_of(GO_PAGE)
            && len > 0
            && self.start.checked_add(len).is_some_and(|end| end <= BASE_OFFSET);
        let has_slots = match self.state {
            State::InUse => {
                (1..=MOST_SLOTS).contains(&self.slots)
                    && self.size > 0
                    && self.size.checked_mul(self.slots).is_some_and(|bytes| bytes <= len)
                    && self.used <= self.slots
                    && self.first_free <= self.slots
            }
            State::Manual => true,
        };
        is_range && has_slots
    }

    /// Returns its memory.
    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.start + self.pages * GO_PAGE
    }

    /// Returns its free slots.
    pub(super) fn free_slots(&self) -> u64 {
        match self.state {
            State::InUse => self.slots - self.used,
            State::Manual => 0,
        }
    }

    /// Returns the bytes of its bits.
    pub(super) fn bits_len(&self) -> usize {
        self.slots.div_ceil(64) as usize * 8
    }

    /// Tells whether a slot is free by its bits; no slot behind the last one is.
    pub(super) fn is_free(&self, bits: &[u8], slot: u64) -> bool {
        let byte = bits.get((slot / 8) as usize).copied().unwrap_or(u8::MAX);
        slot >= self.first_free && slot < self.slots && byte >> (slot % 8) & 1 == 0
    }

    /// Tells whether its bits say as many free slots as its count does.
    pub(super) fn agrees(&self, bits: &[u8]) -> bool {
        let free = (self.first_free..self.slots).filter(|&slot| self.is_free(bits, slot)).count();
        free as u64 == self.free_slots()
    }

    /// Returns how many stacks of a pool are free, where it is one (src/runtime/stack.go).
    pub(super) fn free_stacks(&self) -> u64 {
        let is_pool = self.state == State::Manual
            && self.pages * GO_PAGE == STACK_SPAN
            && (SMALLEST_STACK..STACK_SPAN).contains(&self.size)
            && self.size.is_power_of_two();
        if is_pool { (STACK_SPAN / self.size).saturating_sub(self.used) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A span of two pages with slots of 1 KiB: three are in use, the first free one is the third.
    fn bytes(layout: Layout, start: u64, state: u8) -> Vec<u8> {
        let mut bytes = vec![0; SPAN];
        let mut set = |at: usize, len: usize, value: u64| {
            bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        };
        let (len, count, bits, rest) = match layout {
            Layout::Go122 => (2, 50, 64, 96),
            Layout::Go121 => (8, 56, 72, 104),
            Layout::Go120 | Layout::Go115 => (8, 56, 72, 96),
        };
        set(24, 8, start);
        set(32, 8, 2);
        set(48, len, 2);
        set(count, len, 16);
        set(bits, 8, 0x7000);
        set(rest, 2, 3);
        set(rest + 3, 1, state.into());
        set(rest + 8, 8, 1024);
        bytes
    }

    #[test]
    fn a_span_is_read_in_every_layout() {
        for layout in Layout::ALL {
            let span = layout.span(&bytes(layout, 0xc000_0000, 1)).unwrap();
            assert_eq!(span.range(), 0xc000_0000..0xc000_4000);
            assert_eq!((span.free_slots(), span.size, span.bits), (13, 1024, 0x7000));
            assert!(span.agrees(&[8, 0]) && !span.agrees(&[8, 1]) && !span.agrees(&[8]));
            assert!(!span.is_free(&[8, 0], 1) && span.is_free(&[8, 0], 2));
            assert!(!span.is_free(&[8, 0], 3) && !span.is_free(&[8, 0], 16));
        }
    }

    #[test]
    fn what_makes_no_sense_is_no_span() {
        let layout = Layout::Go122;
        assert_eq!(layout.span(&bytes(layout, 0xc000_0000, 0)), None);
        assert_eq!(layout.span(&bytes(layout, 0xc000_1000, 1)), None);
        assert_eq!(layout.span(&bytes(layout, u64::MAX << 13, 1)), None);
        assert_eq!(layout.span(&[0xff; SPAN]), None);
        assert_eq!(layout.span(&[]), None);
    }

    #[test]
    fn arenas_are_numbered_from_the_lowest_address_that_is_signed() {
        assert_eq!(arena_number(0xc0_0000_0000), 0x20_3000);
        assert_eq!(arena_start(0x20_3000), 0xc0_0000_0000);
        assert_eq!(chunk_number(0xc0_0040_0000), 0x203_0001);
    }
}
