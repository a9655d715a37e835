//! Programs whose memory is changed by other means than their own system calls.

use std::{io, ptr};

use super::super::{
    driver::PAGE,
    paths::N,
    workload::{Mapped, say, told},
};

fn check(result: i64, what: &str) -> i64 {
    assert!(result >= 0, "{what}: {}", io::Error::last_os_error());
    result
}

/// Gives pages up through io_uring, whose advice runs in a kernel thread of this process
/// (`IORING_OP_MADVISE`, io_uring/advise.c).
pub(crate) fn io_uring_advice() {
    let mapped = Mapped::anon(N).touch();
    let ring = Ring::new();
    // A first, for nothing: the worker and what it needs exist then.
    ring.advise(mapped.start as u64, 0, libc::MADV_NORMAL);
    say("ready");
    told();
    ring.advise(mapped.start as u64, mapped.len as u32, libc::MADV_DONTNEED);
    say("stopped");
    told();
}

/// An io_uring of one entry (io_uring_setup(2)).
struct Ring {
    fd: i32,
    rings: *mut u8,
    entries: *mut u8,
    /// Offsets in `rings`: tail and array of the submission queue, head of the completion queue.
    tail: usize,
    array: usize,
    head: usize,
}

impl Ring {
    fn new() -> Self {
        let mut params = [0_u32; 30];
        // SAFETY: the kernel writes a `struct io_uring_params` of 120 bytes; new mappings of the
        // ring.
        unsafe {
            let fd = libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr());
            let fd = check(fd, "io_uring_setup") as i32;
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            // `IORING_OFF_SQ_RING` (with `IORING_FEAT_SINGLE_MMAP`) and `IORING_OFF_SQES`.
            let rings = libc::mmap(ptr::null_mut(), 4096, prot, flags, fd, 0);
            let entries = libc::mmap(ptr::null_mut(), 4096, prot, flags, fd, 0x1000_0000);
            assert!(rings != libc::MAP_FAILED && entries != libc::MAP_FAILED);
            // `sq_off` begins at word 10: head, tail, ring_mask, ring_entries, flags, dropped,
            // array; `cq_off` at word 20.
            let [tail, array, head] = [params[11], params[16], params[20]].map(|at| at as usize);
            Self { fd, rings: rings.cast(), entries: entries.cast(), tail, array, head }
        }
    }

    fn advise(&self, start: u64, len: u32, advice: i32) {
        // SAFETY: a `struct io_uring_sqe` of 64 bytes in our mapping, submitted alone and waited
        // for.
        unsafe {
            let entry = self.entries;
            ptr::write_bytes(entry, 0, 64);
            entry.write(25); // opcode: IORING_OP_MADVISE
            entry.add(4).cast::<i32>().write(-1);
            entry.add(16).cast::<u64>().write(start);
            entry.add(24).cast::<u32>().write(len);
            entry.add(28).cast::<u32>().write(advice as u32);
            self.rings.add(self.array).cast::<u32>().write_volatile(0);
            let tail = self.rings.add(self.tail).cast::<u32>();
            tail.write_volatile(tail.read_volatile() + 1);
            // `IORING_ENTER_GETEVENTS`
            let entered = libc::syscall(libc::SYS_io_uring_enter, self.fd, 1, 1, 1, 0, 0);
            assert_eq!(check(entered, "io_uring_enter"), 1);
            let head = self.rings.add(self.head).cast::<u32>();
            head.write_volatile(head.read_volatile() + 1);
        }
    }
}

/// Makes a child that waits call `munmap`, as a debugger does.
pub(crate) fn inject() {
    let mapped = Mapped::anon(N);
    // SAFETY: a child that waits, and ptrace(2) on it.
    unsafe {
        let (mut ready, tell) = io::pipe().expect("a pipe");
        let child = libc::fork();
        if child == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            drop(ready);
            mapped.touch();
            drop(tell);
            loop {
                libc::pause();
            }
        }
        drop(tell);
        let _ = io::Read::read(&mut ready, &mut [0]);
        let in_pause = || {
            let text = std::fs::read_to_string(format!("/proc/{child}/syscall"));
            text.is_ok_and(|text| text.starts_with(&format!("{} ", libc::SYS_pause)))
        };
        while !in_pause() {
            std::thread::yield_now();
        }
        let mut status = 0;
        let trace = |request, argument: *mut libc::c_void| {
            let done = libc::ptrace(request, child, ptr::null_mut::<libc::c_void>(), argument);
            check(done, "ptrace");
        };
        trace(libc::PTRACE_ATTACH, ptr::null_mut());
        libc::waitpid(child, &raw mut status, 0);
        let mut before: libc::user_regs_struct = std::mem::zeroed();
        trace(libc::PTRACE_GETREGS, (&raw mut before).cast());
        // It stands in `pause`: its `syscall` instruction is two bytes back.
        let mut call = before;
        call.rip -= 2;
        (call.rax, call.orig_rax) = (libc::SYS_munmap as u64, u64::MAX);
        (call.rdi, call.rsi) = (mapped.start as u64, mapped.len as u64);
        trace(libc::PTRACE_SETREGS, (&raw mut call).cast());
        trace(libc::PTRACE_SINGLESTEP, ptr::null_mut());
        libc::waitpid(child, &raw mut status, 0);
        assert!(libc::WIFSTOPPED(status), "the child ended: {status:x}");
        trace(libc::PTRACE_GETREGS, (&raw mut call).cast());
        assert_eq!(call.rax, 0, "munmap in the child");
        trace(libc::PTRACE_SETREGS, (&raw mut before).cast());
        trace(libc::PTRACE_DETACH, ptr::null_mut());
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, &raw mut status, 0);
    }
}

/// Registers part of a mapping with userfaultfd, which splits it, and moves pages (from 6.8).
pub(crate) fn userfaultfd() {
    let (source, target) = (Mapped::anon(N).touch(), Mapped::anon(N));
    say("ready");
    told();
    // SAFETY: a new descriptor, and requests about mappings of ours (ioctl_userfaultfd(2)).
    unsafe {
        let uffd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
        let uffd = check(uffd, "userfaultfd") as i32;
        // `UFFDIO_API`, with `UFFD_FEATURE_MOVE` where the kernel has it; asked for twice, as the
        // manual says, since an unknown feature is an error.
        let mut api = [0xaa_u64, 1 << 16, 0];
        let uffd = if libc::ioctl(uffd, 0xc018_aa3f, api.as_mut_ptr()) == 0 {
            uffd
        } else {
            let again = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) as i32;
            api = [0xaa, 0, 0];
            check(i64::from(libc::ioctl(again, 0xc018_aa3f, api.as_mut_ptr())), "UFFDIO_API");
            again
        };
        let half = (N / 2 * PAGE) as usize;
        // `UFFDIO_REGISTER`, mode missing.
        let mut register = [target.start as u64, half as u64, 1, 0];
        let registered = libc::ioctl(uffd, 0xc020_aa00, register.as_mut_ptr());
        check(i64::from(registered), "UFFDIO_REGISTER");
        if api[1] & 1 << 16 != 0 {
            // `UFFDIO_MOVE`: dst, src, len, mode, moved.
            let mut moved = [target.start as u64, source.start as u64, half as u64, 0, 0];
            check(i64::from(libc::ioctl(uffd, 0xc028_aa05, moved.as_mut_ptr())), "UFFDIO_MOVE");
        }
        libc::close(uffd);
    }
    // What was registered is merged again when the descriptor is closed.
    target.unmap();
    say("stopped");
    told();
}

/// Kills a child and gives its memory back from here (process_mrelease(2)), unless it was faster.
pub(crate) fn release_victim() {
    // SAFETY: a child that waits, a descriptor of it, a signal to it, and its end.
    unsafe {
        let (mut ready, tell) = io::pipe().expect("a pipe");
        let child = libc::fork();
        if child == 0 {
            drop(ready);
            Mapped::anon(N).touch();
            drop(tell);
            loop {
                libc::pause();
            }
        }
        drop(tell);
        let _ = io::Read::read(&mut ready, &mut [0]);
        let pidfd = check(libc::syscall(libc::SYS_pidfd_open, child, 0), "pidfd_open");
        check(i64::from(libc::kill(child, libc::SIGKILL)), "kill");
        // `ESRCH` when the child gave it back itself.
        libc::syscall(448, pidfd, 0);
        libc::waitpid(child, ptr::null_mut(), 0);
    }
}
