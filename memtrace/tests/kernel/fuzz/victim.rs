//! The program that is driven: it does to its own memory what it is told, and waits.
//!
//! Everything happens in a window of fixed addresses and in what the kernel placed; nothing there
//! is ever dereferenced, only handed to system calls that fail where memory is missing.

use std::{
    io::{BufRead as _, Write as _},
    os::unix::process::CommandExt as _,
    process::Command,
    ptr, thread,
};

use super::op::{Kind, Op, Random};

const PAGE: usize = 4096;
/// First byte of the window.
const WINDOW: usize = 0x20_0000_0000;
/// Its size in pages: small, so that operations meet.
const WINDOW_PAGES: usize = 192;
/// Mappings that the kernel placed, at most.
const SLOTS: usize = 24;
/// Children that stay, at most.
const CHILDREN: usize = 3;
/// Pages of the files.
const FILE_PAGES: usize = 64;
/// Pages that the heap grows at most.
const HEAP_PAGES: usize = 96;

/// `PR_SET_VMA` and `PR_SET_VMA_ANON_NAME` (include/uapi/linux/prctl.h).
const PR_SET_VMA: i32 = 0x5356_4d41;
/// `mseal(2)` on x86-64, from 6.10.
const SYS_MSEAL: i64 = 462;

/// Runs as the victim: lines of operations on standard input, `sync` to be told when they are done.
pub(crate) fn main(args: &[String]) {
    let mut victim = Victim::new();
    if let [seed, count] = args {
        // Executed anew by another: does so much by itself and stays.
        let (seed, count) = (seed.parse().expect("a seed"), count.parse().expect("a count"));
        victim.run_some(seed, count);
        victim.tell_ready_and_wait();
    }
    if args == [AGAIN] {
        // What else the batch held went with the program before.
        say_done();
    }
    let mut ops: Vec<Op> = Vec::with_capacity(4096);
    let mut line = String::with_capacity(4096);
    let stdin = std::io::stdin();
    let mut input = stdin.lock();
    loop {
        line.clear();
        if input.read_line(&mut line).expect("a line") == 0 {
            return;
        }
        match line.trim() {
            "sync" => {
                ops.drain(..).for_each(|op| victim.run(op));
                say_done();
            }
            op => ops.push(op.parse().expect("an operation")),
        }
    }
}

/// Tells a victim that it is in the middle of a batch.
const AGAIN: &str = "again";

fn say_done() {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "done").and_then(|()| stdout.flush()).expect("a reader");
}

/// A child and the pipe whose end tells it to exit.
#[derive(Clone, Copy)]
struct Kid {
    pid: i32,
    leash: i32,
}

struct Victim {
    /// File, memfd, `/dev/zero`.
    files: [i32; 3],
    zero: i32,
    segments: [i32; 2],
    /// Mappings that the kernel placed: address and pages.
    slots: [(usize, usize); SLOTS],
    next_slot: usize,
    heap_start: usize,
    heap_end: usize,
    kids: [Option<Kid>; CHILDREN],
    /// It is one of several that work on the window at once.
    racing: bool,
}

impl Victim {
    fn new() -> Self {
        // The allocator takes what it needs now, and leaves brk and us alone later.
        // SAFETY: settings of this process's allocator; new descriptors of files of our own.
        unsafe {
            libc::mallopt(libc::M_TOP_PAD, 4 << 20);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::free(libc::malloc(1 << 20));
            let path = super::super::driver::scratch("fuzz");
            let path =
                std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).expect("a path");
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
            let file = libc::open(path.as_ptr(), flags, 0o600);
            libc::unlink(path.as_ptr());
            let memfd = libc::memfd_create(c"memtrace-fuzz".as_ptr(), libc::MFD_CLOEXEC);
            let zero = libc::open(c"/dev/zero".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            for fd in [file, memfd] {
                assert_eq!(libc::ftruncate(fd, (FILE_PAGES * PAGE) as i64), 0);
            }
            assert!(zero >= 0);
            let segment = || {
                let id = libc::shmget(libc::IPC_PRIVATE, 16 * PAGE, libc::IPC_CREAT | 0o600);
                assert!(id >= 0, "shmget: {}", std::io::Error::last_os_error());
                id
            };
            let segments = [segment(), segment()];
            for id in segments {
                // They vanish with the last one that has them attached; one stays attached.
                libc::shmat(id, ptr::null(), 0);
                libc::shmctl(id, libc::IPC_RMID, ptr::null_mut());
            }
            let heap = libc::sbrk(0) as usize;
            Self {
                files: [file, memfd, zero],
                zero,
                segments,
                slots: [(0, 0); SLOTS],
                next_slot: 0,
                heap_start: heap,
                heap_end: heap,
                kids: [None; CHILDREN],
                racing: false,
            }
        }
    }

    /// One of several that work on the same window: what it places it takes back itself.
    fn sibling(&self) -> Self {
        Self { slots: [(0, 0); SLOTS], next_slot: 0, kids: [None; CHILDREN], racing: true, ..*self }
    }

    fn run_some(&mut self, seed: u32, count: u32) {
        let mut random = Random::new(u64::from(seed));
        for _ in 0..count {
            self.run(Op::random_simple(&mut random));
        }
    }

    fn run(&mut self, Op { kind, numbers: [a, b, c, d] }: Op) {
        match kind {
            Kind::Map => self.map(a, b, c, d),
            Kind::MapLimited => self.map_limited(a, b, c, d),
            Kind::Unmap => self.unmap(a, b, c),
            Kind::UnmapSlot => self.unmap_slot(a, b),
            Kind::Remap => self.remap(window(a, b), c, d),
            Kind::RemapSlot => {
                let slot = a as usize % SLOTS;
                let (start, pages) = std::mem::take(&mut self.slots[slot]);
                if pages > 0 {
                    self.remap((start, pages), c, d);
                }
            }
            Kind::Protect => self.protect(a, b, c, d),
            Kind::Advise => self.advise(a, b, c, d),
            Kind::Touch => self.touch(a, b, c),
            Kind::Brk => self.brk(a),
            Kind::Attach => self.attach(a, b),
            Kind::Detach => self.detach(a),
            Kind::FilePages => {
                let (start, pages) = window(a, b);
                // SAFETY: changes mappings of ours that nobody dereferences.
                unsafe {
                    libc::syscall(libc::SYS_remap_file_pages, start, pages * PAGE, 0, c % 32, 0);
                }
            }
            Kind::Lock => self.lock(a, b, c),
            Kind::LockAll => {
                // `MCL_FUTURE | MCL_ONFAULT`
                // SAFETY: as above.
                unsafe {
                    if a.is_multiple_of(2) { libc::mlockall(2 | 4) } else { libc::munlockall() }
                };
            }
            Kind::Stack => {
                std::hint::black_box(use_stack(a % 64));
            }
            Kind::Name => self.name(a, b, c),
            Kind::Seal => {
                let (start, pages) = self.slots[a as usize % SLOTS];
                // SAFETY: as above. It is ours for ever then: the slot is given up.
                if unsafe { libc::syscall(SYS_MSEAL, start, pages * PAGE, 0) } == 0 {
                    self.slots[a as usize % SLOTS] = (0, 0);
                }
            }
            Kind::Race => self.race(a, b, c),
            Kind::Fork => self.fork(a, b),
            Kind::ShareOps => self.share_ops(a, b),
            Kind::ShareStay => self.share_stay(),
            Kind::ForkExec => self.fork_exec(a, b),
            Kind::Reap => {
                if let Some(kid) = self.kids[a as usize % CHILDREN].take() {
                    reap(kid);
                }
            }
            Kind::Vanish => self.vanish(a, b),
            Kind::Exec => {
                let error = Command::new("/proc/self/exe")
                    .args(["--workload", "fuzz_victim", AGAIN])
                    .exec();
                panic!("exec: {error}");
            }
        }
    }

    fn keep(&mut self, start: usize, pages: usize) {
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

    fn map(&mut self, a: u32, b: u32, c: u32, d: u32) {
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

    fn map_limited(&mut self, a: u32, b: u32, c: u32, d: u32) {
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

    fn unmap(&mut self, a: u32, b: u32, c: u32) {
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

    fn unmap_slot(&mut self, a: u32, b: u32) {
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

    fn remap(&mut self, (start, pages): (usize, usize), c: u32, d: u32) {
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
    fn some_range(&self, a: u32, b: u32) -> (usize, usize) {
        let (start, pages) = self.slots[b as usize % SLOTS];
        if pages > 0 && a.is_multiple_of(5) {
            let skip = (a >> 3) as usize % pages;
            return (start + skip * PAGE, 1 + (a >> 11) as usize % (pages - skip));
        }
        window(a, b)
    }

    fn protect(&mut self, a: u32, b: u32, c: u32, d: u32) {
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

    fn advise(&mut self, a: u32, b: u32, c: u32, d: u32) {
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

    fn touch(&mut self, a: u32, b: u32, c: u32) {
        let (start, pages) = self.some_range(a, b);
        let pages = 1 + c as usize % pages;
        // SAFETY: the kernel writes zeros as far as there is writable memory of ours.
        unsafe { libc::syscall(libc::SYS_read, self.zero, start, pages * PAGE) };
    }

    fn brk(&mut self, a: u32) {
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

    fn attach(&mut self, a: u32, b: u32) {
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

    fn detach(&mut self, a: u32) {
        let slot = &mut self.slots[a as usize % SLOTS];
        let in_window = a.is_multiple_of(2) || slot.1 == 0;
        let start = if in_window { window(a >> 1, 0).0 } else { slot.0 };
        // SAFETY: detaches from the window or from a mapping of ours that nobody dereferences.
        let detached = unsafe { libc::shmdt(start as *const _) } == 0;
        if detached && !in_window {
            *slot = (0, 0);
        }
    }

    fn lock(&mut self, a: u32, b: u32, c: u32) {
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

    fn name(&mut self, a: u32, b: u32, c: u32) {
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

    fn race(&mut self, a: u32, b: u32, c: u32) {
        let count = 2 + a % 3;
        thread::scope(|scope| {
            for number in 0..count {
                let mut sibling = self.sibling();
                scope.spawn(move || {
                    sibling.run_some(c.wrapping_add(number), 8 + b % 48);
                    for (start, pages) in sibling.slots {
                        // SAFETY: mappings that this thread made and nobody dereferences.
                        unsafe { libc::munmap(start as *mut _, pages * PAGE) };
                    }
                });
            }
        });
    }

    /// Returns where a child goes, unless there are enough.
    fn room(&self) -> Option<usize> {
        self.kids.iter().position(Option::is_none)
    }

    fn fork(&mut self, a: u32, b: u32) {
        let Some(room) = self.room() else { return };
        let (leash, end, ready, tell) = pipes();
        // SAFETY: this process has one thread; the child goes on alone.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            close(end);
            // What was not inherited (`MADV_DONTFORK`) would be somebody else's later.
            (self.kids, self.slots) = ([None; CHILDREN], [(0, 0); SLOTS]);
            self.run_some(a, 5 + b % 60);
            if b.is_multiple_of(7) {
                // It ends when its parent does: the parent holds the leash.
                self.fork(a.wrapping_add(1), b / 7);
            }
            say_and_wait(tell, leash);
        }
        close(leash);
        close(tell);
        wait(ready);
        self.kids[room] = Some(Kid { pid, leash: end });
    }

    /// The child works while this process waits, as after `vfork`.
    fn share_ops(&mut self, a: u32, b: u32) {
        let mut sibling = self.sibling();
        // SAFETY: the parent stands still until the child exits; the child's slots are its own.
        unsafe {
            let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64;
            let mut stack = vec![0_u128; 1 << 14];
            let top = stack.as_mut_ptr_range().end;
            let mut job: (*mut Self, u32, u32) = (&raw mut sibling, a, 5 + b % 40);
            extern "C" fn child(job: *mut libc::c_void) -> i32 {
                // SAFETY: the parent's variables, and the parent stands still.
                let (sibling, seed, count) = unsafe { &*job.cast::<(*mut Victim, u32, u32)>() };
                // SAFETY: as above.
                unsafe { (**sibling).run_some(*seed, *count) };
                0
            }
            let pid = libc::clone(child, top.cast(), flags as i32, (&raw mut job).cast());
            libc::waitpid(pid, ptr::null_mut(), 0);
        }
        for (start, pages) in sibling.slots {
            // SAFETY: mappings that the child made and nobody dereferences.
            unsafe { libc::munmap(start as *mut _, pages * PAGE) };
        }
    }

    /// The child shares the address space and only waits: it has no thread-local memory of its own.
    fn share_stay(&mut self) {
        let Some(room) = self.room() else { return };
        let (leash, end, ready, tell) = pipes();
        close(ready);
        close(tell);
        extern "C" fn child(pipe: *mut libc::c_void) -> i32 {
            let (leash, end) = (pipe as usize as i32 & 0xffff, pipe as usize as i32 >> 16);
            let mut byte = 0_u8;
            // SAFETY: its own copies of a pipe's ends. Nothing fails, so that `errno` is left alone.
            unsafe {
                libc::close(end);
                libc::read(leash, (&raw mut byte).cast(), 1);
            }
            0
        }
        let pipe = (leash | end << 16) as usize as *mut libc::c_void;
        // SAFETY: a stack that is never given back, for a child that only reads.
        let pid = unsafe {
            let stack = Box::leak(Box::new([0_u128; 1024]));
            let top = stack.as_mut_ptr_range().end;
            libc::clone(child, top.cast(), libc::CLONE_VM | libc::SIGCHLD, pipe)
        };
        close(leash);
        if pid > 0 {
            self.kids[room] = Some(Kid { pid, leash: end });
        }
    }

    fn fork_exec(&mut self, a: u32, b: u32) {
        let Some(room) = self.room() else { return };
        let (leash, end, ready, tell) = pipes();
        // SAFETY: this process has one thread; the child executes at once. The descriptors get
        // numbers that survive the exec.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: as above.
            unsafe {
                libc::dup2(leash, 0);
                libc::dup2(tell, 1);
            }
            let error = Command::new("/proc/self/exe")
                .args(["--workload", "fuzz_victim", &a.to_string(), &(5 + b % 60).to_string()])
                .exec();
            panic!("exec: {error}");
        }
        close(leash);
        close(tell);
        wait(ready);
        self.kids[room] = Some(Kid { pid, leash: end });
    }

    /// Says that it is ready and exits when it is told: standard input and output are pipes.
    fn tell_ready_and_wait(&self) -> ! {
        say_and_wait(1, 0)
    }

    /// A child that exits, or is killed, while its threads are at work.
    fn vanish(&mut self, a: u32, b: u32) {
        // SAFETY: this process has one thread; the child never returns.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            for number in 0..3 {
                let mut sibling = self.sibling();
                thread::spawn(move || {
                    loop {
                        sibling.run_some(a.wrapping_add(number), 200);
                    }
                });
            }
            self.racing = true;
            self.run_some(b, b % 300);
            // SAFETY: ends the child, however its threads are doing.
            unsafe {
                if b.is_multiple_of(2) {
                    libc::_exit(0)
                } else {
                    libc::kill(libc::getpid(), libc::SIGKILL)
                };
            }
            loop {
                thread::park();
            }
        }
        // SAFETY: waits for our child.
        unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    }
}

/// Returns a range of the window: first byte, and pages.
fn window(a: u32, b: u32) -> (usize, usize) {
    let page = a as usize % WINDOW_PAGES;
    let wanted = match b % 16 {
        0 => 1 + (b >> 4) as usize % WINDOW_PAGES,
        1..8 => 1 + (b >> 4) as usize % 4,
        _ => 1 + (b >> 4) as usize % 24,
    };
    (WINDOW + page * PAGE, wanted.min(WINDOW_PAGES - page))
}

#[inline(never)]
fn use_stack(depth: u32) -> u64 {
    let page = std::hint::black_box([u64::from(depth); 512]);
    if depth == 0 { page[7] } else { use_stack(depth - 1) + page[3] }
}

/// Returns two pipes: reading and writing end of each. All are closed by exec.
fn pipes() -> (i32, i32, i32, i32) {
    let mut first = [0; 2];
    let mut second = [0; 2];
    // SAFETY: new descriptors.
    unsafe {
        assert_eq!(libc::pipe2(first.as_mut_ptr(), libc::O_CLOEXEC), 0);
        assert_eq!(libc::pipe2(second.as_mut_ptr(), libc::O_CLOEXEC), 0);
    }
    (first[0], first[1], second[0], second[1])
}

fn close(fd: i32) {
    // SAFETY: a descriptor of ours that nobody uses any more.
    unsafe { libc::close(fd) };
}

/// Waits for a byte and closes.
fn wait(ready: i32) {
    let mut byte = 0_u8;
    // SAFETY: reads into a variable of ours.
    unsafe { libc::read(ready, (&raw mut byte).cast(), 1) };
    close(ready);
}

/// Says that a child is ready, waits for the end of its leash, exits.
fn say_and_wait(tell: i32, leash: i32) -> ! {
    let mut byte = 1_u8;
    // SAFETY: writes and reads a variable of ours, then ends the process.
    unsafe {
        libc::write(tell, (&raw const byte).cast(), 1);
        libc::read(leash, (&raw mut byte).cast(), 1);
        libc::_exit(0)
    }
}

/// Ends a child and waits for it.
fn reap(Kid { pid, leash }: Kid) {
    // SAFETY: a descriptor and a child of ours. Other children may hold copies of the descriptor:
    // a byte tells one reader, and all of them are to end some time.
    unsafe {
        libc::write(leash, [1_u8].as_ptr().cast(), 1);
        libc::close(leash);
        libc::waitpid(pid, ptr::null_mut(), 0);
    }
}
