//! A memory cgroup, of version 1 or 2.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
};

/// Bytes of a page.
const PAGE: u64 = 4096;

pub(crate) struct Group {
    folder: PathBuf,
    files: &'static Files,
}

/// What the versions call the same.
struct Files {
    limit: &'static str,
    /// How much its processes have, freed frames no more.
    usage: &'static str,
    /// The anonymous memory among it, in `memory.stat`.
    anon: &'static str,
}

impl Group {
    pub(crate) fn new() -> Self {
        const ONE: Files =
            Files { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", anon: "rss" };
        const TWO: Files = Files { limit: "memory.max", usage: "memory.current", anon: "anon" };
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("memtrace-test-{}", process::id());
        let (folder, files) = if root.join("memory").is_dir() {
            (root.join("memory").join(name), &ONE)
        } else {
            // It may be on already.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.join(name), &TWO)
        };
        fs::create_dir(&folder).expect("root may make a cgroup");
        Self { folder, files }
    }

    /// Returns its path, as `/proc/PID/cgroup` ends.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.folder.file_name().expect("a name").to_string_lossy())
    }

    pub(crate) fn limit(&self, bytes: u64) {
        fs::write(self.folder.join(self.files.limit), bytes.to_string()).expect("a limit");
    }

    /// Moves a process in.
    pub(crate) fn enter(&self, pid: u32) {
        fs::write(self.processes(), pid.to_string()).expect("a process may be moved");
    }

    /// Has a program executed in it.
    pub(crate) fn hold(&self, command: &mut Command) {
        let file = self.processes();
        // SAFETY: system calls alone.
        unsafe { command.pre_exec(move || fs::write(&file, "0")) };
    }

    fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Returns the pages that its processes have and the kernel has for them.
    pub(crate) fn pages(&self) -> u64 {
        let usage = fs::read_to_string(self.folder.join(self.files.usage));
        usage.expect("it can be read").trim().parse::<u64>().expect("bytes") / PAGE
    }

    /// Returns the pages that its processes have, of anonymous and of shared memory.
    pub(crate) fn anon_and_shmem(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join("memory.stat")).expect("it can be read");
        let bytes = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            let (_, bytes) = lines.find(|(name, _)| *name == key).expect("it is counted");
            bytes.parse::<u64>().expect("bytes")
        };
        (bytes(self.files.anon) + bytes("shmem")) / PAGE
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
