//! A program whose memory the kernel's OOM reaper takes while the program itself is held up.

use std::{
    fs, io,
    path::{Path, PathBuf},
    ptr,
    time::{Duration, Instant},
};

use super::super::{driver::PAGE, paths::N, workload::Mapped};

/// A memory cgroup with a limit, of version 1 or 2.
struct Group(PathBuf);

impl Group {
    fn new(limit: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("memtrace-oom-{}", std::process::id());
        let (group, file) = if root.join("memory").is_dir() {
            (root.join("memory").join(name), "memory.limit_in_bytes")
        } else {
            // It may be on already.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.join(name), "memory.max")
        };
        fs::create_dir(&group).expect("root may make a cgroup");
        let this = Self(group);
        fs::write(this.0.join(file), limit.to_string()).expect("a limit");
        this
    }

    /// Moves the current process in.
    fn enter(&self) {
        let pid = std::process::id().to_string();
        fs::write(self.0.join("cgroup.procs"), pid).expect("a process may be moved");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// What the reaper leaves: pages that it may not take, and what each CPU counted and did not add.
const FEW_PAGES: u64 = N / 8;

/// Has a child run out of memory and holds it at its exit until the OOM reaper, which waits two
/// seconds, has taken its memory (`oom_reap_task`, mm/oom_kill.c).
pub(crate) fn oom_victim() {
    let group = Group::new(N * PAGE);
    // SAFETY: a child that touches memory until it is killed, and ptrace(2) on it.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            group.enter();
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            Mapped::anon(4 * N).touch();
            libc::_exit(1);
        }
        let wait = || {
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            status
        };
        let trace = |request, argument: i32| {
            let done = libc::ptrace(request, child, ptr::null_mut::<libc::c_void>(), argument);
            assert_eq!(done, 0, "ptrace: {}", io::Error::last_os_error());
        };
        assert!(libc::WIFSTOPPED(wait()));
        trace(libc::PTRACE_SETOPTIONS, libc::PTRACE_O_TRACEEXIT | libc::PTRACE_O_EXITKILL);
        trace(libc::PTRACE_CONT, 0);
        let held = libc::SIGTRAP | libc::PTRACE_EVENT_EXIT << 8;
        assert_eq!(wait() >> 8, held, "it is held before it gives its memory up itself");
        let deadline = Instant::now() + Duration::from_secs(60);
        while anonymous_pages(child) > FEW_PAGES {
            assert!(Instant::now() < deadline, "the reaper did not come");
            std::thread::sleep(Duration::from_millis(20));
        }
        trace(libc::PTRACE_CONT, 0);
        let status = wait();
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
    }
}

fn anonymous_pages(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is held");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("its memory is still there") * 1024 / PAGE
}
