//! A mapping and what is done to it.

use std::ptr;

use super::super::driver::PAGE;

/// A mapping of so many bytes.
#[derive(Clone, Copy)]
pub(crate) struct Mapped {
    pub(crate) start: *mut u8,
    pub(crate) len: usize,
}

/// Pages of a huge page.
pub(crate) const HUGE: u64 = 512;

pub(super) fn pages(pages: u64) -> usize {
    (pages * PAGE) as usize
}

impl Mapped {
    pub(crate) fn map(at: *mut u8, len: usize, flags: i32, fd: i32) -> Self {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, or one that replaces a mapping of ours.
        let start = unsafe { libc::mmap(at.cast(), len, prot, flags, fd, 0) };
        assert_ne!(start, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Self { start: start.cast(), len }
    }

    pub(crate) fn anon(count: u64) -> Self {
        Self::map(ptr::null_mut(), pages(count), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// New anonymous memory in huge pages, one behind the other; `count` of small ones.
    pub(crate) fn huge(count: u64) -> Self {
        let Self { start, .. } = Self::anon(count + HUGE);
        // SAFETY: stays inside the mapping, which has room for it.
        let start = unsafe { start.add(start.align_offset(pages(HUGE))) };
        Self { start, len: pages(count) }.advise(libc::MADV_HUGEPAGE).touch()
    }

    /// Unmaps half of each huge page: the half that begins at its page `from`.
    pub(crate) fn unmap_halves(self, from: u64) {
        for page in (from..self.len as u64 / PAGE).step_by(HUGE as usize) {
            self.part(page, HUGE / 2).unmap();
        }
    }

    pub(crate) fn part(self, from: u64, count: u64) -> Self {
        // SAFETY: stays inside the mapping.
        Self { start: unsafe { self.start.add(pages(from)) }, len: pages(count) }
    }

    pub(crate) fn touch(self) -> Self {
        for at in (0..self.len).step_by(PAGE as usize) {
            // SAFETY: inside the mapping, which is writable.
            unsafe { self.start.add(at).write_volatile(1) };
        }
        self
    }

    pub(crate) fn read(self) -> Self {
        for at in (0..self.len).step_by(PAGE as usize) {
            // SAFETY: inside the mapping, which is readable.
            unsafe { self.start.add(at).read_volatile() };
        }
        self
    }

    pub(crate) fn unmap(self) {
        // SAFETY: a mapping of ours that nobody uses any more.
        assert_eq!(unsafe { libc::munmap(self.start.cast(), self.len) }, 0);
    }

    pub(crate) fn advise(self, advice: i32) -> Self {
        // SAFETY: a mapping of ours whose contents do not matter.
        let done = unsafe { libc::madvise(self.start.cast(), self.len, advice) };
        assert_eq!(done, 0, "madvise: {}", std::io::Error::last_os_error());
        self
    }

    pub(crate) fn shared_anon(count: u64) -> Self {
        Self::map(ptr::null_mut(), pages(count), libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)
    }

    pub(super) fn lock(self) -> Self {
        // SAFETY: a mapping of ours.
        let done = unsafe { libc::mlock(self.start.cast(), self.len) };
        assert_eq!(done, 0, "mlock: {}", std::io::Error::last_os_error());
        self
    }

    /// Gives up all but the first pages with `mremap`.
    pub(super) fn shrink(self, count: u64) {
        // SAFETY: a mapping of ours; shrinking never moves it.
        let left = unsafe { libc::mremap(self.start.cast(), self.len, pages(count), 0) };
        assert_eq!(left, self.start.cast());
    }

    /// Puts a new mapping in its place.
    pub(super) fn map_over(self) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        Self::map(self.start, self.len, flags, -1);
    }
}
