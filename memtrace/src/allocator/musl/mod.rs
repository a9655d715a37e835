//! musl's mallocng, 1.2.1 to 1.2.5, dynamic and static, found without symbols.
//!
//! Reading order: `find` (`__malloc_context`), `groups` (what its books say), `sweep` (what lies on
//! each page). It has nothing like `malloc_trim`.

mod find;
mod groups;
mod sweep;

use std::collections::BTreeMap;

use self::sweep::Sweep;
use super::{
    mappings::Mappings,
    memory::ReadMemory,
    walked::{Unwalked, Walked},
};
use crate::model::region_map::PAGE;

/// Its name in every output.
pub const NAME: &str = "musl";

pub use find::{is_musl, patch_version};

/// Groups that are kept at once: 24 bytes each, and twice as many while they are chosen.
const MOST_GROUPS: usize = 1 << 18;

/// What to know beside the memory.
#[derive(Clone, Debug, Default)]
pub struct About<'a> {
    /// The executable, whose data is searched where no C library is mapped: it may be linked statically.
    pub exe: Option<&'a str>,
    /// The third part of its version 1.2, as its file says.
    pub patch: Option<u32>,
}

/// Walks the groups of a process.
///
/// Errors: it does not use mallocng; it cannot be read.
pub fn walk<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    about: &About<'_>,
) -> Result<Walked, Unwalked> {
    let mut data = mappings.data_of(|mapping| is_musl(mapping.path()));
    if data.is_empty() && !mappings.iter().any(|mapping| super::glibc::is_libc(mapping.path())) {
        data = mappings.data_of(|mapping| Some(mapping.path()) == about.exe);
    }
    let Some(context) = find::context(memory, mappings, &data)? else {
        return Err(Unwalked::NotUsed(NAME));
    };
    // 1.2.4 gives no part of a group back.
    let gives_back = about.patch.map(|patch| patch < 4);
    let mut sweep = Sweep::new(memory, mappings, gives_back);
    let mut from = 0;
    let areas = loop {
        let found = groups::read(memory, mappings, context, from, MOST_GROUPS)?;
        for group in &found.groups {
            sweep.enter(*group)?;
        }
        match found.groups.last() {
            Some(last) if found.are_cut => from = last.start.saturating_add(1),
            _ => break found.areas,
        }
    };
    let found = sweep.finish()?;
    let mut walked = Walked { name: NAME, ..Walked::default() };
    walked.version = about.patch.map(|patch| format!("1.2.{patch}"));
    walked.system = found.system + areas * PAGE;
    walked.free = BTreeMap::from([("slots", found.free)]);
    walked.settle();
    walked.resyncs = found.torn;
    walked.is_lower_bound = found.unsure > 0;
    walked.free_resident = Some(found.pages.free);
    walked.add_regions(&found.pages);
    Ok(walked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        allocator::image::{Image, random},
        source::procfs::parse_smaps,
    };

    const MAPS: &str = "10000-11000 rw-p 00000000 fe:01 7 /lib/ld-musl-x86_64.so.1\n\
                        11000-13000 rw-p 00000000 00:00 0 [heap]\n\
                        13000-1d000 rw-p 00000000 00:00 0\n";
    const SECRET: u64 = 0x1234_5678_9abc_def1;

    fn meta(start: u64, masks: u64, last: u64, class: u64, pages: u64) -> [u64; 5] {
        [0, 0, start, masks, last | 1 << 5 | class << 6 | pages << 12]
    }

    /// A context, and an area of groups.
    fn image(groups: &[[u64; 5]]) -> Image {
        let mut image = Image::default();
        image.touch(0x10000..0x1d000);
        image.write(0x10100, &[SECRET, 1, 0, 0, 0, 0, 0, 0x11000, 0x11000]);
        image.write(0x11000, &[SECRET, 0, 101]);
        for (at, group) in groups.iter().enumerate() {
            image.write(0x11018 + 40 * at as u64, group);
        }
        image
    }

    fn walk_image(image: &Image, patch: Option<u32>) -> Result<Walked, Unwalked> {
        let mappings = Mappings::new(parse_smaps(MAPS));
        walk(image, &mappings, &About { exe: None, patch })
    }

    #[test]
    fn groups_in_slots_of_others_are_counted_once() {
        let outer = meta(0x13000, 2 << 32, 1, 35, 8);
        let inner = meta(0x13010, 1 | 4 << 32, 3, 15, 0);
        let image = image(&[outer, inner]);
        let walked = walk_image(&image, Some(5)).unwrap();
        assert_eq!(walked.system, 9 * PAGE);
        assert_eq!(walked.free["slots"], 2 * 496 + 16368);
        assert_eq!(walked.in_use, 9 * PAGE - 2 * 496 - 16368);
        assert_eq!(walked.free_resident, Some(2 * 496 + 16368));
        assert_eq!(walked.free_by_region, BTreeMap::from([(0x13000, 2 * 496 + 16368)]));
        assert!(!walked.is_lower_bound);
    }

    #[test]
    fn what_was_given_back_is_free_but_not_resident() {
        let image = image(&[meta(0x13000, 2 << 32, 1, 35, 8)]);
        let walked = walk_image(&image, Some(3)).unwrap();
        assert_eq!(walked.free["slots"], 16368);
        // The pages from 0x18000 to 0x1b000, less the last, which ends behind the slot.
        assert_eq!(walked.free_resident, Some(16368 - 3 * PAGE));
        let unknown = walk_image(&image, None).unwrap();
        assert!(unknown.is_lower_bound && !walked.is_lower_bound);
    }

    #[test]
    fn groups_that_overlap_are_passed_over() {
        let image = image(&[meta(0x13000, 1, 1, 35, 8), meta(0x18010, 1, 31, 15, 4)]);
        let walked = walk_image(&image, Some(5)).unwrap();
        assert_eq!((walked.resyncs, walked.system), (1, 9 * PAGE));
        assert_eq!(walked.free_bytes(), 16368);
    }

    #[test]
    fn nothing_is_found_without_the_secret() {
        let mut image = image(&[]);
        image.write(0x11000, &[SECRET + 1]);
        assert!(matches!(walk_image(&image, None), Err(Unwalked::NotUsed(NAME))));
    }

    #[test]
    fn any_books_give_a_value() {
        let mut random = random(88_172_645_463_325_252);
        for round in 0..2000 {
            let mut image = image(&[]);
            for at in (0x11018..0x12000).step_by(8) {
                // Addresses and small numbers too, so that some make sense.
                let word = match random() % 4 {
                    0 => random(),
                    1 => 0x13000 + random() % 0x8000 / 16 * 16,
                    2 => random() % (1 << 16),
                    _ => random() >> (random() % 64),
                };
                image.write(at, &[word]);
            }
            if round % 2 == 0 {
                image.write(0x11008, &[random() % 0x30 * PAGE]);
            }
            if let Ok(walked) = walk_image(&image, Some((random() % 6) as u32)) {
                assert!(walked.free_bytes() <= walked.system, "{walked:?}");
                assert!(walked.free_resident <= Some(walked.free_bytes()), "{walked:?}");
            }
        }
    }
}
