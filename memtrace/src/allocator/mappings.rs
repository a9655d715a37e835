//! The regions of the walked process, for look-ups.

use crate::{
    model::{
        cells::Grain,
        region_map::{PAGE, flag},
    },
    source::procfs::Mapping,
};

/// The regions of a process, ascending.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    mappings: Vec<Mapping>,
    /// How finely is told where in them free memory is, if that is told.
    grain: Option<Grain>,
}

impl Mappings {
    /// Takes what `/proc/PID/maps` says.
    pub fn new(mut mappings: Vec<Mapping>) -> Self {
        mappings.sort_by_key(|mapping| mapping.start);
        Self { mappings, grain: None }
    }

    /// Asks for where in its regions free memory is, in no more cells than `most`.
    #[must_use]
    pub fn divided(mut self, most: u64) -> Self {
        self.grain = Some(Grain::new(most, self.mappings.iter().map(pages)));
        self
    }

    /// Returns the binary logarithm of the pages of a cell of a region; `None` where nobody asked.
    pub fn order(&self, mapping: &Mapping) -> Option<u32> {
        self.grain.map(|grain| grain.order(pages(mapping)))
    }

    /// Returns all of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Mapping> {
        self.mappings.iter()
    }

    /// Returns the region that holds an address.
    pub fn at(&self, address: u64) -> Option<&Mapping> {
        let index = self.mappings.partition_point(|mapping| mapping.end <= address);
        self.mappings.get(index).filter(|mapping| mapping.start <= address)
    }

    /// Tells whether an allocator may have put chunks here: private and writable.
    pub fn is_private_writable(&self, address: u64) -> bool {
        self.at(address).is_some_and(is_private_writable)
    }

    /// Returns the region that starts where another one ends.
    pub fn after(&self, mapping: &Mapping) -> Option<&Mapping> {
        self.at(mapping.end).filter(|next| next.start == mapping.end)
    }

    /// Returns what `brk` has moved: after a fork the heap may be several regions side by side.
    pub fn heap(&self) -> Option<std::ops::Range<u64>> {
        let mut heap = self.mappings.iter().filter(|mapping| mapping.name == "[heap]");
        let first = heap.next()?;
        Some(first.start..heap.fold(first.end, |end, mapping| end.max(mapping.end)))
    }

    /// Says that `brk` has moved the region that holds an address, and those that go on behind it, where
    /// nobody else says so.
    pub fn name_heap(&mut self, address: u64) {
        let first = self.mappings.partition_point(|mapping| mapping.end <= address);
        let mut end = self.mappings.get(first).map_or(0, |mapping| mapping.start);
        for mapping in self.mappings.iter_mut().skip(first) {
            let goes_on = mapping.start == end && mapping.name.is_empty();
            if !goes_on || !is_private_writable(mapping) {
                break;
            }
            "[heap]".clone_into(&mut mapping.name);
            end = mapping.end;
        }
    }

    /// Returns the writable data of a file that is mapped: what it holds, and the zeroed memory that
    /// follows it (`.data` and `.bss`).
    pub fn data_of(&self, is_wanted: impl Fn(&Mapping) -> bool) -> Vec<std::ops::Range<u64>> {
        let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
        for mapping in self.mappings.iter().filter(|m| is_private_writable(m) && is_wanted(m)) {
            let is_bss = |next: &&Mapping| next.name.is_empty() && is_private_writable(next);
            let end = self.after(mapping).filter(is_bss).map_or(mapping.end, |next| next.end);
            match ranges.last_mut() {
                Some(last) if last.end >= mapping.start => last.end = last.end.max(end),
                _ => ranges.push(mapping.start..end),
            }
        }
        ranges
    }
}

const fn pages(mapping: &Mapping) -> u64 {
    (mapping.end - mapping.start) / PAGE
}

/// Tells whether a region is private and writable.
pub fn is_private_writable(mapping: &Mapping) -> bool {
    mapping.flags & (flag::WRITE | flag::MAYSHARE) == flag::WRITE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::procfs::parse_smaps;

    const MAPS: &str = "1000-2000 r-xp 00000000 fe:01 7 /lib/libc.so.6\n\
                        2000-3000 rw-p 00001000 fe:01 7 /lib/libc.so.6\n\
                        3000-5000 rw-p 00000000 00:00 0\n\
                        6000-7000 rw-p 00000000 00:00 0 [heap]\n\
                        7000-9000 rw-p 00000000 00:00 0 [heap]\n\
                        a000-b000 rw-s 00000000 00:01 9 /dev/zero\n";

    #[test]
    fn an_address_is_found_in_its_region_only() {
        let mappings = Mappings::new(parse_smaps(MAPS));
        assert_eq!(mappings.at(0x4fff).map(|m| m.start), Some(0x3000));
        assert_eq!(mappings.at(0x5000), None);
        assert!(mappings.is_private_writable(0x2000));
        assert!(!mappings.is_private_writable(0x1000) && !mappings.is_private_writable(0xa000));
    }

    #[test]
    fn data_goes_on_in_the_zeroed_memory_behind_it() {
        let mappings = Mappings::new(parse_smaps(MAPS));
        assert_eq!(mappings.data_of(|m| m.path() == "/lib/libc.so.6"), vec![0x2000..0x5000]);
    }

    #[test]
    fn a_heap_that_is_found_goes_on_as_far_as_memory_does() {
        let mut mappings = Mappings::new(parse_smaps(&MAPS.replace("[heap]", "")));
        mappings.name_heap(0x6010);
        assert_eq!(mappings.heap(), Some(0x6000..0x9000));
        mappings.name_heap(0x1000);
        assert_eq!(mappings.heap(), Some(0x6000..0x9000));
    }

    #[test]
    fn the_heap_may_be_several_regions() {
        assert_eq!(Mappings::new(parse_smaps(MAPS)).heap(), Some(0x6000..0x9000));
    }
}
