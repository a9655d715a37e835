//! A made-up core file: what tests and fuzzers read.

use zerocopy::IntoBytes as _;

use super::{
    elf::{self, Header, ProgramHeader},
    notes,
};
use crate::model::region_map::PAGE;

/// Where its parts are.
pub(super) const EXE: u64 = 0x40_0000;
pub(super) const HEAP: u64 = 0x1234_5000;
pub(super) const HEAP_PAGES: u64 = 16;
pub(super) const LIBC: u64 = 0x7000_0000;
pub(super) const DATA: u64 = LIBC + 4 * PAGE;
pub(super) const VDSO: u64 = 0x7fff_0000;
pub(super) const STACK: u64 = 0x7fff_8000;
/// What its libc is told by.
pub(super) const BUILD_ID: &[u8] = b"this very libc";

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
    /// A program whose heap nobody names: a cache, a free chunk of 4 KiB, one in use, and the top.
    pub fn program() -> Self {
        let (arena, bins, top) = (0x350, 0x350 + 112, HEAP + 0x290 + 0x1000 + 0x20);
        let mut data = vec![0; 2 * PAGE as usize];
        // `mp_` of 2.36.
        write(&mut data, 0x100, &[131_072, 131_072, 131_072, 8]);
        write(&mut data, 0x100 + 56, &[0, 65536, 0, 0, 0, HEAP, 64, 1032, 7]);
        // `main_arena`.
        write(&mut data, arena, &[0]);
        write(&mut data, bins - 16, &[top]);
        for bin in 0..127 {
            let own = DATA + bins + 16 * bin - 16;
            write(&mut data, bins + 16 * bin, &[own, own]);
        }
        let system = HEAP_PAGES * PAGE;
        write(&mut data, bins + 2048, &[DATA + arena, 0, 1, system, system]);
        let mut heap = vec![0; system as usize];
        write(&mut heap, 0, &[0, 0x291]);
        write(&mut heap, 0x290, &[0, 0x1001]);
        write(&mut heap, 0x1290, &[0x1000, 0x20]);
        write(&mut heap, 0x12b0, &[0, system - 0x12b0 + 1]);
        let head = library(BUILD_ID, &[]);
        Self {
            segments: vec![
                (EXE, 2 * PAGE, elf::READ | elf::EXEC, vec![1; PAGE as usize]),
                (HEAP, system, elf::READ | elf::WRITE, heap),
                (LIBC, 2 * PAGE, elf::READ, head),
                (DATA, 2 * PAGE, elf::READ | elf::WRITE, data),
                (VDSO, PAGE, elf::READ | elf::EXEC, vec![1; PAGE as usize]),
                (STACK, 2 * PAGE, elf::READ | elf::WRITE, vec![2; 2 * PAGE as usize]),
                (0xffff_ffff_ff60_0000, PAGE, elf::EXEC, Vec::new()),
            ],
            files: vec![
                (EXE, EXE + 2 * PAGE, 0, "/usr/bin/program"),
                (LIBC, LIBC + 2 * PAGE, 0, "/usr/lib/libc.so.6"),
                // No segment holds this part.
                (LIBC + 2 * PAGE, DATA, 2, "/usr/lib/libc.so.6"),
                (DATA, DATA + PAGE, 4, "/usr/lib/libc.so.6"),
            ],
            auxiliary: vec![(3, EXE + 64), (33, VDSO), (25, STACK + PAGE + 9), (0, 0)],
            process: Some((42, "program")),
            has_many: false,
        }
    }

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

fn write(bytes: &mut [u8], at: u64, words: &[u64]) {
    for (into, word) in bytes[at as usize..].chunks_exact_mut(8).zip(words) {
        into.copy_from_slice(&word.to_le_bytes());
    }
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
