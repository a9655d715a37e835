//! A small disk of its own.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

/// A file system of so many bytes (tmpfs(5)), mounted as long as this lives.
pub(crate) struct Disk(TempDir);

impl Disk {
    pub(crate) fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        assert!(mount.status().expect("it runs").success());
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no room on it but in the last pages of its files.
    pub(crate) fn fill(&self) {
        let mut rest = File::create(self.path().join("rest")).expect("it can be written");
        let filled = io::copy(&mut io::repeat(0), &mut rest).expect_err("it is small");
        assert_eq!(filled.kind(), ErrorKind::StorageFull);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
