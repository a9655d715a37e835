//! Programs whose memory the kernel takes since their cgroup has no more.

use std::{
    fs, io,
    path::{Path, PathBuf},
    ptr,
    time::{Duration, Instant},
};

use super::super::{driver::PAGE, paths::N, workload::Mapped};

/// A memory cgroup with a limit, of version 1 or 2.
pub(crate) struct Group {
    folder: PathBuf,
    /// The file that tells how much its processes have, freed frames no more.
    usage: &'static str,
}

impl Group {
    pub(crate) fn new(limit: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("memtrace-oom-{}", std::process::id());
        let (folder, file, usage) = if root.join("memory").is_dir() {
            let folder = root.join("memory").join(name);
            (folder, "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            // It may be on already.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.join(name), "memory.max", "memory.current")
        };
        fs::create_dir(&folder).expect("root may make a cgroup");
        let this = Self { folder, usage };
        fs::write(this.folder.join(file), limit.to_string()).expect("a limit");
        this
    }

    /// Returns the pages that its processes have and the kernel has for them.
    fn pages(&self) -> u64 {
        let usage = fs::read_to_string(self.folder.join(self.usage)).expect("it can be read");
        usage.trim().parse::<u64>().expect("bytes") / PAGE
    }

    /// Moves the current process in.
    pub(crate) fn enter(&self) {
        let pid = std::process::id().to_string();
        fs::write(self.folder.join("cgroup.procs"), pid).expect("a process may be moved");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
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
        // First they are detached, then freed.
        while anonymous_pages(child) > FEW_PAGES || group.pages() > FEW_PAGES {
            assert!(Instant::now() < deadline, "the reaper did not come");
            std::thread::sleep(Duration::from_millis(20));
        }
        trace(libc::PTRACE_CONT, 0);
        let status = wait();
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
    }
}

/// Gives memory up lazily, and needs more than its cgroup has without it.
pub(crate) fn pressed() {
    let group = Group::new(N * 3 / 2 * PAGE);
    // SAFETY: a child that touches memory.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            group.enter();
            let lazy = Mapped::anon(N).touch().advise(libc::MADV_FREE);
            Mapped::anon(N).touch();
            lazy.unmap();
            libc::_exit(0);
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:x}");
    }
}

fn anonymous_pages(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is held");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("its memory is still there") * 1024 / PAGE
}
