//! A core file (core(5)) of a 64-bit x86 program, as the kernel or `gcore` writes it: the memory that
//! a process had, what of it is in the file. What was resident, and what shared, is not in it.
//!
//! Reading order: `elf` (headers), `notes` (what the process was), `memory` (how it is read),
//! `mappings` (its regions), `library` (the versions of libraries that it had).

mod elf;
mod library;
pub mod made_up;
mod mappings;
mod memory;
mod notes;
#[cfg(test)]
mod tests;

use std::{fs::File, io, os::unix::fs::OpenOptionsExt as _, path::Path};

pub use self::{
    elf::{CoreError, ReadAt},
    library::read as read_library,
    memory::CoreMemory,
};
use self::{memory::Segment, notes::Notes};
use super::{
    allocators::{About, Allocators, walk_memory},
    progress::{Counted, Counter},
};
use crate::allocator::{
    glibc,
    mappings::{Mappings, is_private_writable},
};

/// What a core file tells of a process.
#[derive(Debug)]
pub struct Core<F> {
    /// What was in its memory.
    pub memory: CoreMemory<F>,
    /// Its regions.
    pub mappings: Mappings,
    /// Its number, if the core says so.
    pub tgid: Option<u32>,
    /// Its name, if the core says so.
    pub comm: Option<String>,
    /// Its executable, if the core says so.
    pub exe: Option<String>,
    /// How much of it is not there.
    pub lacks: Lacks,
}

/// What is not in a core file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// Bytes of memory that should be in it: it was cut short.
    pub bytes: u64,
    /// It ends in its headers: how much more is missing is not known.
    pub headers: bool,
    /// It does not say which files were mapped.
    pub files: bool,
    /// It holds nothing that the program wrote (`/proc/PID/coredump_filter`).
    pub data: bool,
}

/// Opens a core file, and counts what is read of it.
///
/// Errors: it is none, or one that is not known here; it cannot be read.
pub fn open(path: &Path, counter: &Counter) -> Result<Core<Counted<File>>, CoreError> {
    let file = open_regular(path)?.ok_or(CoreError::NotRegular)?;
    Core::read(Counted { file, counter: counter.clone() })
}

/// Opens a file; `None` when it is something else, of which reading may never end.
fn open_regular(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

impl<F: ReadAt> Core<F> {
    /// Reads the headers and notes of a core file.
    ///
    /// Errors: as for [`open`].
    pub fn read(file: F) -> Result<Self, CoreError> {
        let header = elf::core_header(&file)?;
        let size = file.size()?;
        let (mut segments, mut parts) = (Vec::new(), Vec::new());
        let is_whole = elf::each_program(&file, &header, |program| match program.kind.get() {
            elf::LOAD => segments.extend(Segment::new(program, size)),
            elf::NOTE => parts.push(program.file_range()),
            _ => {}
        })?;
        if segments.is_empty() {
            return Err(if is_whole { CoreError::NoMemory } else { CoreError::CutShort });
        }
        let mut notes = Notes::default();
        for part in parts {
            notes.read(&file, part)?;
        }
        let memory = CoreMemory::new(file, segments);
        let mut mappings = Mappings::new(mappings::mappings(memory.segments(), &notes));
        let program = mappings.at(notes.auxiliary.program);
        let exe = program.map(|program| program.path()).filter(|path| path.starts_with('/'));
        let exe = exe.map(str::to_owned);
        if let Some(start) = glibc::brk_start(&memory, &mappings, exe.as_deref())? {
            mappings.name_heap(start);
        }
        let lacks = Lacks {
            bytes: memory.segments().iter().fold(0, |sum, s| s.missing.saturating_add(sum)),
            headers: !is_whole,
            files: notes.files.is_empty(),
            data: !holds_data(&memory, &mappings),
        };
        let Notes { tgid, comm, .. } = notes;
        Ok(Self { memory, mappings, tgid, comm, exe, lacks })
    }

    /// Walks its allocators. `library` returns the contents of a file that was mapped, by its path, as
    /// far as it is still there.
    pub fn walk(&self, library: impl Fn(&str) -> Option<Vec<u8>>) -> Allocators {
        let Self { memory, mappings, exe, lacks, .. } = self;
        let about = About {
            exe: exe.as_deref(),
            is_stopped: true,
            library: &|mapping| library::same(memory, mapping, &library),
            has_background_thread: &|| None,
            go: &|| None,
        };
        let mut found = walk_memory(memory, mappings, &about);
        for walked in &mut found.walked {
            walked.is_lower_bound |= lacks.bytes > 0 || lacks.headers;
        }
        found
    }
}

/// Tells whether anything that the program may have written is in a core.
fn holds_data<F: ReadAt>(memory: &CoreMemory<F>, mappings: &Mappings) -> bool {
    let there = memory.segments().iter().filter(|segment| !segment.data.is_empty());
    let mut mappings = there.filter_map(|segment| mappings.at(segment.pages.start));
    mappings.any(|mapping| is_private_writable(mapping) && mapping.name != "[stack]")
}
