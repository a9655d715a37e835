//! Which bytes of a slab are free, page by page.

use std::ops::Range;

use super::layout::{Extent, class_size};
use crate::model::region_map::PAGE;

/// Calls `each` with the first byte of each page of a slab, and how many bytes of it are free regions'.
pub(super) fn each_page(slab: &Extent, mut each: impl FnMut(u64, u64)) {
    let size = class_size(slab.class);
    let Some(regions) = slab.regions().filter(|_| size > 0) else { return };
    for page in (0..slab.size).step_by(PAGE as usize) {
        let end = page + PAGE;
        let first = page / size;
        let last = end.div_ceil(size).min(regions);
        let mut free = count(&slab.bitmap, first..last) * size;
        // What the first and the last of them have on other pages.
        if first < last && is_free(&slab.bitmap, first) {
            free -= page - first * size;
        }
        if first < last && is_free(&slab.bitmap, last - 1) {
            free -= (last * size).saturating_sub(end);
        }
        each(slab.start + page, free);
    }
}

/// Counts the free regions of a slab: those that it can have.
pub(super) fn free_regions(slab: &Extent) -> u64 {
    slab.regions().map_or(0, |regions| count(&slab.bitmap, 0..regions))
}

fn is_free(bitmap: &[u64; 8], region: u64) -> bool {
    bitmap[(region / 64) as usize] >> (region % 64) & 1 != 0
}

fn count(bitmap: &[u64; 8], regions: Range<u64>) -> u64 {
    let below = |end: u64| {
        let whole = &bitmap[..(end / 64) as usize];
        let rest = match end % 64 {
            0 => 0,
            bits => bitmap[(end / 64) as usize] & ((1 << bits) - 1),
        };
        whole.iter().chain([&rest]).map(|group| u64::from(group.count_ones())).sum::<u64>()
    };
    below(regions.end).saturating_sub(below(regions.start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::jemalloc::layout::State;

    fn slab(class: u64, pages: u64, bitmap: [u64; 8]) -> Extent {
        let (start, size) = (0x10000, pages * PAGE);
        let (is_slab, state) = (true, State::Active);
        Extent { arena: 0, is_slab, state, class, free_regions: 0, start, size, bitmap }
    }

    /// Every region of every class that has slabs, against a count byte by byte.
    #[test]
    fn pages_have_the_bytes_of_their_free_regions() {
        for class in 0..=35 {
            let size = class_size(class);
            let pages =
                (1..=8).find(|pages| (pages * PAGE).is_multiple_of(size)).expect("a slab is whole");
            for seed in [0, 1, u64::MAX, 0x5555_5555_5555_5555, 0xf0f1_7373_aa0e_11c4] {
                let slab = slab(class, pages, [seed; 8]);
                let mut slow = vec![0; pages as usize];
                for byte in 0..pages * PAGE {
                    slow[(byte / PAGE) as usize] += u64::from(is_free(&[seed; 8], byte / size));
                }
                let mut fast = Vec::new();
                each_page(&slab, |_, free| fast.push(free));
                assert_eq!(fast, slow, "class {class}, {seed:x}");
                assert_eq!(free_regions(&slab) * size, slow.iter().sum::<u64>());
            }
        }
    }

    #[test]
    fn a_slab_that_cannot_be_has_no_free_regions() {
        each_page(&slab(0, 2, [u64::MAX; 8]), |_, _| panic!("it has too many"));
        each_page(&slab(232, 1, [u64::MAX; 8]), |_, _| panic!("it has no class"));
        assert_eq!(free_regions(&slab(0, 2, [u64::MAX; 8])), 0);
    }
}
