//! Programs of known behaviour.

pub(crate) mod cases;
mod file;
mod mapped;
mod told;

use std::{os::unix::process::CommandExt as _, process::Command, ptr, sync::Arc, thread};

use self::mapped::pages;
pub(crate) use self::{
    file::File,
    mapped::{HUGE, Mapped},
    told::{LOCATED_CHUNK, LOCATED_CHUNKS, LOCATED_PAGES, say, told},
};
use super::{driver::PAGE, outside, paths::N};

/// Forbids this process huge pages, or allows them (`PR_SET_THP_DISABLE`, prctl(2)).
pub(crate) fn forbid_huge_pages(forbid: bool) {
    const PR_SET_THP_DISABLE: i32 = 41;
    // SAFETY: changes this process's own setting.
    unsafe { libc::prctl(PR_SET_THP_DISABLE, u64::from(forbid), 0, 0, 0) };
}

/// Does what `name` says.
pub(crate) fn run(name: &str, args: &[String]) {
    // Only the workloads about them want any; each row of the case table says so for itself.
    forbid_huge_pages(!(name.starts_with("thp") || ["case", "ways"].contains(&name)));
    match name {
        "nothing" => {}
        "munmap" => Mapped::anon(N).touch().unmap(),
        "munmap_half_touched" => {
            let mapped = Mapped::anon(2 * N);
            mapped.part(N / 2, N).touch();
            mapped.unmap();
        }
        "munmap_many_small" => {
            for _ in 0..5 * N / 4 {
                Mapped::anon(4).touch().unmap();
            }
        }
        "munmap_read_only_touch" => Mapped::anon(N).read().unmap(),
        "dont_need" => {
            Mapped::anon(N).touch().advise(libc::MADV_DONTNEED);
        }
        "dont_need_thrice" => {
            let mapped = Mapped::anon(N).touch();
            for _ in 0..3 {
                mapped.advise(libc::MADV_DONTNEED);
            }
        }
        "mlocked" => Mapped::anon(N).lock().unmap(),
        "fork_trim" => fork_trim(),
        "free_then_munmap" => Mapped::anon(N).touch().advise(libc::MADV_FREE).unmap(),
        "page_out" => {
            Mapped::anon(N).touch().advise(libc::MADV_FREE).advise(libc::MADV_PAGEOUT);
        }
        "brk" => brk(N, drop),
        "mremap_shrink" => Mapped::anon(N).touch().shrink(N / 4),
        "mremap_move" => {
            let Mapped { start, len } = Mapped::anon(N).touch();
            let to = Mapped::anon(N);
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            // SAFETY: both are mappings of ours; the second is given up for the first.
            let moved = unsafe { libc::mremap(start.cast(), len, len, flags, to.start) };
            assert_eq!(moved, to.start.cast());
            to.unmap();
        }
        "overmap" => Mapped::anon(N).touch().map_over(),
        "threads" => in_threads(8, || {
            for _ in 0..8 {
                Mapped::anon(N / 8).touch().unmap();
            }
        }),
        // The first half of each huge page.
        "thp_halves" => Mapped::huge(N).unmap_halves(0),
        "thp" => Mapped::anon(N).advise(libc::MADV_HUGEPAGE).touch().unmap(),
        "file_private" => {
            let file = File::new(N);
            file.map(libc::MAP_PRIVATE).read().unmap();
        }
        "file_cow" => {
            let file = File::new(N);
            let mapped = file.map(libc::MAP_PRIVATE).read();
            mapped.part(0, N / 2).touch();
            mapped.unmap();
        }
        "file_shared" => {
            let file = File::new(N);
            file.map(libc::MAP_SHARED).touch().unmap();
        }
        "shared_anon" => Mapped::shared_anon(N).touch().unmap(),
        "shared_anon_dont_need" => {
            Mapped::shared_anon(N).touch().advise(libc::MADV_DONTNEED);
        }
        "remove" => {
            Mapped::shared_anon(N).touch().advise(libc::MADV_REMOVE);
        }
        "punch_hole" => punch_hole(true),
        "punch_hole_unmapped" => punch_hole(false),
        "shmdt" => shmdt(),
        "fork_shared" => fork_shared(Mapped::anon(N).touch()),
        "exec" => {
            Mapped::anon(N).touch();
            become_nothing();
        }
        "exec_nothing" => become_nothing(),
        "exit" => {
            Mapped::anon(N).touch();
        }
        "sigkill" => {
            Mapped::anon(N).touch();
            // SAFETY: ends this process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        "exit_with_threads" => exit_with_threads(),
        "fork_child" => fork_child(),
        "advise_child" => advise_child(),
        "leaderless" => told::leaderless(),
        "vfork_exec" => {
            // `Command` without `pre_exec` is vfork or its equal (posix_spawn).
            let status = Command::new("/proc/self/exe").args(["--workload", "nothing"]).status();
            assert!(status.is_ok_and(|status| status.success()));
        }
        "exec_from_thread" => {
            let _ = thread::spawn(become_nothing).join();
        }
        "case" => cases::run(args),
        "ways" => cases::ways(),
        "churn" => told::churn(args),
        "hold_then_unmap" => told::hold_then_unmap(),
        "many_children" => many_children(),
        "many_names" => many_names(args),
        "located" => told::located(),
        "many_regions" => told::many_regions(args),
        "io_uring_advice" => outside::workload::io_uring_advice(),
        "inject" => outside::workload::inject(),
        "userfaultfd" => outside::workload::userfaultfd(),
        "pressed" => outside::oom::pressed(),
        "oom_victim" => outside::oom::oom_victim(),
        "release_victim" => outside::workload::release_victim(),
        "wait" => {
            say("ready");
            told();
        }
        "fuzz_victim" => super::fuzz::victim::main(args),
        "heap" => super::heap::workload::run(args),
        "stacks" => super::stacks::workload::run(args),
        "afterlife" => super::afterlife::workload::run(args),
        other => panic!("no workload {other}"),
    }
}

/// Raises the end of the heap by so many pages, touches them and gives them up.
fn brk(count: u64, prepare: impl FnOnce(Mapped)) {
    // SAFETY: asks for the end of the heap, then moves it; nothing allocates in between, and what
    // the allocator has stays.
    unsafe {
        let end = libc::syscall(libc::SYS_brk, 0) as u64;
        // No huge page has old pages and new ones.
        let start = end.next_multiple_of(HUGE * PAGE);
        let top = start + count * PAGE;
        assert_eq!(libc::syscall(libc::SYS_brk, top) as u64, top);
        let new = Mapped { start: start as *mut u8, len: pages(count) };
        prepare(new);
        new.touch();
        assert_eq!(libc::syscall(libc::SYS_brk, start) as u64, start);
    }
}

/// Punches a hole into shared memory that is mapped, or is not any more.
fn punch_hole(is_mapped: bool) {
    // SAFETY: a new descriptor, a mapping of it, and a hole in it; contents do not matter.
    unsafe {
        let fd = libc::memfd_create(c"memtrace".as_ptr(), 0);
        assert!(fd >= 0 && libc::ftruncate(fd, pages(N) as i64) == 0);
        let mapped = Mapped::map(ptr::null_mut(), pages(N), libc::MAP_SHARED, fd).touch();
        if !is_mapped {
            mapped.unmap();
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        assert_eq!(libc::fallocate(fd, mode, 0, pages(N) as i64), 0);
    }
}

fn shmdt() {
    // SAFETY: a new segment, attached, marked for removal, and detached.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, pages(N), libc::IPC_CREAT | 0o600);
        assert!(id >= 0, "shmget: {}", std::io::Error::last_os_error());
        let start = libc::shmat(id, ptr::null(), 0);
        libc::shmctl(id, libc::IPC_RMID, ptr::null_mut());
        assert_ne!(start as isize, -1);
        Mapped { start: start.cast(), len: pages(N) }.touch();
        assert_eq!(libc::shmdt(start), 0);
    }
}

/// Unmaps what a child still shares.
fn fork_shared(mapped: Mapped) {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    // SAFETY: the child only reads from a pipe and exits.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        drop(writer);
        let _ = std::io::Read::read(&mut reader, &mut [0]);
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(0) };
    }
    mapped.unmap();
    drop(writer);
    // SAFETY: waits for our child.
    unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
}

/// Has a child do some work and waits for its end.
pub(crate) fn child(work: impl FnOnce()) {
    // SAFETY: the child does its work and exits without running the parent's destructors.
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

/// A child trims memory that it shares with its parent, and exits.
fn fork_trim() {
    let mapped = Mapped::anon(N).touch();
    child(|| _ = mapped.advise(libc::MADV_DONTNEED));
    mapped.unmap();
}

fn fork_child() {
    // SAFETY: the child maps, unmaps and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        Mapped::anon(N).touch().unmap();
        // SAFETY: as above.
        unsafe { libc::_exit(3) };
    }
    // SAFETY: waits for our child.
    unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
}

/// Advises that a child's pages be paged out; the child's are many, ours few.
fn advise_child() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let (mut ready, child_ready) = std::io::pipe().expect("a pipe");
    let mapped = Mapped::anon(N);
    // SAFETY: the child touches what it inherited, waits, and exits.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        drop((writer, ready));
        mapped.touch();
        drop(child_ready);
        let _ = std::io::Read::read(&mut reader, &mut [0]);
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(0) };
    }
    drop(child_ready);
    let _ = std::io::Read::read(&mut ready, &mut [0]);
    let vec = libc::iovec { iov_base: mapped.start.cast(), iov_len: mapped.len };
    // SAFETY: a descriptor of our child, advice that changes no contents, and our child's end.
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, child, 0);
        assert!(pidfd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        let advice = libc::MADV_PAGEOUT;
        let done = libc::syscall(libc::SYS_process_madvise, pidfd, &raw const vec, 1, advice, 0);
        assert_eq!(done, mapped.len as i64, "{}", std::io::Error::last_os_error());
        drop(writer);
        libc::waitpid(child, ptr::null_mut(), 0);
    }
}

/// So many children, one after the other, map, touch and unmap a few pages.
fn many_children() {
    for _ in 0..1_500 {
        child(|| Mapped::anon(8).touch().unmap());
    }
}

/// So many children have so many names, from a number on.
fn many_names(args: &[String]) {
    let [first, count] = [0, 1].map(|at| args[at].parse::<u32>().expect("a number"));
    for number in first..first + count {
        // The child begins with its parent's name.
        std::fs::write("/proc/self/comm", format!("name-{number}")).expect("a name of its own");
        child(|| ());
    }
}

fn become_nothing() {
    let error = Command::new("/proc/self/exe").args(["--workload", "nothing"]).exec();
    panic!("exec: {error}");
}

fn in_threads(count: usize, work: impl Fn() + Send + Sync) {
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(&work);
        }
    });
}

fn exit_with_threads() {
    Mapped::anon(N).touch();
    let ready = Arc::new(std::sync::Barrier::new(5));
    for _ in 0..4 {
        let ready = Arc::clone(&ready);
        thread::spawn(move || {
            ready.wait();
            loop {
                thread::park();
            }
        });
    }
    ready.wait();
    std::process::exit(0);
}
