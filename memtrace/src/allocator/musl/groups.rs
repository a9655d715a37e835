//! The groups of slots that mallocng has, read from its `meta_area`s: its books stand apart from the
//! heap, which is not read at all.

use std::{io, ops::Range};

use super::find::Context;
use crate::{
    allocator::{
        mappings::{Mappings, is_private_writable},
        memory::ReadMemory,
    },
    model::region_map::PAGE,
};

/// Header of a group, and the unit of sizes (`UNIT`, src/malloc/mallocng/meta.h, 1.2.3).
const UNIT: u64 = 16;
/// Header of a `meta_area`, and a `struct meta`, in words.
const AREA_HEAD: usize = 3;
const META: usize = 5;
/// `struct meta`s of an area.
const METAS: usize = (PAGE as usize / 8 - AREA_HEAD) / META;
/// The class of what is a mapping of its own.
const MAPPED: u8 = 63;
/// Sizes of slots (src/malloc/mallocng/malloc.c, 1.2.3), in units.
const SIZE_CLASSES: [u64; 48] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 31, 36, 42, 50, 63, 72, 84, 102, 127, 146,
    170, 204, 255, 292, 340, 409, 511, 584, 682, 818, 1023, 1169, 1364, 1637, 2047, 2340, 2730,
    3276, 4095, 4680, 5460, 6552, 8191,
];

/// A group of slots of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Its first byte.
    pub(super) start: u64,
    /// Pages that it has, 0 when it lies in a slot of another group or in memory that was left over.
    pages: u64,
    /// Bits of its free slots.
    free: u32,
    last: u8,
    class: u8,
}

impl Group {
    /// Reads a `struct meta`; `None` for one that is not in use, or makes no sense.
    fn read(words: &[u64]) -> Option<Self> {
        let (start, bits) = (words[2], words[4]);
        let (last, class) = ((bits & 31) as u8, (bits >> 6 & 63) as u8);
        let is_class = class == MAPPED && last == 0 || usize::from(class) < SIZE_CLASSES.len();
        if start == 0 || start % UNIT != 0 || !is_class {
            return None;
        }
        let pages = bits >> 12;
        let slots = u32::MAX >> (31 - last);
        let free = (words[3] as u32 | (words[3] >> 32) as u32) & slots;
        let group = Self { start, pages, free, last, class };
        let needed = UNIT.checked_add(group.slot()?.checked_mul(u64::from(last) + 1)?)?;
        let fits = pages == 0 && class != MAPPED || needed <= pages.checked_mul(PAGE)?;
        start.checked_add(group.len())?;
        fits.then_some(group)
    }

    /// Returns the bytes of a slot (`get_stride`).
    fn slot(&self) -> Option<u64> {
        if self.last == 0 && self.pages > 0 {
            return self.pages.checked_mul(PAGE)?.checked_sub(UNIT);
        }
        SIZE_CLASSES.get(usize::from(self.class)).map(|units| units * UNIT)
    }

    /// Returns its bytes.
    fn len(&self) -> u64 {
        match self.pages {
            0 => UNIT + self.slot().unwrap_or(0) * (u64::from(self.last) + 1),
            pages => pages.saturating_mul(PAGE),
        }
    }

    /// Returns the first byte behind it.
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.len())
    }

    /// Takes its first free slot out of it.
    pub(super) fn take_free(&mut self) -> Option<Range<u64>> {
        if self.free == 0 {
            return None;
        }
        let index = self.free.trailing_zeros();
        self.free &= self.free - 1;
        let slot = self.slot()?;
        let start = self.start + UNIT + slot * u64::from(index);
        Some(start..start + slot)
    }

    /// Returns its first free slot.
    pub(super) fn next_free(&self) -> Option<Range<u64>> {
        Self::take_free(&mut { *self })
    }

    /// Returns the pages of a slot that are given back when it is freed, by `MADV_FREE`
    /// (src/malloc/mallocng/free.c, 1.2.1 to 1.2.3).
    pub(super) fn given_back(&self, slot: &Range<u64>) -> Range<u64> {
        /// What every slot keeps at its end (`IB`).
        const TAIL: u64 = 4;
        let end = slot.end - TAIL;
        if self.last == 0 || ((slot.start - 1) ^ end) < 2 * PAGE {
            return slot.end..slot.end;
        }
        slot.start.next_multiple_of(PAGE)..end & !(PAGE - 1)
    }

    /// Tells whether it is made of whole pages, or of memory that was left over.
    pub(super) fn has_pages(&self) -> bool {
        self.pages > 0
    }
}

/// Groups, ascending.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The first of those that were asked for.
    pub(super) groups: Vec<Group>,
    /// There are more behind them.
    pub(super) are_cut: bool,
    /// Areas that were read.
    pub(super) areas: u64,
}

/// Reads the first `most` groups that start at `from` or behind.
pub(super) fn read<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    context: Context,
    from: u64,
    most: usize,
) -> io::Result<Groups> {
    let most_areas = mappings.iter().map(|mapping| (mapping.end - mapping.start) / PAGE).sum();
    let mut found = Groups::default();
    let mut area = context.areas;
    while area != 0 && found.areas < most_areas {
        let Some(words) = memory.words(area, PAGE as usize / 8)? else { break };
        if words[0] != context.secret {
            break;
        }
        let count = (words[2] as u32 as usize).min(METAS);
        for meta in words[AREA_HEAD..].chunks_exact(META).take(count) {
            let is_wanted = |group: &Group| group.start >= from && is_mapped(mappings, group);
            found.groups.extend(Group::read(meta).filter(is_wanted));
        }
        if found.groups.len() >= 2 * most {
            found.keep(most);
        }
        found.areas += 1;
        // An area lies at the first byte of a page.
        area = if words[1] % PAGE == 0 { words[1] } else { 0 };
    }
    found.keep(most);
    found.groups.sort_unstable_by_key(|group| group.start);
    Ok(found)
}

/// Tells whether a group lies in memory that an allocator may have.
fn is_mapped(mappings: &Mappings, group: &Group) -> bool {
    let mut next = mappings.at(group.start);
    while let Some(mapping) = next.filter(|mapping| is_private_writable(mapping)) {
        if group.end() <= mapping.end {
            return true;
        }
        next = mappings.after(mapping);
    }
    false
}

impl Groups {
    fn keep(&mut self, most: usize) {
        if self.groups.len() > most {
            self.groups.select_nth_unstable_by_key(most, |group| group.start);
            self.groups.truncate(most);
            self.are_cut = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(start: u64, masks: u64, last: u64, class: u64, pages: u64) -> [u64; 5] {
        [0, 0, start, masks, last | 1 << 5 | class << 6 | pages << 12]
    }

    #[test]
    fn free_slots_are_those_of_both_masks() {
        // Ten slots of 48 bytes: the second may be handed out, the fourth was freed.
        let mut group = Group::read(&meta(0x1000, 2 | 8 << 32, 9, 2, 0)).unwrap();
        assert_eq!(group.end(), 0x1000 + 16 + 480);
        assert_eq!(group.next_free(), Some(0x1040..0x1070));
        assert_eq!(group.take_free(), Some(0x1040..0x1070));
        assert_eq!(group.take_free(), Some(0x10a0..0x10d0));
        assert_eq!(group.take_free(), None);
    }

    #[test]
    fn a_single_slot_has_all_pages_but_the_header() {
        let group = Group::read(&meta(0x1000, 1, 0, 20, 2)).unwrap();
        assert_eq!(group.next_free(), Some(0x1010..0x3000));
        assert!(group.given_back(&(0x1010..0x3000)).is_empty());
    }

    #[test]
    fn only_slots_of_pages_are_given_back() {
        // Two slots of 16368 bytes.
        let mut group = Group::read(&meta(0x1000, 1 | 2 << 32, 1, 35, 8)).unwrap();
        let slots = [group.take_free().unwrap(), group.take_free().unwrap()];
        assert_eq!(group.given_back(&slots[0]), 0x2000..0x4000);
        assert_eq!(group.given_back(&slots[1]), 0x5000..0x8000);
    }

    #[test]
    fn what_makes_no_sense_is_no_group() {
        assert_eq!(Group::read(&meta(0, 0, 0, 2, 0)), None);
        assert_eq!(Group::read(&meta(0x1008, 0, 0, 2, 0)), None);
        assert_eq!(Group::read(&meta(0x1000, 0, 0, 48, 1)), None);
        assert_eq!(Group::read(&meta(0x1000, 0, 1, 63, 1)), None);
        // 32 slots of 128 bytes and the header do not fit in one page.
        assert_eq!(Group::read(&meta(0x1000, 0, 31, 7, 1)), None);
        assert_eq!(Group::read(&[u64::MAX; 5]), None);
        assert_eq!(Group::read(&meta(!15, 0, 0, 63, u64::MAX >> 12)), None);
    }
}
