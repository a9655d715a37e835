//! The notes of a core file (fs/binfmt_elf.c, 6.18): what the process was, and its files. Read one by
//! one, since there are some for each thread.

use std::{io, ops::Range};

use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout, little_endian::U32};

use super::elf::ReadAt;
use crate::{allocator::memory::word, model::region_map::PAGE};

/// What notes say of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Its number; where only its threads are named, that of the first.
    pub(super) tgid: Option<u32>,
    /// Its name.
    pub(super) comm: Option<String>,
    /// Its mapped files, in the order of the file.
    pub(super) files: Vec<MappedFile>,
    /// Where its program, the vdso and its stack are.
    pub(super) auxiliary: Auxiliary,
}

/// A part of a file that is mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MappedFile {
    pub(super) range: Range<u64>,
    /// Offset into the file, bytes.
    pub(super) offset: u64,
    pub(super) name: String,
}

/// Addresses of the auxiliary vector (getauxval(3)), 0 where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Auxiliary {
    /// `AT_PHDR`: the program headers of the executable.
    pub(super) program: u64,
    /// `AT_SYSINFO_EHDR`.
    pub(super) vdso: u64,
    /// `AT_RANDOM`: bytes on the stack, above where it begins.
    pub(super) random: u64,
}

/// `Elf64_Nhdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct NoteHeader {
    name: U32,
    contents: U32,
    kind: U32,
}

/// Kinds of notes that are called `CORE` (include/uapi/linux/elf.h).
pub(super) const STATUS: u32 = 1;
pub(super) const PROCESS: u32 = 3;
pub(super) const AUXILIARY: u32 = 6;
pub(super) const FILES: u32 = 0x4649_4c45;
/// `NT_GNU_BUILD_ID` of those that are called `GNU`.
pub(super) const BUILD_ID: u32 = 3;

/// Notes that are looked at: some for each thread.
const MOST: usize = 1 << 20;
/// Contents that are read: the kernel writes 16 MiB of file names at most (`core_file_note_size_max`,
/// fs/coredump.c, 6.11).
const MOST_BYTES: u64 = 16 << 20;

/// A note whose contents were not read yet.
struct Note<'a> {
    name: &'a [u8],
    kind: u32,
    /// Where its contents are.
    contents: Range<u64>,
}

/// Calls `each` with every note of a part of a file, until it returns false.
fn each_note<F: ReadAt>(
    file: &F,
    notes: Range<u64>,
    mut each: impl FnMut(&Note<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    let mut at = notes.start;
    for _ in 0..MOST {
        let mut header = NoteHeader::new_zeroed();
        let is_whole = file.fill(header.as_mut_bytes(), at)? == size_of::<NoteHeader>();
        let name_at = at.saturating_add(size_of::<NoteHeader>() as u64);
        if !is_whole || name_at > notes.end {
            break;
        }
        let aligned = |len: U32| u64::from(len.get()).next_multiple_of(4);
        let start = name_at.saturating_add(aligned(header.name));
        let end = start.saturating_add(header.contents.get().into());
        let mut name = [0; 8];
        let len = name.len().min(header.name.get() as usize);
        file.fill(&mut name[..len], name_at)?;
        let name = name[..len].split(|&byte| byte == 0).next().unwrap_or_default();
        let note = Note { name, kind: header.kind.get(), contents: start..end.min(notes.end) };
        if start > notes.end || !each(&note)? {
            break;
        }
        at = start.saturating_add(aligned(header.contents));
    }
    Ok(())
}

/// Reads what is there of the contents of a note.
fn contents<F: ReadAt>(file: &F, note: &Note<'_>) -> io::Result<Vec<u8>> {
    let Range { start, end } = note.contents;
    let there = end.min(file.size()?).saturating_sub(start).min(MOST_BYTES);
    let mut bytes = vec![0; there as usize];
    let len = file.fill(&mut bytes, start)?;
    bytes.truncate(len);
    Ok(bytes)
}

impl Notes {
    /// Adds what the notes in a part of a file say.
    pub(super) fn read<F: ReadAt>(&mut self, file: &F, notes: Range<u64>) -> io::Result<()> {
        each_note(file, notes, |note| {
            match (note.name, note.kind) {
                (b"CORE", STATUS) if self.tgid.is_none() => {
                    self.tgid = number(&contents(file, note)?, STATUS_PID);
                }
                (b"CORE", PROCESS) => self.process(&contents(file, note)?),
                (b"CORE", AUXILIARY) => self.auxiliary = auxiliary(&contents(file, note)?),
                (b"CORE", FILES) if self.files.is_empty() => {
                    self.files = files(&contents(file, note)?);
                }
                _ => {}
            }
            Ok(true)
        })
    }

    /// Takes `elf_prpsinfo` (include/linux/elfcore.h).
    fn process(&mut self, bytes: &[u8]) {
        self.tgid = number(bytes, PROCESS_PID).or(self.tgid);
        let name = bytes.get(PROCESS_NAME..).map(|rest| &rest[..rest.len().min(16)]);
        let name = name.and_then(|name| name.split(|&byte| byte == 0).next());
        self.comm = name.map(|name| String::from_utf8_lossy(name).into_owned());
    }
}

/// Where `pr_pid` is in `elf_prstatus`, and `pr_pid` and `pr_fname` are in `elf_prpsinfo`, 64 bits.
pub(super) const STATUS_PID: usize = 32;
pub(super) const PROCESS_PID: usize = 24;
pub(super) const PROCESS_NAME: usize = 40;

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}

fn auxiliary(bytes: &[u8]) -> Auxiliary {
    let mut found = Auxiliary::default();
    for pair in bytes.chunks_exact(16) {
        let value = word(&pair[8..]);
        match word(&pair[..8]) {
            3 => found.program = value,
            25 => found.random = value,
            33 => found.vdso = value,
            _ => {}
        }
    }
    found
}

/// Takes `NT_FILE` (`fill_files_note`): a count, the unit of offsets, ranges with their offsets, then
/// all names.
fn files(bytes: &[u8]) -> Vec<MappedFile> {
    let mut words = bytes.chunks_exact(8).map(word);
    let (Some(count), Some(unit)) = (words.next(), words.next()) else { return Vec::new() };
    let names_at = count.checked_mul(24).and_then(|len| usize::try_from(len).ok()?.checked_add(16));
    let Some((heads, names)) = names_at.and_then(|at| bytes.split_at_checked(at)) else {
        return Vec::new();
    };
    let heads = heads[16..].chunks_exact(24);
    let mut files: Vec<MappedFile> = heads
        .zip(names.split(|&byte| byte == 0))
        .map(|(head, name)| MappedFile {
            range: word(&head[..8])..word(&head[8..16]),
            offset: word(&head[16..]).saturating_mul(unit),
            name: String::from_utf8_lossy(name).into_owned(),
        })
        .filter(|file| {
            let Range { start, end } = file.range;
            start < end && start.is_multiple_of(PAGE) && end.is_multiple_of(PAGE)
        })
        .collect();
    files.sort_by_key(|file| file.range.start);
    // What overlaps was damaged.
    files.dedup_by(|next, file| next.range.start < file.range.end);
    files
}

/// Returns the build id that notes in a part of a file tell.
pub(super) fn build_id<F: ReadAt>(file: &F, notes: Range<u64>) -> io::Result<Option<Vec<u8>>> {
    let mut found = None;
    each_note(file, notes, |note| {
        if (note.name, note.kind) == (b"GNU", BUILD_ID) {
            found = Some(contents(file, note)?).filter(|id| !id.is_empty());
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}
