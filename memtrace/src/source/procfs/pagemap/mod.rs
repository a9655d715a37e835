//! Which pages are resident, by the page tables themselves: `PAGEMAP_SCAN` (6.7), or
//! `/proc/PID/pagemap` (Documentation/admin-guide/mm/pagemap.rst).

mod cells;

use std::{
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
};

pub use cells::locate;

use super::memory_dir;
use crate::model::region_map::PAGE;

/// Resident pages, the kernel's zero page not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentPages {
    /// Of files and tmpfs.
    pub file: u64,
    /// Anonymous.
    pub anon: u64,
}

/// Counts the resident pages of a process in `ranges` of bytes.
///
/// Errors: `EPERM` or `EACCES` without the right to read another's page tables.
pub fn resident(
    tgid: u32,
    ranges: impl IntoIterator<Item = Range<u64>>,
) -> io::Result<ResidentPages> {
    let mut pages = ResidentPages::default();
    each(tgid, ranges, |found| {
        pages.file += found.file;
        pages.anon += found.anon;
    })?;
    Ok(pages)
}

/// Counts the resident pages of a process in each of `ranges`.
///
/// Errors: as [`resident`].
pub fn each(
    tgid: u32,
    ranges: impl IntoIterator<Item = Range<u64>>,
    mut found: impl FnMut(ResidentPages),
) -> io::Result<()> {
    let pagemap = File::open(memory_dir(tgid) + "/pagemap")?;
    let mut can_scan = true;
    for range in ranges {
        let mut pages = ResidentPages::default();
        if can_scan {
            match scan(&pagemap, range.clone(), &mut pages) {
                Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => can_scan = false,
                scanned => scanned?,
            }
        }
        if !can_scan {
            read(&pagemap, range, &mut pages)?;
        }
        found(pages);
    }
    Ok(())
}

/// `PAGE_IS_FILE`, `PAGE_IS_PRESENT`, `PAGE_IS_PFNZERO` (include/uapi/linux/fs.h).
const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_ZERO: u64 = 1 << 5;

/// `PAGE_IS_HUGE`.
const IS_HUGE: u64 = 1 << 6;

/// Tells whether a page is part of a huge page that is mapped as a whole. Before Linux 6.7 nobody does.
pub fn is_huge(pagemap: &File, page: u64) -> bool {
    let wanted =
        ScanArgument { category_mask: IS_HUGE, return_mask: IS_HUGE, ..ScanArgument::default() };
    let mut is_huge = false;
    each_region(pagemap, page..page + PAGE, wanted, |_| is_huge = true).is_ok() && is_huge
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `PAGEMAP_SCAN`: `_IOWR('f', 16, struct pm_scan_arg)`.
const SCAN: libc::c_ulong = 3 << 30
    | (size_of::<ScanArgument>() as libc::c_ulong) << 16
    | (b'f' as libc::c_ulong) << 8
    | 16;

fn scan(pagemap: &File, range: Range<u64>, pages: &mut ResidentPages) -> io::Result<()> {
    let wanted = ScanArgument {
        category_inverted: IS_ZERO,
        category_mask: IS_PRESENT | IS_ZERO,
        return_mask: IS_FILE | IS_PRESENT,
        ..ScanArgument::default()
    };
    each_region(pagemap, range, wanted, |region| {
        let here = (region.end - region.start) / PAGE;
        let is_file = region.categories & IS_FILE != 0;
        *(if is_file { &mut pages.file } else { &mut pages.anon }) += here;
    })
}

/// Calls `each` with the regions of a range that are of the categories `wanted`.
///
/// Errors: `ENOTTY` before Linux 6.7.
fn each_region(
    pagemap: &File,
    range: Range<u64>,
    wanted: ScanArgument,
    mut each: impl FnMut(&PageRegion),
) -> io::Result<()> {
    let mut found = [PageRegion::default(); 256];
    let mut argument = ScanArgument {
        size: size_of::<ScanArgument>() as u64,
        start: range.start,
        end: range.end,
        vec: found.as_mut_ptr() as u64,
        vec_len: found.len() as u64,
        ..wanted
    };
    while argument.start < range.end {
        // SAFETY: the argument, and the vector that it names, live for the whole call.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), SCAN, &raw mut argument) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        found[..count].iter().for_each(&mut each);
        if argument.walk_end <= argument.start {
            break;
        }
        argument.start = argument.walk_end;
    }
    Ok(())
}

/// Returns the addresses of the pages of a range behind which the kernel's zero page is. Before Linux
/// 6.7 that takes root; without it none is known.
pub fn zero_pages(pagemap: &File, range: Range<u64>) -> io::Result<Vec<u64>> {
    let mut zero = Vec::new();
    let wanted =
        ScanArgument { category_mask: IS_ZERO, return_mask: IS_ZERO, ..ScanArgument::default() };
    let scanned = each_region(pagemap, range.clone(), wanted, |region| {
        zero.extend((region.start..region.end).step_by(PAGE as usize));
    });
    match scanned {
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => zero_frames(pagemap, range),
        scanned => scanned.map(|()| zero),
    }
}

/// The same by the flags of the frames.
fn zero_frames(pagemap: &File, range: Range<u64>) -> io::Result<Vec<u64>> {
    let Ok(flags) = File::open("/proc/kpageflags") else { return Ok(Vec::new()) };
    let mut zero = Vec::new();
    each_entry(pagemap, range, |page, entry| {
        let may_be = entry & (PRESENT | FILE_OR_SHARED) == PRESENT && entry & FRAME != 0;
        if may_be && flags_of(&flags, entry & FRAME)? & ZERO_PAGE != 0 {
            zero.push(page * PAGE);
        }
        Ok(())
    })?;
    Ok(zero)
}

/// There is a frame, by an entry of `/proc/PID/pagemap`.
pub const PRESENT: u64 = 1 << 63;
/// The page is in swap.
pub const SWAPPED: u64 = 1 << 62;
/// The frame is of a file or of tmpfs.
pub const FILE_OR_SHARED: u64 = 1 << 61;
/// Nobody else has mapped the frame.
pub const EXCLUSIVE: u64 = 1 << 56;
/// Number of the frame, which root sees.
const FRAME: u64 = (1 << 55) - 1;
/// `KPF_ZERO_PAGE` of `/proc/kpageflags`.
const ZERO_PAGE: u64 = 1 << 24;

fn read(pagemap: &File, range: Range<u64>, pages: &mut ResidentPages) -> io::Result<()> {
    let flags = File::open("/proc/kpageflags")?;
    each_entry(pagemap, range, |_, entry| {
        if entry & PRESENT == 0 {
            return Ok(());
        }
        // The zero page looks anonymous.
        if entry & FILE_OR_SHARED != 0 {
            pages.file += 1;
        } else if flags_of(&flags, entry & FRAME)? & ZERO_PAGE == 0 {
            pages.anon += 1;
        }
        Ok(())
    })
}

/// Calls `each` with the number of each page of a range and its entry in the page table, up to the end of
/// address spaces.
pub fn each_entry(
    pagemap: &File,
    range: Range<u64>,
    mut each: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let (mut page, end) = (range.start / PAGE, range.end / PAGE);
    let mut bytes = vec![0; 8 * end.saturating_sub(page).min(4096) as usize];
    while page < end {
        let wanted = bytes.len().min((end - page) as usize * 8);
        let len = pagemap.read_at(&mut bytes[..wanted], page * 8)?;
        if len < 8 {
            break;
        }
        for entry in bytes[..len].chunks_exact(8) {
            each(page, u64::from_ne_bytes(entry.try_into().unwrap_or_default()))?;
            page += 1;
        }
    }
    Ok(())
}

/// Pages of a huge page.
const HUGE_PAGES: u64 = 512;
/// `KPF_ANON`, `KPF_COMPOUND_HEAD`, `KPF_COMPOUND_TAIL` and `KPF_THP` of `/proc/kpageflags`
/// (include/uapi/linux/kernel-page-flags.h).
const ANON: u64 = 1 << 12;
const HEAD: u64 = 1 << 15;
const TAIL: u64 = 1 << 16;
const HUGE: u64 = 1 << 22;

/// Counts the frames of huge pages that a process has mapped only in part, in `ranges` of bytes: the
/// frames that it has not mapped, and that nobody gets before it gives up the others.
///
/// Errors: as for [`resident`].
pub fn held_by_huge_pages(
    tgid: u32,
    ranges: impl IntoIterator<Item = Range<u64>>,
) -> io::Result<u64> {
    let pagemap = File::open(memory_dir(tgid) + "/pagemap")?;
    let flags = File::open("/proc/kpageflags")?;
    // Mapped pages by huge frame, of those that lie as the pages of a huge page would.
    let mut mapped: HashMap<u64, u64> = HashMap::new();
    for range in ranges {
        each_entry(&pagemap, range, |page, entry| {
            let frame = entry & FRAME;
            let is_mine = entry & PRESENT != 0 && entry & FILE_OR_SHARED == 0;
            if is_mine && page % HUGE_PAGES == frame % HUGE_PAGES {
                *mapped.entry(frame / HUGE_PAGES).or_insert(0) += 1;
            }
            Ok(())
        })?;
    }
    let mut held = 0;
    for (frame, pages) in mapped {
        if pages < HUGE_PAGES && is_huge_page(&block(&flags, frame)?) {
            held += HUGE_PAGES - pages;
        }
    }
    Ok(held)
}

/// Returns the word of `/proc/kpageflags` about a frame.
fn flags_of(flags: &File, frame: u64) -> io::Result<u64> {
    let mut word = [0; 8];
    flags.read_exact_at(&mut word, frame * 8)?;
    Ok(u64::from_ne_bytes(word))
}

/// Returns the words of `/proc/kpageflags` about the frames that a huge frame has, or would have.
fn block(flags: &File, huge_frame: u64) -> io::Result<[u64; HUGE_PAGES as usize]> {
    let mut bytes = [0; HUGE_PAGES as usize * 8];
    flags.read_exact_at(&mut bytes, huge_frame * HUGE_PAGES * 8)?;
    let mut words = [0; HUGE_PAGES as usize];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
    }
    Ok(words)
}

/// Whether a block of frames is one anonymous huge page. The kernel says `KPF_THP` of smaller large
/// folios too, those of files among them (fs/proc/page.c): one head and only tails make it one.
fn is_huge_page(block: &[u64; HUGE_PAGES as usize]) -> bool {
    let has = |word: u64, flags: u64| word & flags == flags;
    let [head, tails @ ..] = block;
    has(*head, HEAD | HUGE | ANON) && tails.iter().all(|&tail| has(tail, TAIL) && tail & HEAD == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mapping of ours: four pages, of which two are written and one only read.
    #[test]
    fn written_pages_are_resident_and_the_zero_page_is_not() -> io::Result<()> {
        let (len, flags) = (4 * PAGE as usize, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, used inside its bounds, and unmapped.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: as above.
        unsafe {
            libc::madvise(start, len, libc::MADV_NOHUGEPAGE);
            start.cast::<u8>().write_volatile(1);
            start.cast::<u8>().add(2 * PAGE as usize).write_volatile(1);
            start.cast::<u8>().add(3 * PAGE as usize).read_volatile();
        }
        let range = start as u64..start as u64 + len as u64;
        let wanted = ResidentPages { file: 0, anon: 2 };
        assert_eq!(resident(std::process::id(), [range.clone()])?, wanted);
        // Frames are shown to root only.
        if nix::unistd::geteuid().is_root() {
            let mut pages = ResidentPages::default();
            read(&File::open("/proc/self/pagemap")?, range, &mut pages)?;
            assert_eq!(pages, wanted);
        }
        // SAFETY: as above.
        unsafe { libc::munmap(start, len) };
        Ok(())
    }

    #[test]
    fn smaller_folios_side_by_side_are_no_huge_page() {
        let mut block = [TAIL | HUGE | ANON; HUGE_PAGES as usize];
        block[0] = HEAD | HUGE | ANON;
        assert!(is_huge_page(&block));
        // Of 256 frames each.
        block[256] = HEAD | HUGE | ANON;
        assert!(!is_huge_page(&block));
        // A large folio, and pages.
        block[4..].fill(ANON);
        assert!(!is_huge_page(&block));
        // Of a file.
        block.fill(TAIL | HUGE);
        block[0] = HEAD | HUGE;
        assert!(!is_huge_page(&block));
    }

    /// Of a huge page the first quarter is given up.
    #[test]
    fn the_rest_of_a_huge_page_holds_what_was_unmapped() -> io::Result<()> {
        const BYTES: usize = (HUGE_PAGES * PAGE) as usize;
        let (len, flags) = (2 * BYTES, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, used inside its bounds, and unmapped.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        let huge = start as usize + start.align_offset(BYTES);
        let range = huge as u64..(huge + BYTES) as u64;
        // SAFETY: as above.
        unsafe {
            libc::madvise(huge as *mut _, BYTES, libc::MADV_HUGEPAGE);
            (huge as *mut u8).write_volatile(1);
        }
        let is_one = resident(std::process::id(), [range.clone()])?.anon == HUGE_PAGES;
        // Frames are shown to root only, and huge pages may be off or not to be had.
        if is_one && nix::unistd::geteuid().is_root() {
            assert_eq!(held_by_huge_pages(std::process::id(), [range.clone()])?, 0);
            // SAFETY: as above.
            unsafe { libc::madvise(huge as *mut _, BYTES / 4, libc::MADV_DONTNEED) };
            let held = held_by_huge_pages(std::process::id(), [range])?;
            assert_eq!(held, HUGE_PAGES / 4);
        }
        // SAFETY: as above.
        unsafe { libc::munmap(start, len) };
        Ok(())
    }
}
