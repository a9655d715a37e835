//! jemalloc, 5.1 to 5.3, preloaded or linked into the program or a library, found without symbols.
//!
//! Reading order: `layout` (what its books look like), `find` (the tree of extents), `tree` (over its
//! extents), `slab` (which regions of one are free), `base` (where its books are), `walk`. What the
//! caches of threads hold counts as in use, as it does in jemalloc's own statistics
//! (`stats.allocated`): what is free is a lower bound.

mod base;
mod find;
mod layout;
mod slab;
mod tree;
mod walk;

use self::walk::Found;
use super::{
    mappings::Mappings,
    memory::ReadMemory,
    walked::{Arena, Trim, Unwalked, Walked},
};

/// Its name in every output.
pub const NAME: &str = "jemalloc";

/// What a thread is called that gives free memory back in the background (`background_thread.c`,
/// 5.2 and 5.3).
pub const BACKGROUND_THREAD: &str = "jemalloc_bg_thd";

/// Walks the extents of a process.
///
/// Errors: it does not use jemalloc; it cannot be read.
pub fn walk<M: ReadMemory>(memory: &M, mappings: &Mappings) -> Result<Walked, Unwalked> {
    let roots = find::roots(memory, mappings)?;
    let Some(first) = roots.first() else { return Err(Unwalked::NotUsed(NAME)) };
    let mut walked = Walked {
        name: NAME,
        version: Some(first.layout.version().to_owned()),
        is_lower_bound: true,
        ..Walked::default()
    };
    for &root in &roots {
        add(&mut walked, &walk::tree(memory, mappings, root)?);
    }
    walked.in_use =
        walked.system.saturating_sub(walked.free_bytes()).saturating_sub(walked.unknown);
    Ok(walked)
}

/// Adds what was found in one tree.
fn add(walked: &mut Walked, found: &Found) {
    let mut trim = walked.trim.unwrap_or_default();
    let mut resident = 0;
    for arena in found.arenas.values() {
        let kinds = [
            ("slab_regions", arena.slab_regions),
            ("dirty", arena.dirty),
            ("muzzy", arena.muzzy),
            ("retained_resident", arena.retained_resident),
        ];
        let free = kinds.iter().map(|(_, bytes)| bytes).sum();
        for (kind, bytes) in kinds {
            *walked.free.entry(kind).or_insert(0) += bytes;
        }
        for (&region, &bytes) in &arena.pages.by_region {
            *walked.free_by_region.entry(region).or_insert(0) += bytes;
        }
        let system = arena.system();
        walked.system = walked.system.saturating_add(system);
        walked.unknown = walked.unknown.saturating_add(arena.changing);
        resident += arena.pages.free;
        trim.frees += arena.purged;
        trim.shared += arena.purged_shared;
        trim.partly_used += arena.pages.partly_used;
        // Free pages of slabs that are in use, and frames that the kernel put under retained memory.
        trim.edges += arena
            .pages
            .free
            .saturating_sub(arena.purged + arena.purged_shared + arena.pages.partly_used);
        walked.arenas.push(Arena {
            address: arena.address,
            system,
            free,
            free_resident: Some(arena.pages.free),
            trimmable: Some(arena.purged),
            threads: None,
        });
    }
    walked.resyncs += found.torn;
    walked.system = walked.system.saturating_add(found.books);
    walked.free_resident = Some(walked.free_resident.unwrap_or(0) + resident);
    walked.trim = Some(Trim { ..trim });
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::*;
    use crate::source::{process_memory::ProcessMemory, procfs};

    /// Fills, frees most, and says what jemalloc says of itself: allocated, active, mapped, retained,
    /// dirty and muzzy bytes.
    const PROGRAM: &str = "
import ctypes, sys
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p; c.free.argtypes = [ctypes.c_void_p]
p = [c.malloc(16 + i * 7919 % 900 if i % 64 else 20000 + i % 200000) for i in range(150000)]
for x in p: ctypes.memset(x, 1, 16)
for i, x in enumerate(p):
    if i % 16: c.free(x)
v = ctypes.c_uint64(1); n = ctypes.c_size_t(8)
def read(name):
    assert c.mallctl(name, ctypes.byref(v), ctypes.byref(n), None, ctypes.c_size_t(0)) == 0
    return v.value
c.mallctl(b'epoch', None, None, ctypes.byref(v), ctypes.c_size_t(8))
names = b'allocated active mapped retained arenas.4096.pdirty arenas.4096.pmuzzy'
print(*[read(b'stats.' + name) for name in names.split()], flush=True)
sys.stdin.read()
";

    /// `MEMTRACE_JEMALLOC` names another library than Debian's.
    #[test]
    #[ignore = "needs python3 and libjemalloc.so.2"]
    fn figures_are_those_of_jemalloc_itself() {
        let library = std::env::var("MEMTRACE_JEMALLOC")
            .unwrap_or_else(|_| "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2".to_owned());
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM])
            .env("LD_PRELOAD", library)
            .env("MALLOC_CONF", "dirty_decay_ms:-1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let theirs: Vec<u64> =
            line.split_whitespace().map(|word| word.parse().expect("a number")).collect();

        let memory = ProcessMemory::open(child.id()).unwrap();
        let mappings = Mappings::new(procfs::maps(child.id()).unwrap());
        let root = find::roots(&memory, &mappings).unwrap()[0];
        let found = walk::tree(&memory, &mappings, root).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let mut sum = [0, 0, found.books, 0, 0, 0];
        for arena in found.arenas.values() {
            let active = arena.active;
            let mapped = active + arena.dirty + arena.muzzy;
            let (dirty, muzzy) = (arena.dirty / 4096, arena.muzzy / 4096);
            let kinds = [arena.allocated, active, mapped, arena.retained, dirty, muzzy];
            for (sum, more) in sum.iter_mut().zip(kinds) {
                *sum += more;
            }
        }
        assert_eq!(sum.len(), theirs.len());
        for (ours, theirs) in sum.iter().zip(&theirs) {
            assert!(ours.abs_diff(*theirs) * 1000 <= *theirs, "{sum:?} is not {theirs:?}");
        }
        println!("{sum:?} {theirs:?}");
    }
}
