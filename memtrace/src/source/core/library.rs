//! Libraries that a process had mapped, as they are on this machine: only the very same ones count.

use std::{io::Read as _, path::Path};

use super::{
    elf::{self, Header, ReadAt},
    notes, open_regular,
};
use crate::{
    allocator::memory::{Piece, ReadMemory},
    model::region_map::PAGE,
    source::procfs::Mapping,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Reads a library by its path, if it is there.
pub fn read(path: &str) -> Option<Vec<u8>> {
    /// The largest glibc has 3 MB.
    const MOST: u64 = 64 << 20;
    let file = open_regular(Path::new(path)).ok()??;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Returns the file that a process had mapped, as `library` reads it, unless the core shows that it was
/// another one.
pub(super) fn same<M: ReadMemory>(
    memory: &M,
    mapping: &Mapping,
    library: impl Fn(&str) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    // Its ELF header and notes are in the core, where its filter says so (bit 4, as by default).
    let mut head = [0; PAGE as usize];
    if mapping.offset == 0 {
        memory.read(&mut [Piece { address: mapping.start, into: &mut head }]).ok()?;
    }
    let mapped = build_id(&head[..]);
    let is_deleted = mapping.name != mapping.path();
    if is_deleted && mapped.is_none() {
        return None;
    }
    let file = library(mapping.path())?;
    let is_same = mapped.is_none_or(|mapped| build_id(file.as_slice()) == Some(mapped));
    is_same.then_some(file)
}

/// Returns the build id of an ELF64 file.
fn build_id(file: &[u8]) -> Option<Vec<u8>> {
    let mut header = Header::new_zeroed();
    let len = file.fill(header.as_mut_bytes(), 0).ok()?;
    let is_elf = header.ident.starts_with(&elf::MAGIC) && header.ident[4] == elf::CLASS_64;
    if len < size_of::<Header>() || !is_elf {
        return None;
    }
    let mut parts = Vec::new();
    elf::each_program(&file, &header, |program| {
        if program.kind.get() == elf::NOTE {
            parts.push(program.file_range());
        }
    })
    .ok()?;
    parts.into_iter().find_map(|part| notes::build_id(&file, part).ok().flatten())
}
