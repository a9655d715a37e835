//! A file and what is mapped of it.

use std::{
    fs,
    io::Write as _,
    os::fd::{AsRawFd as _, RawFd},
    path::PathBuf,
    ptr,
};

use super::{
    super::driver::{PAGE, scratch},
    Mapped,
    mapped::pages,
};

/// A file of so many pages that is gone when it is dropped.
pub(crate) struct File {
    file: fs::File,
    path: PathBuf,
    pages: u64,
}

impl File {
    pub(crate) fn new(count: u64) -> Self {
        let path = scratch("file");
        let file = fs::File::options().read(true).write(true).create_new(true).open(&path);
        let mut file = file.expect("a new file");
        // Page by page: no memory is taken for it.
        for _ in 0..count {
            file.write_all(&[7; PAGE as usize]).expect("room for a file");
        }
        Self { file, path, pages: count }
    }

    /// Has the kernel drop it from the page cache, where the file system has one.
    pub(crate) fn forget(&self) {
        self.file.sync_all().expect("it can be written");
        // SAFETY: advice about a file of ours.
        let done = unsafe { libc::posix_fadvise(self.fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(done, 0, "posix_fadvise");
    }

    /// Maps it, `MAP_PRIVATE` or `MAP_SHARED`.
    pub(crate) fn map(&self, flags: i32) -> Mapped {
        Mapped::map(ptr::null_mut(), pages(self.pages), flags, self.fd())
    }

    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.path).expect("our file");
    }
}
