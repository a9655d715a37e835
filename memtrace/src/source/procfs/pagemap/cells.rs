//! Where in the regions of a process its pages lie.

use std::{fs::File, io, ops::Range};

use super::{
    EXCLUSIVE, FILE_OR_SHARED, FRAME, IS_PRESENT, IS_ZERO, PRESENT, SWAPPED, ScanArgument,
    ZERO_PAGE, each_entry, each_region, flags_of,
};
use crate::{
    model::{
        build::RegionResidency,
        cells::{Cells, Filling, Grain},
        region_map::PAGE,
    },
    source::procfs::memory_dir,
};

/// `PAGE_IS_SWAPPED` (include/uapi/linux/fs.h).
const IS_SWAPPED: u64 = 1 << 4;
/// The largest region of which entries are read one by one, by kernels before 6.7: 64 GiB.
const LARGEST_READ: u64 = (64 << 30) / PAGE;

/// Says of regions, by their first byte, where their pages are, in no more than `most` cells together.
///
/// Errors: as for [`resident`](super::resident).
pub fn locate<'a>(
    tgid: u32,
    regions: impl Iterator<Item = (u64, &'a mut RegionResidency)>,
    most: u64,
) -> io::Result<()> {
    let pagemap = File::open(memory_dir(tgid) + "/pagemap")?;
    let mut regions: Vec<_> = regions.collect();
    let pages = |start: u64, region: &RegionResidency| region.end.saturating_sub(start) / PAGE;
    let grain = Grain::new(most, regions.iter().map(|(start, region)| pages(*start, region)));
    let mut zero = Zero::default();
    let mut can_scan = true;
    for (start, region) in &mut regions {
        let count = pages(*start, region);
        let mut found = Found::new(*start, count, grain.order(count));
        // Where there is nothing, nothing is read; what is counted apart (hugetlbfs) has no place here.
        if region.resident > 0 || region.swapped > 0 {
            let range = *start..region.end;
            if can_scan {
                match scan(&pagemap, range.clone(), &mut found) {
                    Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => can_scan = false,
                    scanned => scanned?,
                }
            }
            if !can_scan && count > LARGEST_READ {
                continue;
            }
            if !can_scan {
                read(&pagemap, range, &mut zero, &mut found)?;
            }
        }
        region.cells = Some(found.finish());
    }
    Ok(())
}

/// What was found in a region.
struct Found {
    start: u64,
    order: u32,
    resident: Filling,
    swapped: Filling,
}

impl Found {
    fn new(start: u64, pages: u64, order: u32) -> Self {
        let filling = Filling::new(order, pages);
        Self { start, order, resident: filling.clone(), swapped: filling }
    }

    fn pages(&self, bytes: Range<u64>) -> Range<u64> {
        (bytes.start - self.start) / PAGE..(bytes.end - self.start) / PAGE
    }

    fn finish(self) -> Cells {
        let Self { start: _, order, resident, swapped } = self;
        let (resident, swapped) = (resident.finish(), swapped.finish());
        Cells { order, resident, swapped, ..Cells::default() }
    }
}

fn scan(pagemap: &File, range: Range<u64>, found: &mut Found) -> io::Result<()> {
    let wanted = ScanArgument {
        category_anyof_mask: IS_PRESENT | IS_SWAPPED,
        return_mask: IS_PRESENT | IS_SWAPPED | IS_ZERO,
        ..ScanArgument::default()
    };
    each_region(pagemap, range, wanted, |region| {
        let pages = found.pages(region.start..region.end);
        if region.categories & IS_SWAPPED != 0 {
            found.swapped.add(pages, 1);
        } else if region.categories & IS_ZERO == 0 {
            found.resident.add(pages, 1);
        }
    })
}

fn read(pagemap: &File, range: Range<u64>, zero: &mut Zero, found: &mut Found) -> io::Result<()> {
    let first = range.start / PAGE;
    each_entry(pagemap, range, |page, entry| {
        let at = page - first;
        if entry & PRESENT == 0 {
            if entry & SWAPPED != 0 {
                found.swapped.add(at..at + 1, 1);
            }
        } else if !zero.is_behind(entry)? {
            found.resident.add(at..at + 1, 1);
        }
        Ok(())
    })
}

/// Knows the kernel's zero page.
#[derive(Default)]
struct Zero {
    flags: Option<File>,
    /// Its frame, once it was seen.
    frame: Option<u64>,
}

impl Zero {
    /// Tells whether it is behind an entry, which then looks anonymous and shared.
    fn is_behind(&mut self, entry: u64) -> io::Result<bool> {
        let frame = entry & FRAME;
        if entry & (FILE_OR_SHARED | EXCLUSIVE) != 0 {
            return Ok(false);
        }
        if self.frame == Some(frame) {
            return Ok(true);
        }
        let flags = match &self.flags {
            Some(flags) => flags,
            None => self.flags.insert(File::open("/proc/kpageflags")?),
        };
        let is_zero = flags_of(flags, frame)? & ZERO_PAGE != 0;
        if is_zero {
            self.frame = Some(frame);
        }
        Ok(is_zero)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A mapping of ours whose pages are, in turn, written, not touched, and only read.
    #[test]
    fn pages_are_found_where_they_are() -> io::Result<()> {
        const PAGES: u64 = 700;
        let (len, flags) = ((PAGES * PAGE) as usize, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, used inside its bounds, and unmapped.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        let is_written = |page: u64| !(page / 7).is_multiple_of(3) && page < 650;
        let is_read = |page: u64| (page / 7).is_multiple_of(6);
        // SAFETY: as above.
        unsafe {
            libc::madvise(start, len, libc::MADV_NOHUGEPAGE);
            for page in 0..PAGES {
                let at = start.cast::<u8>().add((page * PAGE) as usize);
                if is_written(page) {
                    at.write_volatile(1);
                } else if is_read(page) {
                    at.read_volatile();
                }
            }
        }
        let range = start as u64..start as u64 + len as u64;
        let wanted = |order: u32| {
            let mut filling = Filling::new(order, PAGES);
            for page in (0..PAGES).filter(|&page| is_written(page)) {
                filling.add(page..page + 1, 1);
            }
            filling.finish()
        };
        let resident = (0..PAGES).filter(|&page| is_written(page)).count() as u64 * PAGE;
        for (most, order) in [(1 << 10, 0), (700, 1), (100, 4)] {
            let known = RegionResidency { end: range.end, resident, ..RegionResidency::default() };
            let mut regions = HashMap::from([(range.start, known)]);
            locate(std::process::id(), regions.iter_mut().map(|(&s, region)| (s, region)), most)?;
            let cells = regions[&range.start].cells.clone().expect("they are known");
            assert_eq!((cells.order, &cells.resident), (order, &wanted(order)));
            assert_eq!(cells.resident.sum() * PAGE, resident);
            assert_eq!(cells.swapped.sum() + cells.free.sum(), 0);
        }
        // Frames are shown to root only.
        if nix::unistd::geteuid().is_root() {
            let mut found = Found::new(range.start, PAGES, 2);
            let pagemap = File::open("/proc/self/pagemap")?;
            read(&pagemap, range.clone(), &mut Zero::default(), &mut found)?;
            assert_eq!(found.finish().resident, wanted(2));
        }
        // SAFETY: as above.
        unsafe { libc::munmap(start, len) };
        Ok(())
    }
}
