//! What the victim does to its memory.

use std::ptr;

use super::{HEAP_PAGES, PAGE, SLOTS, Victim, WINDOW, WINDOW_PAGES};

/// `PR_SET_VMA` and `PR_SET_VMA_ANON_NAME` (include/uapi/linux/prctl.h).
const PR_SET_VMA: i32 = 0x5356_4d41;
/// `mseal(2)` on x86-64, from 6.10.
const SYS_MSEAL: i64 = 462;

impl Victim {
    pub(super) fn keep(&mut self, start: usize, pages: usize) {
        if start.wrapping_sub(WINDOW) < WINDOW_PAGES * PAGE {
            return;
        }
        let slot = self.next_slot % SLOTS;
        self.next_slot += 1;
        let (old, old_pages) = self.slots[slot];
        if old_pages > 0 {
            // SAFETY: a mapping of ours that nobody dereferences.
            unsafe { libc::munmap(old as *mut _, old_pages * PAGE) };
        }
        self.slots[slot] = (start, pages);
    }

    pub(super) fn map(&mut self, a: u32, b: u32, c: u32, d: u32) {
        let (at, pages) = window(a, b);
        let (place, at) = match d % 8 {
            0 | 1 => (0, 0),
            2 => (0, at),
            3..6 => (libc::MAP_FIXED, at),
            6 => (libc::MAP_FIXED_NOREPLACE, at),
            // `EINVAL`.
            _ => (libc::MAP_FIXED, at + 1),
        };
        let backing = (d >> 3) % 12;
        let mut flags = place;
        let (kind, fd) = match backing {
            0..5 => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
            5 => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
            6 => (libc::MAP_PRIVATE, self.files[0]),
            7 => (libc::MAP_SHARED, self.files[0]),
            8 => (libc::MAP_PRIVATE, self.files[1]),
            9 => (libc::MAP_SHARED, self.files[1]),
            10 => (libc::MAP_SHARED, self.files[2]),
            _ => (libc::MAP_PRIVATE, self.files[2]),
        };
        flags |= kind;
        let huge = (c >> 18).is_multiple_of(40);
        let chance = |shift: u32, one_in: u32| (c >> shift).is_multiple_of(one_in);
        if chance(4, 7) {
            flags |= libc::MAP_POPULATE;
        }
        if chance(7, 11) && fd < 0 && kind & libc::MAP_PRIVATE != 0 {
            flags |= libc::MAP_GROWSDOWN;
        }
        if chance(11, 8) {
            flags |= libc::MAP_NORESERVE;
        }
        if chance(14, 13) {
            flags |= libc::MAP_LOCKED;
        }
        let at = if huge {
            // In the window it would stand in everything else's way.
            flags = flags & !place | libc::MAP_HUGETLB;
            0
        } else {
            at
        };
        if chance(24, 9) {
            flags |= libc::MAP_STACK;
        }
        let offset = if fd < 0 { 0 } else { (c >> 28) as usize * PAGE };
        let prot = [3, 3, 3, 1, 0, 7, 2, 5][(c % 8) as usize];
        // SAFETY: maps in the window, where nothing is dereferenced, or where the kernel likes.
        let mapped =
            unsafe { libc::mmap(at as *mut _, pages * PAGE, prot, flags, fd, offset as i64) };
        if mapped != libc::MAP_FAILED {
            let pages = if huge { pages.next_multiple_of(512) } else { pages };
            self.keep(mapped as usize, pages);
        }
    }

    pub(super) fn map_limited(&mut self, a: u32, b: u32, c: u32, d: u32) {
        if self.racing {
            return;
        }
        let none = libc::rlimit { rlim_cur: PAGE as u64, rlim_max: libc::RLIM_INFINITY };
        let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a limit of this process for the time of one call.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const none) };
        self.map(a, b, c, d);
        // SAFETY: as above.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const all) };
    }

    pub(super) fn unmap(&mut self, a: u32, b: u32, c: u32) {
        let (start, pages) = window(a, b);
        let (start, len) = match c % 24 {
            0 => (WINDOW, WINDOW_PAGES * PAGE),
            1 => (start + 8, pages * PAGE),
            2 => (start, 0),
            3 => (start, pages * PAGE - 5),
            _ => (start, pages * PAGE),
        };
        // SAFETY: unmaps in the window, where nothing is dereferenced.
        unsafe { libc::munmap(start as *mut _, len) };
    }

    pub(super) fn unmap_slot(&mut self, a: u32, b: u32) {
        let slot = a as usize % SLOTS;
        let (start, pages) = self.slots[slot];
        if pages == 0 {
            return;
        }
        let keep = if pages > 1 { b as usize % pages } else { 0 };
        // SAFETY: a mapping of ours that nobody dereferences, or its end.
        let failed =
            unsafe { libc::munmap((start + keep * PAGE) as *mut _, (pages - keep) * PAGE) } != 0;
        if !failed {
            self.slots[slot] = (start, keep);
        }
    }

    pub(super) fn remap(&mut self, (start, pages): (usize, usize), c: u32, d: u32) {
        let new_pages = match c % 4 {
            0 => pages,
            1 => 1 + (c >> 2) as usize % pages,
            _ => 1 + (c >> 2) as usize % 40,
        };
        let target = window(d >> 3, 0).0;
        let (flags, target) = match d % 8 {
            0 => (0, 0),
            1..4 => (libc::MREMAP_MAYMOVE, 0),
            4 => (libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP, 0),
            5 => {
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP | libc::MREMAP_FIXED;
                (flags, target)
            }
            _ => (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, target),
        };
        // `DONTUNMAP` wants equal sizes; other sizes are the failing case.
        let new_pages =
            if flags & libc::MREMAP_DONTUNMAP != 0 && c % 8 < 6 { pages } else { new_pages };
        let in_window = start.wrapping_sub(WINDOW) < WINDOW_PAGES * PAGE;
        let old_len = if c % 64 == 63 && in_window { 0 } else { pages * PAGE };
        // SAFETY: moves mappings of ours that nobody dereferences, into the window or elsewhere.
        let moved = unsafe {
            libc::syscall(libc::SYS_mremap, start, old_len, new_pages * PAGE, flags, target)
        };
        if moved == -1 {
            // It may have shrunk all the same: then it is left where it is, for ever.
            if !in_window && new_pages >= pages {
                self.keep(start, pages);
            }
            return;
        }
        if flags & libc::MREMAP_DONTUNMAP != 0 && !in_window {
            self.keep(start, pages);
        }
        self.keep(moved as usize, new_pages);
    }

    /// Returns a range of the window, or sometimes one that the kernel placed.
    pub(super) fn some_range(&self, a: u32, b: u32) -> (usize, usize) {
        let (start, pages) = self.slots[b as usize % SLOTS];
        if pages > 0 && a.is_multiple_of(5) {
            let skip = (a >> 3) as usize % pages;
            return (start + skip * PAGE, 1 + (a >> 11) as usize % (pages - skip));
        }
        window(a, b)
    }

    pub(super) fn protect(&mut self, a: u32, b: u32, c: u32, d: u32) {
        let (start, pages) = self.some_range(a, b);
        let mut prot = [0, 1, 3, 3, 5, 7, 2, 4][(c % 8) as usize];
        if d.is_multiple_of(23) {
            prot |= libc::PROT_GROWSDOWN;
        }
        let start = if d % 41 == 40 { start + 1 } else { start };
        // SAFETY: protects mappings of ours that nobody dereferences.
        unsafe {
            if d.is_multiple_of(9) {
                libc::syscall(libc::SYS_pkey_mprotect, start, pages * PAGE, prot, -1)
            } else {
                libc::syscall(libc::SYS_mprotect, start, pages * PAGE, prot)
            }
        };
    }

    pub(super) fn advise(&mut self, a: u32, b: u32, c: u32, d: u32) {
        // All of include/uapi/asm-generic/mman-common.h but the two that poison memory.
        const ADVICE: [i32; 27] = [
            0, 1, 2, 3, 4, 4, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
            25, 102, 103,
        ];
        let (start, pages) = self.some_range(a, b);
        let advice = ADVICE[c as usize % ADVICE.len()];
        let vec = libc::iovec { iov_base: start as *mut _, iov_len: pages * PAGE };
        // SAFETY: changes contents of mappings of ours that nobody dereferences.
        unsafe {
            if d.is_multiple_of(16) && !self.racing {
                let own = libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0);
                libc::syscall(libc::SYS_process_madvise, own, &raw const vec, 1, advice, 0);
                libc::close(own as i32);
            } else {
                libc::madvise(vec.iov_base, vec.iov_len, advice);
            }
        }
    }

    pub(super) fn touch(&mut self, a: u32, b: u32, c: u32) {
        let (start, pages) = self.some_range(a, b);
        let pages = 1 + c as usize % pages;
        // SAFETY: the kernel writes zeros as far as there is writable memory of ours.
        unsafe { libc::syscall(libc::SYS_read, self.zero, start, pages * PAGE) };
    }

    pub(super) fn brk(&mut self, a: u32) {
        // SAFETY: asks for the end of the heap.
        let now = unsafe { libc::syscall(libc::SYS_brk, 0) } as usize;
        if now != self.heap_end || self.racing {
            return;
        }
        let unaligned = if a.is_multiple_of(5) { 100 } else { 0 };
        let wanted = self.heap_start + (a >> 3) as usize % HEAP_PAGES * PAGE + unaligned;
        // SAFETY: moves the end above what the allocator has.
        self.heap_end = unsafe { libc::syscall(libc::SYS_brk, wanted) } as usize;
    }

    pub(super) fn attach(&mut self, a: u32, b: u32) {
        let (start, _) = window(a, 0);
        let (at, mut flags) = match b % 4 {
            0 => (0, 0),
            1 => (start, 0),
            2 => (start, libc::SHM_REMAP),
            _ => (start + 1, libc::SHM_RND),
        };
        if b & 16 != 0 {
            flags |= libc::SHM_RDONLY;
        }
        let id = self.segments[(b >> 6) as usize % 2];
        // SAFETY: attaches where nothing is dereferenced, or where the kernel likes.
        let attached = unsafe { libc::shmat(id, at as *const _, flags) };
        if attached as isize != -1 {
            self.keep(attached as usize, 16);
        }
    }

    pub(super) fn detach(&mut self, a: u32) {
        let slot = &mut self.slots[a as usize % SLOTS];
        let in_window = a.is_multiple_of(2) || slot.1 == 0;
        let start = if in_window { window(a >> 1, 0).0 } else { slot.0 };
        // SAFETY: detaches from the window or from a mapping of ours that nobody dereferences.
        let detached = unsafe { libc::shmdt(start as *const _) } == 0;
        if detached && !in_window {
            *slot = (0, 0);
        }
    }

    pub(super) fn lock(&mut self, a: u32, b: u32, c: u32) {
        let (start, pages) = self.some_range(a, b);
        // SAFETY: locks or unlocks mappings of ours.
        unsafe {
            match c % 3 {
                0 => libc::mlock(start as *const _, pages * PAGE),
                // `MLOCK_ONFAULT`
                1 => libc::syscall(libc::SYS_mlock2, start, pages * PAGE, 1) as i32,
                _ => libc::munlock(start as *const _, pages * PAGE),
            }
        };
    }

    pub(super) fn name(&mut self, a: u32, b: u32, c: u32) {
        let (start, pages) = self.some_range(a, b);
        let name = match c % 4 {
            0 => ptr::null(),
            1 => c"one".as_ptr(),
            2 => c"two".as_ptr(),
            // `EINVAL`: not printable.
            _ => c"\x01".as_ptr(),
        };
        // SAFETY: names mappings of ours. Not every kernel is built with names.
        unsafe { libc::prctl(PR_SET_VMA, 0, start, pages * PAGE, name) };
    }

    pub(super) fn file_pages(&mut self, a: u32, b: u32, c: u32) {
        let (start, pages) = window(a, b);
        // SAFETY: changes mappings of ours that nobody dereferences.
        unsafe { libc::syscall(libc::SYS_remap_file_pages, start, pages * PAGE, 0, c % 32, 0) };
    }

    pub(super) fn lock_all(&mut self, a: u32) {
        // `MCL_FUTURE | MCL_ONFAULT`
        // SAFETY: changes how memory of this process is locked.
        unsafe { if a.is_multiple_of(2) { libc::mlockall(2 | 4) } else { libc::munlockall() } };
    }

    pub(super) fn seal(&mut self, a: u32) {
        let slot = &mut self.slots[a as usize % SLOTS];
        // SAFETY: seals a mapping of ours. It is ours for ever then: the slot is given up.
        if unsafe { libc::syscall(SYS_MSEAL, slot.0, slot.1 * PAGE, 0) } == 0 {
            *slot = (0, 0);
        }
    }

    /// Unmaps what the kernel placed.
    pub(super) fn give_back(self) {
        for (start, pages) in self.slots {
            // SAFETY: mappings of ours that nobody dereferences.
            unsafe { libc::munmap(start as *mut _, pages * PAGE) };
        }
    }
}

/// Returns a range of the window: first byte, and pages.
pub(super) fn window(a: u32, b: u32) -> (usize, usize) {
    let page = a as usize % WINDOW_PAGES;
    let wanted = match b % 16 {
        0 => 1 + (b >> 4) as usize % WINDOW_PAGES,
        1..8 => 1 + (b >> 4) as usize % 4,
        _ => 1 + (b >> 4) as usize % 24,
    };
    (WINDOW + page * PAGE, wanted.min(WINDOW_PAGES - page))
}

#[inline(never)]
pub(super) fn use_stack(depth: u32) -> u64 {
    let page = std::hint::black_box([u64::from(depth); 512]);
    if depth == 0 { page[7] } else { use_stack(depth - 1) + page[3] }
}
