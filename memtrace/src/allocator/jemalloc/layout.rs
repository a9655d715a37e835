//! What jemalloc's books look like: the bits of an extent, and of a leaf of the tree that leads to it
//! (`extent_structs.h` and `rtree.h` in 5.1 and 5.2, `edata.h` and `rtree.h` in 5.3; 64 bits, 4 KiB
//! pages, a quantum of 16 bytes and 48 bits of address, as they are built by default).

use super::slab;
use crate::{allocator::memory::word, model::region_map::PAGE};

/// Bytes of a table of the tree, of the root as of a leaf: 2¹⁸ words.
pub(super) const TABLE: u64 = 8 << 18;
/// Bytes of address space that a leaf describes.
pub(super) const LEAF_SPAN: u64 = 1 << 30;
/// Bytes of `extent_t` and `edata_t`.
pub(super) const EXTENT: usize = 128;
/// Bits of the address of an extent in a leaf: its alignment is 64 or 128.
const ADDRESS: u64 = (1 << 48) - 64;
/// Where the bitmap of a slab's free regions stands in its extent.
const BITMAP_AT: usize = 64;
/// Regions that a slab has at most.
pub(super) const MOST_REGIONS: u64 = 512;
/// Size classes; the number itself stands for none.
const CLASSES: u64 = 232;

/// The versions that differ in what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// 5.1 and 5.2.
    V5_1,
    /// 5.3.
    V5_3,
}

impl Layout {
    /// All of them.
    pub(super) const ALL: [Self; 2] = [Self::V5_1, Self::V5_3];

    /// Returns the versions that have it.
    pub(super) const fn version(self) -> &'static str {
        match self {
            Self::V5_1 => "5.1 or 5.2",
            Self::V5_3 => "5.3",
        }
    }

    /// Returns where the state stands, and how many bits it has: the class and the number of free
    /// regions follow.
    const fn state_bits(self) -> (u32, u32) {
        match self {
            Self::V5_1 => (16, 2),
            Self::V5_3 => (17, 3),
        }
    }

    /// Reads an extent.
    pub(super) fn decode(self, bytes: &[u8; EXTENT]) -> Extent {
        let field = |at: usize| word(&bytes[at..at + 8]);
        let bits = field(0);
        let (state_at, state_bits) = self.state_bits();
        let class_at = state_at + state_bits;
        let state = match bits >> state_at & ((1 << state_bits) - 1) {
            0 => State::Active,
            1 => State::Dirty,
            2 => State::Muzzy,
            3 => State::Retained,
            _ => State::Changing,
        };
        Extent {
            arena: (bits & 0xfff) as u16,
            is_slab: bits >> 12 & 1 != 0,
            state,
            class: bits >> class_at & 0xff,
            free_regions: bits >> (class_at + 8) & 0x3ff,
            start: field(8) & !(PAGE - 1),
            size: field(16) & !(PAGE - 1),
            bitmap: std::array::from_fn(|group| field(BITMAP_AT + 8 * group)),
        }
    }

    /// Tells whether what a leaf says of an extent is what the extent says of itself. Of what is not
    /// in use both may keep what they said before (`pa_dalloc`, pa.c, 5.3), but its class is none; of
    /// large ones only the first page tells the class (`emap_remap`, emap.c, 5.3).
    pub(super) fn agrees(self, page: u64, leaf: u64, extent: &Extent) -> bool {
        let &Extent { is_slab, state, class, size, free_regions, .. } = extent;
        let bits_are_right = match self {
            Self::V5_1 => leaf & 0x3e == 0,
            Self::V5_3 => leaf & 0x60 == 0 && leaf >> 2 & 7 == state as u64,
        };
        let slab_is_right = || {
            let regions = extent.regions().is_some_and(|regions| regions > 0);
            !is_slab || regions && free_regions == slab::free_regions(extent)
        };
        let rest_is_right = match state {
            State::Active => {
                leaf & 1 == u64::from(is_slab)
                    && (leaf >> 48 == class || !is_slab && page != extent.start)
                    && class < CLASSES
                    && slab_is_right()
            }
            State::Dirty | State::Muzzy | State::Retained | State::Changing => class == CLASSES,
        };
        bits_are_right && rest_is_right && size > 0
    }
}

/// Returns the address of the extent that a word of a leaf leads to, 0 for none.
pub(super) const fn extent_address(leaf: u64) -> u64 {
    leaf & ADDRESS
}

/// What an extent is at present (`extent_state_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In use, as a whole or in regions.
    Active,
    /// Free, as it was left.
    Dirty,
    /// Free, and given to the kernel to take when it likes (`MADV_FREE`).
    Muzzy,
    /// Address space that is kept, without frames.
    Retained,
    /// On its way from one to another.
    Changing,
}

/// A span of pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Index of its arena.
    pub(super) arena: u16,
    /// It is divided into regions of one size.
    pub(super) is_slab: bool,
    /// What it is.
    pub(super) state: State,
    /// Its size class.
    pub(super) class: u64,
    /// Free regions, as it counts them.
    pub(super) free_regions: u64,
    /// Its first byte.
    pub(super) start: u64,
    /// Its bytes: whole pages.
    pub(super) size: u64,
    /// A bit for each region of a slab, set when it is free (bitmap.h: they are inverted); behind
    /// those, what was here before.
    pub(super) bitmap: [u64; 8],
}

impl Extent {
    /// Returns the byte behind it.
    pub(super) const fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Returns how many regions it has; `None` when no slab has as many.
    pub(super) fn regions(&self) -> Option<u64> {
        let regions = self.size.checked_div(class_size(self.class))?;
        (regions <= MOST_REGIONS).then_some(regions)
    }
}

/// Returns the size of a class (`sc.c`): 8, then four to each doubling.
pub(super) const fn class_size(class: u64) -> u64 {
    match class {
        0 => 8,
        1..=4 => [16, 32, 48, 64][class as usize - 1],
        5..CLASSES => {
            let (doubling, step) = ((class - 5) / 4, (class - 5) % 4 + 1);
            (64 << doubling) + step * (16 << doubling)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_four_to_a_doubling() {
        let first: Vec<u64> = (0..14).map(class_size).collect();
        assert_eq!(first, [8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]);
        assert_eq!([class_size(36), class_size(40)], [16 << 10, 32 << 10]);
        assert_eq!([class_size(231), class_size(232)], [7 << 60, 0]);
    }

    /// The bits of one extent in either layout.
    #[test]
    fn an_extent_reads_the_same_in_the_layout_that_wrote_it() {
        let mut bytes = [0; EXTENT];
        bytes[8..16].copy_from_slice(&0x7f00_0000_3000_u64.to_le_bytes());
        bytes[16..24].copy_from_slice(&0x1005_u64.to_le_bytes());
        bytes[64..72].copy_from_slice(&7_u64.to_le_bytes());
        for (layout, state_at, class_at) in [(Layout::V5_1, 16, 18), (Layout::V5_3, 17, 20)] {
            let bits: u64 = 5 | 1 << 12 | 8 << class_at | 3 << (class_at + 8);
            bytes[..8].copy_from_slice(&bits.to_le_bytes());
            let extent = layout.decode(&bytes);
            assert_eq!((extent.arena, extent.is_slab, extent.class), (5, true, 8));
            assert_eq!((extent.start, extent.size), (0x7f00_0000_3000, 0x1000));
            assert_eq!((extent.free_regions, extent.regions()), (3, Some(32)));
            let agrees = |leaf| layout.agrees(0x7f00_0000_3000, leaf, &extent);
            assert!(agrees(8 << 48 | 1) && !agrees(9 << 48 | 1) && !agrees(8 << 48));
            bytes[..8].copy_from_slice(&(2_u64 << state_at).to_le_bytes());
            assert_eq!(layout.decode(&bytes).state, State::Muzzy);
        }
    }
}
