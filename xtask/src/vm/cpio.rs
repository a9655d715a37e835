//! Writes the archive that the kernel unpacks as its first file system (cpio, format `newc`).
//!
//! The format is in Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

use std::collections::BTreeSet;

const FOLDER: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;

/// An archive in the making.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    inode: u32,
}

impl Archive {
    /// Adds a folder and those above it.
    pub(super) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.folders.contains(path) {
            return;
        }
        self.folders_above(path);
        self.folders.insert(path.to_owned());
        self.entry(path, FOLDER, &[]);
    }

    /// Adds a file and the folders above it; `permissions` is as chmod takes it.
    pub(super) fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        let path = path.trim_matches('/');
        self.folders_above(path);
        self.entry(path, REGULAR | permissions, contents);
    }

    /// Closes the archive and returns its bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn folders_above(&mut self, path: &str) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(contents.len()).expect("a file of less than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a short name");
        let links = if mode == FOLDER { 2 } else { 1 };
        // inode, mode, uid, gid, links, time, size, 2 × device, 2 × rdevice, name's size, checksum
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive as the kernel does: name, mode, contents.
    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut rest = archive;
        let mut all = Vec::new();
        loop {
            assert_eq!(&rest[..6], b"070701");
            let field = |at: usize| {
                let text = std::str::from_utf8(&rest[6 + at * 8..14 + at * 8]).expect("hex");
                u32::from_str_radix(text, 16).expect("hex") as usize
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let data = (110 + name_size).next_multiple_of(4);
            let name = &rest[110..110 + name_size - 1];
            assert_eq!(rest[110 + name_size - 1], 0);
            if name == b"TRAILER!!!" {
                assert_eq!(rest.len(), data);
                return all;
            }
            all.push((
                String::from_utf8_lossy(name).into_owned(),
                u32::try_from(mode).expect("a mode"),
                rest[data..data + size].to_vec(),
            ));
            rest = &rest[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let mut archive = Archive::default();
        archive.folder("/sys/fs");
        for length in 0..9 {
            archive.file(&format!("/bin/{}", "n".repeat(length + 1)), 0o755, &vec![7; length]);
        }
        let entries = entries(&archive.finish());
        let names: Vec<_> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(&names[..4], ["sys", "sys/fs", "bin", "bin/n"]);
        assert_eq!(entries[1].1, 0o040_755);
        for (length, (_, mode, contents)) in entries[3..].iter().enumerate() {
            assert_eq!(*mode, 0o100_755);
            assert_eq!(*contents, vec![7; length]);
        }
    }

    #[test]
    fn a_folder_is_written_once() {
        let mut archive = Archive::default();
        archive.file("a/b/c", 0o644, b"");
        archive.file("a/b/d", 0o644, b"");
        archive.folder("a");
        let names: Vec<_> = entries(&archive.finish()).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d"]);
    }
}
