//! Where the code of a program lies, kept for when it has exited or unloaded a library: which file is
//! mapped where, and the files themselves, open.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use super::procfs::{self, Mapping, last_component};
use crate::model::{
    region_map::{Backing, Vma, flag},
    report::Frame,
};

/// A file with code.
#[derive(Debug)]
pub struct CodeFile {
    /// What it is called where the program runs.
    pub name: String,
    /// The file, `None` when it could not be opened.
    pub file: Option<File>,
}

/// A place in a file.
pub type Place = (Arc<CodeFile>, u64);

/// Code of the program that a process runs.
#[derive(Debug, Default)]
pub struct Code {
    /// By first byte: the end, the file, and the offset in it.
    ranges: BTreeMap<u64, (u64, Arc<CodeFile>, u64)>,
    files: Files,
}

/// Files with code by device and inode number, as the kernel tells them in maps; of several programs.
type Files = Rc<RefCell<HashMap<(u32, u64), Arc<CodeFile>>>>;

/// Regions and files that are kept of one process, at most.
const MOST: usize = 65_536;

impl Code {
    /// Returns nothing of another program, but the files that this one knows and will know.
    pub fn of_another(&self) -> Self {
        Self { ranges: BTreeMap::new(), files: Rc::clone(&self.files) }
    }

    /// Reads what is mapped now. What was there before and is not replaced is kept.
    ///
    /// Errors: the process is gone.
    pub fn look(&mut self, pid: u32) -> io::Result<()> {
        for mapping in procfs::maps(pid)? {
            let Mapping { start, end, flags, offset, dev, inode, .. } = mapping;
            if flags & flag::EXEC == 0 {
                continue;
            }
            let name = mapping.path().to_owned();
            let file = if inode == 0 {
                Arc::new(CodeFile { name, file: None })
            } else {
                let mut files = self.files.borrow_mut();
                let known = files.entry((dev, inode)).or_insert_with(|| {
                    let path = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
                    Arc::new(CodeFile { name, file: File::open(path).ok() })
                });
                Arc::clone(known)
            };
            self.map(start..end, file, offset);
        }
        Ok(())
    }

    /// Keeps files that a program will load, so that they are known should it exit at once.
    pub fn expect(&mut self, files: &[PathBuf]) {
        for path in files {
            let Ok(file) = File::open(path) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let dev = metadata.dev();
            let dev = libc::major(dev) << 20 | libc::minor(dev);
            let name = path.to_string_lossy().into_owned();
            let known = Arc::new(CodeFile { name, file: Some(file) });
            self.files.borrow_mut().insert((dev, metadata.ino()), known);
        }
    }

    /// Adds regions that the probes saw, where nothing is known yet. `name` gives a file's name.
    pub fn add<'a>(
        &mut self,
        regions: impl Iterator<Item = &'a Vma>,
        name: impl Fn(&Vma) -> Option<String>,
    ) {
        for vma in regions.filter(|vma| vma.flags & flag::EXEC != 0) {
            let Backing::File { dev, inode, offset, .. } = vma.backing else { continue };
            if self.at(vma.range.start).is_some() {
                continue;
            }
            let name = name(vma).unwrap_or_default();
            // Some file systems tell another device by stat(2) than in maps.
            let files = self.files.borrow();
            let known = files.get(&(dev, inode)).or_else(|| {
                let mut others = files.iter();
                let same = |&((_, other), file): &(&(u32, u64), &Arc<CodeFile>)| {
                    *other == inode && last_component(&file.name) == last_component(&name)
                };
                others.find(same).map(|(_, file)| file)
            });
            let file = known.cloned().unwrap_or_else(|| Arc::new(CodeFile { name, file: None }));
            drop(files);
            self.map(vma.range.clone(), file, offset);
        }
    }

    /// Forgets where code lies: the process executes another program.
    pub fn executed(&mut self) {
        self.ranges.clear();
    }

    fn map(&mut self, range: Range<u64>, file: Arc<CodeFile>, offset: u64) {
        let before = self.ranges.range(..range.end).rev();
        let overlapped: Vec<u64> =
            before.take_while(|(_, known)| known.0 > range.start).map(|(&at, _)| at).collect();
        for start in overlapped {
            self.ranges.remove(&start);
        }
        if self.ranges.len() < MOST && self.files.borrow().len() < MOST {
            self.ranges.insert(range.start, (range.end, file, offset));
        }
    }

    /// Returns the place in a file that is mapped at an address.
    pub fn at(&self, address: u64) -> Option<Place> {
        let (start, (end, file, offset)) = self.ranges.range(..=address).next_back()?;
        (address < *end).then(|| (Arc::clone(file), address - start + offset))
    }

    /// Returns a frame that is known by its place alone.
    pub fn frame((file, offset): &Place) -> Frame {
        Frame { function: None, file: Some(file.name.clone()), offset: format!("{offset:#x}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Arc<CodeFile> {
        Arc::new(CodeFile { name: name.to_owned(), file: None })
    }

    fn place(code: &Code, address: u64) -> Option<(String, u64)> {
        code.at(address).map(|(file, offset)| (file.name.clone(), offset))
    }

    #[test]
    fn a_place_is_counted_from_where_its_file_is_mapped() {
        let mut code = Code::default();
        code.map(0x1000..0x3000, file("a"), 0x500);
        assert_eq!(place(&code, 0x0fff), None);
        assert_eq!(place(&code, 0x1000), Some(("a".into(), 0x500)));
        assert_eq!(place(&code, 0x2fff), Some(("a".into(), 0x24ff)));
        assert_eq!(place(&code, 0x3000), None);
    }

    #[test]
    fn what_is_mapped_later_replaces_what_it_overlaps_and_nothing_else() {
        let mut code = Code::default();
        for (start, name) in [(0x1000, "a"), (0x2000, "b"), (0x3000, "c")] {
            code.map(start..start + 0x1000, file(name), 0);
        }
        code.map(0x1800..0x3000, file("d"), 0);
        assert_eq!(place(&code, 0x1000), None);
        assert_eq!(place(&code, 0x2000), Some(("d".into(), 0x800)));
        assert_eq!(place(&code, 0x3000), Some(("c".into(), 0)));
        code.executed();
        assert_eq!(place(&code, 0x3000), None);
    }

    #[test]
    fn our_own_code_is_found() {
        let mut code = Code::default();
        code.look(std::process::id()).expect("our own maps");
        let (file, _) = code.at(our_own_address()).expect("this function is mapped");
        assert!(file.file.is_some() && file.name.contains("memtrace"), "{}", file.name);
    }

    fn our_own_address() -> u64 {
        our_own_code_is_found as *const () as u64
    }
}
