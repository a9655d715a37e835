//! Walks the heaps of a running process: which allocators there are, and what each holds.

use std::{fs::File, io};

use super::{
    process_memory::ProcessMemory,
    procfs::{self, Mapping, memory_dir},
};
use crate::allocator::{
    glibc, jemalloc, jvm,
    mappings::Mappings,
    mimalloc, musl, pymalloc, tcmalloc,
    walked::{Unwalked, Walked},
};

/// What was found in a process.
#[derive(Debug, Default)]
pub struct Allocators {
    /// Those that were walked.
    pub walked: Vec<Walked>,
    /// Why others were not, that are in use.
    pub unwalked: Vec<Unwalked>,
}

/// Walks every allocator of a process, as it is or stopped.
///
/// Errors: it is gone, or may not be looked at.
pub fn walk(tgid: u32, is_stopped: bool) -> io::Result<Allocators> {
    let memory = ProcessMemory::open(tgid)?;
    let mappings = Mappings::new(procfs::maps(tgid)?);
    let exe = std::fs::read_link(memory_dir(tgid) + "/exe").ok();
    let exe = exe.map(|path| path.to_string_lossy().into_owned());
    let exe = exe.as_deref().map(|path| path.strip_suffix(" (deleted)").unwrap_or(path));
    let minor = version(tgid, &mappings, glibc::is_libc, glibc::minor_version);
    let patch = version(tgid, &mappings, musl::is_musl, musl::patch_version);
    let of_tcmalloc = version(tgid, &mappings, tcmalloc::is_tcmalloc, tcmalloc::version);
    let background = || Some(has_thread(tgid, jemalloc::BACKGROUND_THREAD));

    let mut found = Allocators::default();
    found.add(glibc::walk(&memory, &mappings, &glibc::About { exe, minor, is_stopped }));
    found.add(musl::walk(&memory, &mappings, &musl::About { exe, patch }));
    found.add(jemalloc::walk(&memory, &mappings, background));
    found.add(tcmalloc::walk(&memory, &mappings, &tcmalloc::About { exe, version: of_tcmalloc }));
    found.add(mimalloc::walk(&memory, &mappings));
    found.add(pymalloc::walk(&memory, &mappings, exe));
    found.add(jvm::walk(&memory, &mappings));
    // What was read while a program replaced itself, or ended, is of neither.
    let first = mappings.iter().next().map_or(0, |mapping| mapping.start);
    if !memory.is_the_same(first) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(found)
}

impl Allocators {
    fn add(&mut self, result: Result<Walked, Unwalked>) {
        match result {
            Ok(walked) => self.walked.push(walked),
            Err(Unwalked::NotUsed(_)) => {}
            Err(unwalked) => self.unwalked.push(unwalked),
        }
    }
}

/// Returns the version that a mapped library tells in its file.
fn version<T>(
    tgid: u32,
    mappings: &Mappings,
    is_library: impl Fn(&str) -> bool,
    version: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    let library = mappings.iter().find(|mapping| is_library(mapping.path()))?;
    version(&mapped_file(tgid, library).and_then(read_mapped).ok()?)
}

/// Tells whether one of the threads of a process has a name.
fn has_thread(tgid: u32, name: &str) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{tgid}/task")).into_iter().flatten().flatten();
    let mut names = threads.filter_map(|thread| std::fs::read(thread.path().join("comm")).ok());
    names.any(|comm| comm.strip_suffix(b"\n") == Some(name.as_bytes()))
}

/// Opens the file behind a mapping, also when it was deleted or lies in another mount namespace.
fn mapped_file(tgid: u32, mapping: &Mapping) -> io::Result<File> {
    let &Mapping { start, end, .. } = mapping;
    File::open(format!("/proc/{tgid}/map_files/{start:x}-{end:x}"))
        .or_else(|_| File::open(format!("{}/root{}", memory_dir(tgid), mapping.path())))
}

/// Reads a file of a size that a library may have.
fn read_mapped(file: File) -> io::Result<Vec<u8>> {
    /// The largest glibc has 3 MB.
    const MOST: u64 = 64 << 20;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, MOST), &mut bytes)?;
    Ok(bytes)
}
