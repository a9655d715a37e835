//! The headers of ELF files (elf(5)), as far as a core file has them. Any bytes give segments or a
//! clean error. (The `object` crate wants its tables in memory, of any length, and aligned.)

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _};

use zerocopy::{
    FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64},
};

use crate::source::progress::Counted;

/// Something that is read in place, piece by piece.
pub trait ReadAt {
    /// Returns its length.
    ///
    /// Errors: it cannot be looked at.
    fn size(&self) -> io::Result<u64>;

    /// Reads some bytes; 0 at its end.
    ///
    /// Errors: it cannot be read.
    fn read_some(&self, into: &mut [u8], at: u64) -> io::Result<usize>;

    /// Reads what is there, and fills up with zeros. Returns how much was there.
    ///
    /// Errors: it cannot be read.
    fn fill(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut len = 0;
        while len < into.len() {
            match self.read_some(&mut into[len..], at.saturating_add(len as u64)) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        into[len..].fill(0);
        Ok(len)
    }
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_some(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        // The kernel refuses offsets that are negative to it.
        if at > i64::MAX as u64 { Ok(0) } else { self.read_at(into, at) }
    }
}

impl<F: ReadAt> ReadAt for Counted<F> {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_some(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let len = self.file.read_some(into, at)?;
        self.counter.add(len);
        Ok(len)
    }
}

impl ReadAt for &[u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_some(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// Why a file is no core file that can be walked.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// Nothing is in it.
    #[error("it is empty")]
    Empty,
    /// A folder, a pipe or a device.
    #[error("it is not a regular file")]
    NotRegular,
    /// It is something else.
    #[error("it is not an ELF file")]
    NotElf,
    /// Its first bytes are those of a compressed file.
    #[error("it is compressed")]
    Compressed,
    /// A program, a library or an object file.
    #[error("it is an ELF file, but no core file")]
    NotCore,
    /// Of a 32-bit program.
    #[error("it is the core file of a 32-bit program")]
    Is32Bit,
    /// Of another architecture.
    #[error("it is the core file of another architecture than x86-64")]
    OtherMachine,
    /// It ends before its headers do.
    #[error("it is cut short: it ends in its headers")]
    CutShort,
    /// Its headers make no sense.
    #[error("its headers are damaged")]
    Damaged,
    /// It has nothing to walk: it may be the kernel's.
    #[error("it holds no memory of a process")]
    NoMemory,
    /// It could not be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
}

/// `Elf64_Ehdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) ident: [u8; 16],
    pub(super) kind: U16,
    pub(super) machine: U16,
    pub(super) version: U32,
    pub(super) entry: U64,
    pub(super) programs_at: U64,
    pub(super) sections_at: U64,
    pub(super) flags: U32,
    pub(super) own_size: U16,
    pub(super) program_size: U16,
    pub(super) programs: U16,
    pub(super) section_size: U16,
    pub(super) sections: U16,
    pub(super) names: U16,
}

/// `Elf64_Phdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ProgramHeader {
    pub(super) kind: U32,
    pub(super) flags: U32,
    pub(super) offset: U64,
    pub(super) address: U64,
    pub(super) physical: U64,
    pub(super) in_file: U64,
    pub(super) in_memory: U64,
    pub(super) align: U64,
}

pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";
/// `ELFCLASS32`, `ELFCLASS64` and `ELFDATA2LSB`.
const CLASS_32: u8 = 1;
pub(super) const CLASS_64: u8 = 2;
pub(super) const LITTLE_ENDIAN: u8 = 1;
/// `ET_CORE` and `EM_X86_64`.
pub(super) const CORE: u16 = 4;
pub(super) const X86_64: u16 = 62;
/// `PT_LOAD` and `PT_NOTE`.
pub(super) const LOAD: u32 = 1;
pub(super) const NOTE: u32 = 4;
/// `PF_X`, `PF_W` and `PF_R`.
pub(super) const EXEC: u32 = 1;
pub(super) const WRITE: u32 = 2;
pub(super) const READ: u32 = 4;
/// `PN_XNUM`: the number of program headers is `sh_info` of the first section header.
pub(super) const MANY: u16 = 0xffff;
const INFO_AT: usize = 44;
/// Program headers that are taken at most, sixteen times the default of `vm.max_map_count`.
const MOST: u32 = 1 << 20;
/// … and that are read at once.
const BATCH: usize = 1024;

/// How compressed files begin: gzip, zstd, lz4, xz.
const COMPRESSED: [&[u8]; 4] =
    [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\xfd7zXZ\0"];

/// Reads the header of a core file of ours.
pub(super) fn core_header<F: ReadAt>(file: &F) -> Result<Header, CoreError> {
    let mut header = Header::new_zeroed();
    let len = file.fill(header.as_mut_bytes(), 0)?;
    let begins = |magic: &&[u8]| header.as_bytes()[..len].starts_with(magic);
    match len {
        0 => return Err(CoreError::Empty),
        _ if COMPRESSED.iter().any(begins) => return Err(CoreError::Compressed),
        _ if !begins(&&MAGIC[..]) => return Err(CoreError::NotElf),
        // Up to its machine it is the same in 32 bits.
        1..20 => return Err(CoreError::CutShort),
        _ => {}
    }
    let [.., class, data] = header.ident[..6] else { return Err(CoreError::Damaged) };
    let is_little = data == LITTLE_ENDIAN;
    let kind = if is_little { header.kind.get() } else { header.kind.get().swap_bytes() };
    match class {
        _ if kind != CORE => Err(CoreError::NotCore),
        CLASS_32 => Err(CoreError::Is32Bit),
        _ if !is_little || header.machine.get() != X86_64 => Err(CoreError::OtherMachine),
        _ if len < size_of::<Header>() => Err(CoreError::CutShort),
        CLASS_64 => Ok(header),
        _ => Err(CoreError::Damaged),
    }
}

/// Calls `each` with the program headers of an ELF64 file. Returns whether all of them are there.
pub(super) fn each_program<F: ReadAt>(
    file: &F,
    header: &Header,
    mut each: impl FnMut(&ProgramHeader),
) -> Result<bool, CoreError> {
    let Header { programs_at, sections_at, program_size, programs, .. } = header;
    let mut count = u32::from(programs.get());
    if programs.get() == MANY {
        let mut section = [0; 64];
        if file.fill(&mut section, sections_at.get())? < section.len() {
            return Err(CoreError::CutShort);
        }
        let info = section[INFO_AT..].first_chunk().copied().unwrap_or_default();
        count = u32::from_le_bytes(info);
    }
    if usize::from(program_size.get()) != size_of::<ProgramHeader>() || count > MOST {
        return Err(if count == 0 { CoreError::NoMemory } else { CoreError::Damaged });
    }
    let mut left = count as usize;
    let mut at = programs_at.get();
    let mut batch = vec![ProgramHeader::new_zeroed(); left.min(BATCH)];
    while left > 0 {
        let wanted = left.min(BATCH);
        let batch = &mut batch[..wanted];
        let len = file.fill(batch.as_mut_bytes(), at)?;
        let whole = len / size_of::<ProgramHeader>();
        batch[..whole].iter().for_each(&mut each);
        if whole < wanted {
            return Ok(false);
        }
        at = at.saturating_add(len as u64);
        left -= wanted;
    }
    Ok(true)
}

impl ProgramHeader {
    /// Returns where it lies in the file.
    pub(super) fn file_range(&self) -> Range<u64> {
        let start = self.offset.get();
        start..start.saturating_add(self.in_file.get())
    }
}
