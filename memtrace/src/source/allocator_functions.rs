//! Finds the functions of the allocator that a program uses, in the files that it has mapped or will
//! load, and where in each a uprobe goes.

use std::{
    fs::File,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind, read::ReadCache};

use super::{
    entry_block::{
        LOOKED_AT, emulated,
        register::{RDI, RDX, RSI},
    },
    procfs::{self, Mapping},
};
use crate::model::region_map::flag;

/// What a function of an allocator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `free(pointer)`. Comes first: what is sampled must be seen to be freed.
    Free,
    /// `realloc(pointer, size)`.
    Realloc,
    /// `calloc(number, size)`.
    Calloc,
    /// `aligned_alloc(alignment, size)`.
    Aligned,
    /// `posix_memalign(out, alignment, size)`.
    Posix,
    /// `operator new(size)`.
    New,
    /// `malloc(size)`.
    Malloc,
}

impl Role {
    /// Returns the registers that hold the arguments that are read.
    const fn arguments(self) -> &'static [u8] {
        match self {
            Self::Free | Self::New | Self::Malloc => &[RDI],
            Self::Realloc | Self::Calloc => &[RDI, RSI],
            Self::Aligned => &[RSI],
            Self::Posix => &[RDI, RDX],
        }
    }
}

/// Functions of C.
const C: &[(&str, Role)] = &[
    ("malloc", Role::Malloc),
    ("free", Role::Free),
    ("calloc", Role::Calloc),
    ("realloc", Role::Realloc),
    ("posix_memalign", Role::Posix),
    ("aligned_alloc", Role::Aligned),
    ("memalign", Role::Aligned),
];

/// Operators of C++ that allocators such as tcmalloc and jemalloc bring along.
const CPP: &[(&str, Role)] = &[
    ("_Znwm", Role::New),
    ("_Znam", Role::New),
    ("_ZnwmRKSt9nothrow_t", Role::New),
    ("_ZnamRKSt9nothrow_t", Role::New),
    ("_ZnwmSt11align_val_t", Role::New),
    ("_ZnamSt11align_val_t", Role::New),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", Role::New),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", Role::New),
    ("_ZdlPv", Role::Free),
    ("_ZdaPv", Role::Free),
    ("_ZdlPvm", Role::Free),
    ("_ZdaPvm", Role::Free),
    ("_ZdlPvRKSt9nothrow_t", Role::Free),
    ("_ZdaPvRKSt9nothrow_t", Role::Free),
    ("_ZdlPvSt11align_val_t", Role::Free),
    ("_ZdaPvSt11align_val_t", Role::Free),
    ("_ZdlPvmSt11align_val_t", Role::Free),
    ("_ZdaPvmSt11align_val_t", Role::Free),
];

/// A function and where it is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its symbol.
    pub name: &'static str,
    /// What it does.
    pub role: Role,
    /// Where in the file the probe goes.
    pub offset: u64,
    /// The kernel emulates the instruction there; else it steps over it, which costs several times
    /// as much.
    pub emulated: bool,
}

/// The file that provides `malloc` to a program.
#[derive(Clone, Debug)]
pub struct Provider {
    /// What it is called where the program runs.
    pub name: String,
    /// Where it can be opened.
    pub path: PathBuf,
    /// Device and inode number.
    pub id: (u64, u64),
    /// What is probed in it, those that free first.
    pub functions: Vec<Function>,
}

/// Finds what provides `malloc` to a running process.
///
/// Errors: it is gone, or no file that it has mapped has a `malloc` with a symbol.
pub fn of_process(pid: u32) -> Result<Provider> {
    let maps = procfs::maps(pid)?;
    let dir = procfs::memory_dir(pid);
    let exe = std::fs::metadata(format!("{dir}/exe")).map(|exe| (exe.dev(), exe.ino())).ok();
    let mut found: Vec<Provider> = Vec::new();
    let is_code = |mapping: &&Mapping| mapping.flags & flag::EXEC != 0 && mapping.inode != 0;
    for mapping in maps.iter().filter(is_code) {
        let Mapping { start, end, .. } = mapping;
        // Leads to the file wherever the process has mounted it, and if it was deleted.
        let path = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        let id = (metadata.dev(), metadata.ino());
        if found.iter().any(|provider| provider.id == id) {
            continue;
        }
        // A file that cannot be read is not what we look for.
        let functions = functions(&path).unwrap_or_default();
        if functions.iter().any(|function| function.name == "malloc") {
            found.push(Provider { name: mapping.path().to_owned(), path, id, functions });
        }
    }
    // The linker takes the first definition: the executable's, then one that was preloaded or linked
    // before libc.
    let rank = |provider: &Provider| {
        if Some(provider.id) == exe { 0 } else { 1 + u8::from(is_libc(&provider.name)) }
    };
    let best = found.into_iter().filter(|provider| !is_loader(&provider.name)).min_by_key(rank);
    best.context("no file that it has mapped has a malloc with a symbol")
}

/// Finds what will provide `malloc` to a program, in the files that it loads when it starts: the
/// program itself, then its libraries in the order in which they are searched.
pub fn of_program(files: &[PathBuf]) -> Result<Provider> {
    for file in files {
        let name = file.to_string_lossy().into_owned();
        let found = functions(file).unwrap_or_default();
        if is_loader(&name) || !found.iter().any(|function| function.name == "malloc") {
            continue;
        }
        let metadata = std::fs::metadata(file)?;
        let id = (metadata.dev(), metadata.ino());
        return Ok(Provider { name, path: file.clone(), id, functions: found });
    }
    bail!("none of the files that it loads has a malloc with a symbol")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_libc(path: &str) -> bool {
    let name = file_name(path);
    name.starts_with("libc.so") || name.starts_with("libc-") || name.starts_with("ld-musl")
}

/// glibc's dynamic linker has a malloc of its own, for itself (before 2.34 with a symbol).
fn is_loader(path: &str) -> bool {
    let name = file_name(path);
    name.starts_with("ld-linux") || name.starts_with("ld-2.")
}

/// Returns the functions of an allocator that a file has.
fn functions(path: &Path) -> Result<Vec<Function>> {
    let file = File::open(path)?;
    let cache = ReadCache::new(&file);
    let elf = object::File::parse(&cache)?;
    if elf.architecture() != object::Architecture::X86_64 {
        bail!("not a program for this machine");
    }
    let mut found: Vec<Function> = Vec::new();
    // A program without dynamic symbols is static: everything calls its C functions.
    let is_static = elf.dynamic_symbols().next().is_none();
    let mut add = |symbol: object::Symbol<'_, '_, _>| -> Result<()> {
        if symbol.kind() != SymbolKind::Text || !symbol.is_definition() {
            return Ok(());
        }
        let name = symbol.name_bytes()?;
        let known = C.iter().chain(if is_static { &[] } else { CPP });
        let Some(&(name, role)) = known.into_iter().find(|known| known.0.as_bytes() == name) else {
            return Ok(());
        };
        let Some(start) = file_offset(&elf, symbol.address()) else { return Ok(()) };
        let mut code = [0; LOOKED_AT];
        let len = file.read_at(&mut code, start)?;
        let len = len.min(usize::try_from(symbol.size()).unwrap_or(usize::MAX));
        let place = emulated(&code[..len], role.arguments());
        let offset = start.saturating_add(place.unwrap_or(0) as u64);
        // Several names may stand for one function.
        if found.iter().all(|function| function.offset != offset) {
            found.push(Function { name, role, offset, emulated: place.is_some() });
        }
        Ok(())
    };
    if is_static {
        elf.symbols().try_for_each(&mut add)?;
    } else {
        elf.dynamic_symbols().try_for_each(&mut add)?;
    }
    found.sort_by_key(|function| function.role);
    Ok(found)
}

/// Returns where in the file an address of the program lies.
fn file_offset<'data>(elf: &impl object::Object<'data>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let (offset, len) = segment.file_range();
        let into = address.checked_sub(segment.address())?;
        (into < len).then(|| offset.saturating_add(into))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_malloc_is_found_and_has_cheap_places() {
        let provider = of_process(std::process::id()).expect("this process has a malloc");
        assert!(is_libc(&provider.name), "{provider:?}");
        let names: Vec<&str> = provider.functions.iter().map(|function| function.name).collect();
        for name in ["malloc", "free", "calloc", "realloc", "posix_memalign"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let is_free = |function: &Function| function.role == Role::Free;
        assert!(provider.functions.first().is_some_and(is_free), "{provider:?}");
        assert!(provider.functions.iter().all(|function| function.emulated), "{provider:?}");
    }

    #[test]
    fn a_library_without_malloc_provides_none() {
        let maps = procfs::maps(std::process::id()).expect("our own");
        let loader = maps.iter().find(|mapping| is_loader(mapping.path())).expect("ld.so");
        assert!(of_program(&[loader.path().into(), "/etc/passwd".into()]).is_err());
    }
}
