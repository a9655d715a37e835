//! A made-up core file: what tests and fuzzers read.

use zerocopy::IntoBytes as _;

use super::{
    elf::{self, Header, ProgramHeader},
    notes,
};

/// What a core file is made of.
#[derive(Clone, Debug, Default)]
pub struct MadeUp {
    /// Regions: first byte, size, `PF_` bits, what is in the file from the start on.
    pub segments: Vec<(u64, u64, u32, Vec<u8>)>,
    /// Mapped files: first byte, end, page in the file, name.
    pub files: Vec<(u64, u64, u64, &'static str)>,
    /// The auxiliary vector.
    pub auxiliary: Vec<(u64, u64)>,
    /// Number and name of the process.
    pub process: Option<(u32, &'static str)>,
    /// Only the first section header tells how many segments there are.
    pub has_many: bool,
}

impl MadeUp {
    /// Returns it as the kernel would write it: headers, notes, memory.
    pub fn bytes(&self) -> Vec<u8> {
        let notes = self.notes();
        let headers = size_of::<Header>() + (1 + self.segments.len()) * size_of::<ProgramHeader>();
        let sections_at = headers + notes.len();
        let mut at = sections_at + 64;
        let note = program(elf::NOTE, elf::READ, headers, (0, 0), notes.len());
        let mut programs = vec![note];
        for (start, size, flags, bytes) in &self.segments {
            programs.push(program(elf::LOAD, *flags, at, (*start, *size), bytes.len()));
            at += bytes.len();
        }
        let mut file = header(programs.len(), sections_at, self.has_many).as_bytes().to_vec();
        for program in &programs {
            file.extend_from_slice(program.as_bytes());
        }
        file.extend_from_slice(&notes);
        let mut section = [0; 64];
        section[44..48].copy_from_slice(&(programs.len() as u32).to_le_bytes());
        file.extend_from_slice(&section);
        for (.., bytes) in &self.segments {
            file.extend_from_slice(bytes);
        }
        file
    }

    fn notes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        if let Some((pid, name)) = self.process {
            let mut status = vec![0; 336];
            status[notes::STATUS_PID..][..4].copy_from_slice(&(pid + 1).to_le_bytes());
            let mut process = vec![0; 136];
            process[notes::PROCESS_PID..][..4].copy_from_slice(&pid.to_le_bytes());
            process[notes::PROCESS_NAME..][..name.len()].copy_from_slice(name.as_bytes());
            all.extend([
                note("CORE", notes::STATUS, &status),
                note("CORE", notes::PROCESS, &process),
            ]);
        }
        if !self.auxiliary.is_empty() {
            let words = self.auxiliary.iter().flat_map(|&(kind, value)| [kind, value]);
            all.push(note("CORE", notes::AUXILIARY, &words_of(words)));
        }
        if !self.files.is_empty() {
            let heads = self.files.iter().flat_map(|&(start, end, page, _)| [start, end, page]);
            let mut bytes = words_of([self.files.len() as u64, 4096].into_iter().chain(heads));
            for (.., name) in &self.files {
                bytes.extend([name.as_bytes(), &[0]].concat());
            }
            all.push(note("CORE", notes::FILES, &bytes));
        }
        all.concat()
    }
}

/// Returns an ELF file that has nothing but a build id.
pub fn library(build_id: &[u8], text: &[u8]) -> Vec<u8> {
    let id = note("GNU", notes::BUILD_ID, build_id);
    let headers = size_of::<Header>() + size_of::<ProgramHeader>();
    let program = program(elf::NOTE, elf::READ, headers, (0, 0), id.len());
    [header(1, 0, false).as_bytes(), program.as_bytes(), &id, text].concat()
}

fn header(programs: usize, sections_at: usize, has_many: bool) -> Header {
    let mut ident = [0; 16];
    ident[..4].copy_from_slice(&elf::MAGIC);
    (ident[4], ident[5], ident[6]) = (elf::CLASS_64, elf::LITTLE_ENDIAN, 1);
    Header {
        ident,
        kind: elf::CORE.into(),
        machine: elf::X86_64.into(),
        version: 1.into(),
        entry: 0.into(),
        programs_at: (size_of::<Header>() as u64).into(),
        sections_at: (sections_at as u64).into(),
        flags: 0.into(),
        own_size: (size_of::<Header>() as u16).into(),
        program_size: (size_of::<ProgramHeader>() as u16).into(),
        programs: if has_many { elf::MANY } else { programs as u16 }.into(),
        section_size: 64.into(),
        sections: 1.into(),
        names: 0.into(),
    }
}

fn program(
    kind: u32,
    flags: u32,
    offset: usize,
    (address, size): (u64, u64),
    in_file: usize,
) -> ProgramHeader {
    ProgramHeader {
        kind: kind.into(),
        flags: flags.into(),
        offset: (offset as u64).into(),
        address: address.into(),
        physical: 0.into(),
        in_file: (in_file as u64).into(),
        in_memory: size.into(),
        align: 1.into(),
    }
}

fn note(name: &str, kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for number in [name.len() as u32 + 1, contents.len() as u32, kind] {
        note.extend_from_slice(&number.to_le_bytes());
    }
    for part in [name.as_bytes(), &[0], &[0; 3][..3 - name.len() % 4], contents] {
        note.extend_from_slice(part);
    }
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

fn words_of(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}
