//! Programs whose memory the kernel takes since their cgroup has no more.

use std::{
    fs,
    io::{self, Read as _},
    time::{Duration, Instant},
};

use super::{
    super::{
        driver::{PAGE, size},
        group::Group,
        paths::N,
        workload::{Mapped, child},
    },
    held::Held,
};

/// What the reaper leaves: pages that it may not take, and what each CPU counted and did not add.
const FEW_PAGES: u64 = N / 8;

/// Has a child run out of memory and holds it at its exit until the OOM reaper, which waits two
/// seconds, has taken its memory (`oom_reap_task`, mm/oom_kill.c).
pub(crate) fn oom_victim() {
    let group = Group::new();
    group.limit(N * PAGE);
    let (mut told, tell) = io::pipe().expect("a pipe");
    // SAFETY: a child that touches memory until it is killed.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        drop(tell);
        group.enter(std::process::id());
        let _ = told.read(&mut [0]);
        Mapped::anon(4 * N).touch();
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(1) };
    }
    let held = Held::seize(child);
    drop(tell);
    held.wait();
    let deadline = Instant::now() + Duration::from_secs(60);
    // First they are detached, then freed.
    while anonymous_pages(child) > FEW_PAGES || group.pages() > FEW_PAGES {
        assert!(Instant::now() < deadline, "the reaper did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
    held.let_go();
    let mut status = 0;
    // SAFETY: waits for our child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL, "{status:x}");
}

/// Gives memory up lazily, and needs more than its cgroup has without it.
pub(crate) fn pressed() {
    let group = Group::new();
    group.limit(N * 3 / 2 * PAGE);
    child(|| {
        group.enter(std::process::id());
        let lazy = Mapped::anon(N).touch().advise(libc::MADV_FREE);
        Mapped::anon(N).touch();
        lazy.unmap();
    });
}

fn anonymous_pages(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is held");
    size(&status, "RssAnon:").expect("its memory is still there") / PAGE
}
