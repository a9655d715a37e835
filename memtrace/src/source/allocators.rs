//! Walks the heaps of a running process: which allocators there are, and what each holds.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{
    process_memory::ProcessMemory,
    procfs::{self, Mapping, memory_dir},
    progress::Counter,
};
use crate::allocator::{
    glibc, go, jemalloc, jvm,
    mappings::Mappings,
    memory::ReadMemory,
    mimalloc, musl, pymalloc, tcmalloc, v8,
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

/// Walks every allocator of a process, as it is or stopped, and counts what is read of it. Where in
/// regions free memory is is told in no more than `cells`, if at all.
///
/// Errors: it is gone, or may not be looked at.
pub fn walk(
    tgid: u32,
    is_stopped: bool,
    cells: Option<u64>,
    counter: &Counter,
) -> io::Result<Allocators> {
    let memory = ProcessMemory::open(tgid, counter)?;
    let mut mappings = Mappings::new(procfs::maps(tgid)?);
    if let Some(most) = cells {
        mappings = mappings.divided(most);
    }
    let exe = std::fs::read_link(memory_dir(tgid) + "/exe").ok();
    let exe = exe.map(|path| path.to_string_lossy().into_owned());
    let exe = exe.as_deref().map(|path| path.strip_suffix(" (deleted)").unwrap_or(path));
    let about = About {
        exe,
        is_stopped,
        library: &|mapping| mapped_file(tgid, mapping).and_then(read_mapped).ok(),
        has_background_thread: &|| Some(has_thread(tgid, jemalloc::BACKGROUND_THREAD)),
        go: &|| version_of_go(tgid),
    };
    let found = walk_memory(&memory, &mappings, &about);
    // What was read while a program replaced itself, or ended, is of neither.
    let first = mappings.iter().next().map_or(0, |mapping| mapping.start);
    if !memory.is_the_same(first) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(found)
}

/// What to know of a process beside its memory.
pub struct About<'a> {
    /// Its executable.
    pub exe: Option<&'a str>,
    /// Nothing changes while it is walked.
    pub is_stopped: bool,
    /// Returns the file that is mapped, if it is to be had.
    pub library: &'a dyn Fn(&Mapping) -> Option<Vec<u8>>,
    /// Tells whether jemalloc has a thread of its own, where that is known.
    pub has_background_thread: &'a dyn Fn() -> Option<bool>,
    /// Returns the version of Go that it was built with, if it was.
    pub go: &'a dyn Fn() -> Option<String>,
}

/// Walks every allocator that memory holds.
pub fn walk_memory<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    about: &About<'_>,
) -> Allocators {
    let &About { exe, is_stopped, library, has_background_thread, go } = about;
    let minor = version(mappings, library, glibc::is_libc, glibc::minor_version);
    let patch = version(mappings, library, musl::is_musl, musl::patch_version);
    let of_tcmalloc = version(mappings, library, tcmalloc::is_tcmalloc, tcmalloc::version);

    let mut found = Allocators::default();
    found.add(memory, glibc::walk(memory, mappings, &glibc::About { exe, minor, is_stopped }));
    found.add(memory, musl::walk(memory, mappings, &musl::About { exe, patch }));
    found.add(memory, jemalloc::walk(memory, mappings, has_background_thread));
    found.add(
        memory,
        tcmalloc::walk(memory, mappings, &tcmalloc::About { exe, version: of_tcmalloc }),
    );
    found.add(memory, mimalloc::walk(memory, mappings));
    found.add(memory, pymalloc::walk(memory, mappings, exe));
    found.add(memory, jvm::walk(memory, mappings));
    found.add(memory, v8::walk(memory, mappings));
    found.add(memory, go::walk(memory, mappings, go::About { exe, version: go() }));
    found
}

impl Allocators {
    fn add<M: ReadMemory>(&mut self, memory: &M, result: Result<Walked, Unwalked>) {
        match result {
            Ok(walked) => self.walked.push(walked.known_by(memory)),
            Err(Unwalked::NotUsed(_)) => {}
            Err(unwalked) => self.unwalked.push(unwalked),
        }
    }
}

/// Returns the version that a mapped library tells in its file.
fn version<T>(
    mappings: &Mappings,
    library: impl Fn(&Mapping) -> Option<Vec<u8>>,
    is_library: impl Fn(&str) -> bool,
    version: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    let mapping = mappings.iter().find(|mapping| is_library(mapping.path()))?;
    version(&library(mapping)?)
}

/// Returns the version of Go that a program was built with, if it was.
fn version_of_go(tgid: u32) -> Option<String> {
    let file = File::open(memory_dir(tgid) + "/exe").ok()?;
    go::version(|offset, into| file.read_at(into, offset)).ok()?
}

/// Tells whether one of the threads of a process has a name.
fn has_thread(tgid: u32, name: &str) -> bool {
    let comm = |tid: u32| std::fs::read(format!("/proc/{tgid}/task/{tid}/comm")).ok();
    let mut names = procfs::tids(tgid).into_iter().flatten().filter_map(comm);
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
