//! Programs that touch, give up and share memory in known amounts.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::{
    super::{
        driver::PAGE,
        group::Group,
        paths::N,
        workload::{File, HUGE, Mapped, cases::run_on, child, forbid_huge_pages, say, told},
    },
    fills::HUGE_PAGES,
    kept::PINNED,
    remanence::{CHILDREN, EACH},
};

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// Does what the first argument says.
pub(crate) fn run(args: &[String]) {
    let name = args.first().expect("a program");
    // Only what names them wants any.
    forbid_huge_pages(!name.starts_with("huge"));
    match name.as_str() {
        "huge_nothing" => {}
        "huge_and_other_fills" => fills(),
        "cold_file" => {
            let cold = File::new(N / 8);
            cold.forget();
            let file = cold.map(libc::MAP_PRIVATE);
            // Of this half each page is read by the fault that copies it; the other is read ahead.
            file.part(0, N / 16).advise(libc::MADV_RANDOM);
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

/// Frames filled in each way that there is: how many, says the test.
fn fills() {
    let inherited = anon(N).touch();
    Mapped::huge(HUGE_PAGES * HUGE);
    Mapped::shared_anon(N / 4).touch();
    let file = File::new(N / 8).map(libc::MAP_PRIVATE);
    file.part(N / 16, N / 16).read();
    file.touch();
    child(|| _ = inherited.part(0, N / 16).touch());
}

/// A child copies pages that it inherited, and in between maps what needs no new frame.
fn copies_among_others() {
    let inherited = anon(N / 8).touch();
    let shared = Mapped::shared_anon(N / 8).touch();
    let file = File::new(N / 8);
    child(|| {
        // Mapped by the child, so that nothing of it is in its page tables.
        let file = file.map(libc::MAP_PRIVATE);
        for page in 0..N / 8 {
            inherited.part(page, 1).touch();
            shared.part(page, 1).touch();
            file.part(page, 1).read();
        }
    });
}

fn lazily_free() {
    let mapped = anon(N).touch();
    say("ready");
    told();
    mapped.advise(libc::MADV_FREE);
    mapped.part(0, N / 4).touch();
    mapped.part(N / 2, N / 2).advise(libc::MADV_PAGEOUT);
    say("stopped");
    told();
}

/// Unmaps the first half of each huge page, then the second.
fn huge_halves() {
    let mapped = Mapped::huge(HUGE_PAGES * HUGE);
    say("ready");
    for (from, line) in [(0, "first halves gone"), (HUGE / 2, "second halves gone")] {
        told();
        mapped.unmap_halves(from);
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
    mapped.part(0, N / 2).touch();
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
            inherited.part(page, 1).touch();
            own.part(page, 1).touch();
        }
    });
}
