//! Programs that touch, give up and share memory in known amounts.

use std::{
    io::Write as _,
    ops::Range,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use super::{
    super::{
        driver::{PAGE, scratch},
        group::Group,
        paths::N,
        workload::{Mapped, cases::run_on, say, told},
    },
    fills::{HUGE, HUGE_PAGES},
    kept::PINNED,
    remanence::{CHILDREN, EACH},
};

/// `PR_SET_THP_DISABLE` (include/uapi/linux/prctl.h).
const PR_SET_THP_DISABLE: i32 = 41;

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// Does what the first argument says.
pub(crate) fn run(args: &[String]) {
    let name = args.first().expect("a program");
    // SAFETY: changes this process's own setting; only what names them wants huge pages.
    unsafe { libc::prctl(PR_SET_THP_DISABLE, u64::from(!name.starts_with("huge")), 0, 0, 0) };
    match name.as_str() {
        "huge_nothing" => {}
        "huge_and_other_fills" => fills(),
        "cold_file" => {
            let cold = File::new(N / 8);
            cold.forget();
            let file = cold.private();
            // Of this half each page is read by the fault that copies it; the other is read ahead.
            part(file, 0..N / 16).advise(libc::MADV_RANDOM);
            file.touch();
        }
        "copies_among_others" => copies_among_others(),
        "lazily_free" => lazily_free(),
        "huge_halves" => huge_halves(),
        "pinned" => pinned(),
        "page_out" => page_out(),
        "copies_among_swap" => copies_among_swap(),
        "more_than_there_is" => {
            let group = Group::new();
            group.limit(N * 3 / 2 * PAGE);
            child(|| {
                group.enter(std::process::id());
                let first = anon(N).touch();
                anon(N).touch();
                // It was read by nobody since it was pushed out: the kernel reads it, and ahead.
                first.touch();
            });
        }
        "rounds" => {
            for _ in 0..super::remanence::ROUNDS {
                anon(N).touch().unmap();
            }
        }
        // What a CPU freed last it gives out first.
        "children_after" => {
            let cpu = nix::sched::sched_getcpu().expect("a CPU");
            run_on(&[cpu]);
            for _ in 0..CHILDREN {
                anon(EACH).touch().unmap();
                child(|| _ = anon(EACH).touch());
            }
        }
        other => panic!("no program {other}"),
    }
}

/// New anonymous memory of single pages.
fn anon(count: u64) -> Mapped {
    Mapped::anon(count).advise(libc::MADV_NOHUGEPAGE)
}

fn map(count: u64, flags: i32, fd: i32) -> Mapped {
    let (len, prot) = ((count * PAGE) as usize, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a new mapping.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, 0) };
    assert_ne!(start, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    Mapped { start: start.cast(), len }
}

fn part(of: Mapped, pages: Range<u64>) -> Mapped {
    let len = ((pages.end - pages.start) * PAGE) as usize;
    // SAFETY: the callers stay inside the mapping.
    Mapped { start: unsafe { of.start.add((pages.start * PAGE) as usize) }, len }
}

fn read(of: Mapped) {
    for at in (0..of.len).step_by(PAGE as usize) {
        // SAFETY: inside the mapping, which is readable.
        unsafe { of.start.add(at).read_volatile() };
    }
}

/// Huge pages, one behind the other.
fn huge_pages() -> Mapped {
    let Mapped { start, .. } = Mapped::anon((HUGE_PAGES + 1) * HUGE);
    let skipped = start.align_offset((HUGE * PAGE) as usize);
    let len = (HUGE_PAGES * HUGE * PAGE) as usize;
    // SAFETY: stays inside the mapping, which has room for it.
    let mapped = Mapped { start: unsafe { start.add(skipped) }, len };
    mapped.advise(libc::MADV_HUGEPAGE).touch()
}

/// A file of so many pages that is gone when it is dropped.
struct File {
    file: std::fs::File,
    path: std::path::PathBuf,
    pages: u64,
}

impl File {
    fn new(pages: u64) -> Self {
        let path = scratch("afterlife");
        let options = std::fs::File::options().read(true).write(true).create_new(true).open(&path);
        let mut file = options.expect("a new file");
        for _ in 0..pages {
            file.write_all(&[7; PAGE as usize]).expect("room for a file");
        }
        Self { file, path, pages }
    }

    /// Has the kernel drop it from the page cache, where the file system has one.
    fn forget(&self) {
        self.file.sync_all().expect("it can be written");
        // SAFETY: advice about a file of ours.
        let done =
            unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(done, 0, "posix_fadvise");
    }

    fn private(&self) -> Mapped {
        map(self.pages, libc::MAP_PRIVATE, self.file.as_raw_fd())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).expect("our file");
    }
}

/// Has a child do some work and waits for its end.
fn child(work: impl FnOnce()) {
    // SAFETY: the child touches its own memory and exits without running the parent's destructors.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        if child == 0 {
            work();
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert_eq!(status, 0, "the child");
    }
}

/// Frames filled in each way that there is: how many, says the test.
fn fills() {
    let inherited = anon(N).touch();
    huge_pages();
    map(N / 4, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1).touch();
    let file = File::new(N / 8).private();
    read(part(file, N / 16..N / 8));
    file.touch();
    child(|| _ = part(inherited, 0..N / 16).touch());
}

/// A child copies pages that it inherited, and in between maps what needs no new frame.
fn copies_among_others() {
    let inherited = anon(N / 8).touch();
    let shared = map(N / 8, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1).touch();
    let file = File::new(N / 8);
    child(|| {
        // Mapped by the child, so that nothing of it is in its page tables.
        let file = file.private();
        for page in 0..N / 8 {
            part(inherited, page..page + 1).touch();
            part(shared, page..page + 1).touch();
            read(part(file, page..page + 1));
        }
    });
}

fn lazily_free() {
    let mapped = anon(N).touch();
    say("ready");
    told();
    mapped.advise(libc::MADV_FREE);
    part(mapped, 0..N / 4).touch();
    part(mapped, N / 2..N).advise(libc::MADV_PAGEOUT);
    say("stopped");
    told();
}

/// Unmaps the first half of each huge page, then the second.
fn huge_halves() {
    let mapped = huge_pages();
    say("ready");
    for (from, line) in [(0, "first halves gone"), (HUGE / 2, "second halves gone")] {
        told();
        for page in (from..HUGE_PAGES * HUGE).step_by(HUGE as usize) {
            part(mapped, page..page + HUGE / 2).unmap();
        }
        say(line);
    }
    told();
}

/// Unmaps memory that is registered with an io_uring, which pins it (io_uring_register(2)).
fn pinned() {
    // Without the right to pin as much as it likes, of which some kernels keep no account.
    // SAFETY: changes this process's own identity.
    assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
    let mapped = anon(PINNED).touch();
    let ring = ring().expect("an io_uring");
    let buffer = libc::iovec { iov_base: mapped.start.cast(), iov_len: mapped.len };
    // SAFETY: registers a mapping of ours (`IORING_REGISTER_BUFFERS`), which nobody reads or writes.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), 0, &raw const buffer, 1)
    };
    assert_eq!(done, 0, "io_uring_register: {}", std::io::Error::last_os_error());
    say("ready");
    told();
    mapped.unmap();
    say("stopped");
    told();
}

/// Makes an io_uring of one entry.
pub(super) fn ring() -> std::io::Result<OwnedFd> {
    let mut params = [0_u32; 30];
    // SAFETY: the kernel writes a `struct io_uring_params` of 120 bytes.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if ring < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(ring as i32) })
}

/// Pages out and touches half of it again.
fn page_out() {
    let mapped = anon(N).touch();
    say("ready");
    told();
    mapped.advise(libc::MADV_PAGEOUT);
    part(mapped, 0..N / 2).touch();
    say("stopped");
    told();
}

/// A child copies pages that it inherited, and in between brings others back from swap.
fn copies_among_swap() {
    let inherited = anon(N / 8).touch();
    let own = anon(N / 8);
    child(|| {
        own.touch().advise(libc::MADV_PAGEOUT);
        for page in 0..N / 8 {
            part(inherited, page..page + 1).touch();
            part(own, page..page + 1).touch();
        }
    });
}
