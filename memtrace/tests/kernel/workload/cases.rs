//! The programs of the case table: `--workload case PROGRAM PAGES HUGE CPUS`.
//!
//! Each waits to be told, does its work, says that it stopped, and waits again; those whose end is
//! the work say that they are held before it. From there on they only make bare system calls, so
//! that what they have then is what they have at their end.

use std::{ffi::CString, fs, io, os::unix::fs::FileExt as _, ptr};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    super::{cases::mode::Huge, driver::PAGE, outside::held::Held, paths::N, settle::settle},
    File, HUGE, Mapped, brk, forbid_huge_pages, fork_shared, pages, say, told,
};

pub(super) fn run(args: &[String]) {
    let [program, count, huge, cpus] = args else {
        panic!("a program, pages, huge, CPUs: {args:?}")
    };
    let count: u64 = count.parse().expect("a number");
    let cpus: Vec<usize> =
        cpus.split(',').map(|cpu| cpu.parse().expect("numbers of CPUs")).collect();
    run_on(&cpus);
    let huge = Huge::named(huge).expect("whether there are huge pages");
    forbid_huge_pages(huge == Huge::Forbidden);
    say("ready");
    told();
    let memory = || {
        let mapped = fenced(count);
        advise_on_size(mapped, huge);
        mapped
    };
    let touched = || memory().touch();
    let huge_pages = || fenced(count).advise(libc::MADV_HUGEPAGE).touch();
    match program.as_str() {
        "munmap" => touched().unmap(),
        "dont_need" => drop(touched().advise(libc::MADV_DONTNEED)),
        "brk" => brk(count, |new| advise_on_size(new, huge)),
        "read_only" => memory().read().unmap(),
        "huge" => huge_pages().unmap(),
        "huge_half" => huge_pages().part(0, HUGE / 2).unmap(),
        "huge_halves" => {
            let both = huge_pages();
            both.part(0, HUGE / 2).unmap();
            both.part(HUGE / 2, HUGE / 2).unmap();
        }
        "lazy" => lazy(touched()),
        "file" => {
            let file = File::new(count);
            let mapped = file.map(libc::MAP_PRIVATE).read();
            mapped.part(0, count * 3 / 10).touch();
            mapped.unmap();
            // Before the file goes, and the page cache with it.
            stopped();
        }
        "shared_dont_need" => drop(shared(count).advise(libc::MADV_DONTNEED)),
        "shared_remove" => drop(shared(count).advise(libc::MADV_REMOVE)),
        "shared_munmap" => shared(count).unmap(),
        "fork" => fork_shared(touched()),
        "elsewhere" => loop {
            run_on(&cpus[cpus.len() - 1..]);
            let mapped = touched();
            run_on(&cpus[..1]);
            if !is_any_listed(mapped) {
                mapped.advise(libc::MADV_DONTNEED);
                break;
            }
            // Another program there filled the batch up.
            mapped.unmap();
            settle();
        },
        "locked" => memory().lock().unmap(),
        "pinned" => pinned(touched()),
        "shrink" => touched().shrink(count * 4 / 10),
        "map_over" => touched().map_over(),
        "exit" => {
            touched();
            held();
            // SAFETY: ends this process.
            unsafe { libc::syscall(libc::SYS_exit_group, 0) };
        }
        "wait" => {
            touched();
            held();
            panic!("it was to be killed");
        }
        "exec" => {
            touched();
            exec_nothing();
        }
        "kill_and_release" => kill_and_release(),
        other => panic!("no program {other}"),
    }
    stopped();
}

/// Gives `4 * N` frames up in several ways when told, and `N / 4` pages that keep theirs.
pub(super) fn ways() {
    say("ready");
    told();
    let small = |count| fenced(count).advise(libc::MADV_NOHUGEPAGE).touch();
    let (unmapped, not_needed, replaced, shrunk) =
        (small(N), small(N), small(N / 2), small(N / 2 + 1));
    let huge = fenced(N / 2).advise(libc::MADV_HUGEPAGE).touch();
    let [removed, detached] = [N / 2, N / 4].map(|count| Mapped::shared_anon(count).touch());
    say("touched");
    told();
    unmapped.unmap();
    not_needed.advise(libc::MADV_DONTNEED);
    replaced.map_over();
    shrunk.shrink(1);
    huge.unmap();
    removed.advise(libc::MADV_REMOVE);
    detached.advise(libc::MADV_DONTNEED);
    say("released");
    told();
}

fn stopped() {
    say("stopped");
    told();
}

/// Says that this process has what it will have at its end, and waits.
fn held() {
    say("held");
    // SAFETY: reads a line into a place on the stack.
    unsafe { libc::syscall(libc::SYS_read, 0, [0_u8; 1].as_mut_ptr(), 1) };
}

pub(crate) fn run_on(cpus: &[usize]) {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu).expect("a possible CPU"));
    sched_setaffinity(Pid::from_raw(0), &set).expect("CPUs that are on");
}

fn advise_on_size(mapped: Mapped, huge: Huge) {
    match huge {
        Huge::Advised => drop(mapped.advise(libc::MADV_HUGEPAGE)),
        Huge::Unwanted => drop(mapped.advise(libc::MADV_NOHUGEPAGE)),
        Huge::Forbidden | Huge::AsSet => {}
    }
}

/// Maps memory that begins at a huge page and has nothing next to it: how many huge pages there
/// may be does not depend on where the kernel placed it, nor on its neighbours.
fn fenced(count: u64) -> Mapped {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let around = Mapped::map(ptr::null_mut(), pages(count + 2 * HUGE), flags, -1);
    // SAFETY: a mapping of ours; what is used of it is mapped anew.
    let fence = unsafe { libc::mprotect(around.start.cast(), around.len, libc::PROT_NONE) };
    assert_eq!(fence, 0, "mprotect: {}", io::Error::last_os_error());
    let before = around.start.align_offset(pages(HUGE));
    // SAFETY: the first huge page is less than one away, and one is left after it.
    let start = unsafe { around.start.add(if before == 0 { pages(HUGE) } else { before }) };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    Mapped::map(start, pages(count), flags, -1)
}

/// Tells whether a page has left its batch for an LRU list
/// (Documentation/admin-guide/mm/pagemap.rst).
fn is_any_listed(mapped: Mapped) -> bool {
    const LRU: u64 = 1 << 5;
    let [of_process, of_all] = ["/proc/self/pagemap", "/proc/kpageflags"]
        .map(|file| fs::File::open(file).expect("as root"));
    let word = |file: &fs::File, at: u64| {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, at * 8).expect("a word for each page");
        u64::from_ne_bytes(word)
    };
    let first = mapped.start as u64 / PAGE;
    (first..first + mapped.len as u64 / PAGE).any(|page| {
        let frame = word(&of_process, page) & ((1 << 55) - 1);
        word(&of_all, frame) & LRU != 0
    })
}

/// Shared memory of which no page waits in a batch: a kernel thread would free it when the file is
/// gone, and nothing tells whose it was.
fn shared(count: u64) -> Mapped {
    let mapped = Mapped::shared_anon(count).touch();
    settle();
    mapped
}

/// Gives everything up lazily, takes the last tenth back, and has the kernel look for memory.
fn lazy(mapped: Mapped) {
    // What still is in a batch cannot be given up, and what is given up waits in one too.
    settle();
    mapped.advise(libc::MADV_FREE);
    settle();
    let count = mapped.len as u64 / PAGE;
    mapped.part(count - count / 10, count / 10).touch();
    mapped.advise(libc::MADV_PAGEOUT);
    mapped.unmap();
}

/// Unmaps what a pipe still refers to; then the pipe goes.
fn pinned(mapped: Mapped) {
    let mut ends = [0; 2];
    let all = libc::iovec { iov_base: mapped.start.cast(), iov_len: mapped.len };
    // SAFETY: a new pipe, which takes references to pages of ours (vmsplice(2)), and its end.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), 0), 0);
        let spliced = libc::vmsplice(ends[1], &raw const all, 1, 0);
        assert_eq!(spliced, mapped.len as isize, "vmsplice: {}", io::Error::last_os_error());
        mapped.unmap();
        for end in ends {
            libc::close(end);
        }
    }
}

fn exec_nothing() {
    let text = |text: &str| CString::new(text).expect("no zero byte");
    let args = ["/proc/self/exe", "--workload", "nothing"].map(text);
    let mut argv: Vec<_> = args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(ptr::null());
    // An empty list is the end of this one: it is in memory already.
    let no_environment = &raw const argv[args.len()];
    held();
    // SAFETY: strings that end with a zero byte, in a list that ends with a null pointer.
    unsafe { libc::syscall(libc::SYS_execve, argv[0], argv.as_ptr(), no_environment) };
}

/// Kills the process that its input names, and gives its memory back (process_mrelease(2)) before
/// it can do so itself.
fn kill_and_release() {
    let mut line = String::new();
    io::stdin().read_line(&mut line).expect("a line");
    let victim: i32 = line.trim().parse().expect("a process");
    // SAFETY: a descriptor of the victim, and what it is for.
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, victim, 0);
        assert!(pidfd >= 0, "pidfd_open: {}", io::Error::last_os_error());
        let victim = Held::kill(victim);
        let done = libc::syscall(libc::SYS_process_mrelease, pidfd, 0);
        assert_eq!(done, 0, "process_mrelease: {}", io::Error::last_os_error());
        victim.let_go();
    }
}
