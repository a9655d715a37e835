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
    walked::{Arena, Unwalked, Walked},
};

/// Its name in every output.
pub const NAME: &str = "jemalloc";

/// What a thread is called that gives free memory back in the background (`background_thread.c`,
/// 5.2 and 5.3).
pub const BACKGROUND_THREAD: &str = "jemalloc_bg_thd";

/// Walks the extents of a process. `has_background_thread` tells whether one of its threads is a
/// [`BACKGROUND_THREAD`], where that is known.
///
/// Errors: it does not use jemalloc; it cannot be read.
pub fn walk<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    has_background_thread: impl FnOnce() -> Option<bool>,
) -> Result<Walked, Unwalked> {
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
    let settings = has_background_thread().map(|has| ("background_thread", u64::from(has)));
    walked.settings = settings.into_iter().collect();
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
    walked.trim = Some(trim);
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::{
        layout::{Layout, TABLE},
        *,
    };
    use crate::{
        allocator::memory::{PageState, Piece},
        model::region_map::PAGE,
        source::{
            process_memory::ProcessMemory,
            procfs::{self, parse_smaps},
        },
    };

    /// Memory by address, ascending. What is not in it is absent.
    pub(super) struct Bytes(pub(super) Vec<(u64, Vec<u8>)>);

    impl Bytes {
        fn at(&self, page: u64) -> Option<&[u8]> {
            self.0.iter().find_map(|(start, bytes)| {
                let at = page.checked_sub(*start)? as usize;
                bytes.get(at..at + PAGE as usize)
            })
        }

        fn set(&mut self, address: u64, word: u64) {
            let (page, at) = (address & !(PAGE - 1), (address % PAGE) as usize);
            let index = self.0.iter().position(|&(start, _)| start == page).unwrap_or_else(|| {
                self.0.push((page, vec![0; PAGE as usize]));
                self.0.len() - 1
            });
            self.0[index].1[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
    }

    impl ReadMemory for Bytes {
        fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()> {
            states.fill(PageState::Absent);
            for (page, bytes) in &self.0 {
                for page in (*page..*page + bytes.len() as u64).step_by(PAGE as usize) {
                    let index = page.wrapping_sub(start) / PAGE;
                    if let Some(state) = states.get_mut(index as usize) {
                        *state = PageState::Own;
                    }
                }
            }
            Ok(())
        }

        fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
            for piece in pieces {
                for (address, into) in (piece.address..).zip(piece.into.iter_mut()) {
                    let page = self.at(address & !(PAGE - 1));
                    *into = page.map_or(0, |page| page[(address % PAGE) as usize]);
                }
            }
            Ok(())
        }
    }

    /// A process that uses jemalloc.
    pub(super) struct Image {
        pub(super) memory: Bytes,
        pub(super) mappings: Mappings,
        pub(super) root: u64,
    }

    /// A slab of 512 byte regions (5 of 8 in use, on one page), 8 KiB in use, 3 pages dirty of which 2
    /// are resident, a muzzy and a retained page.
    pub(super) fn image(layout: Layout) -> Image {
        const MAPS: &str = "10000-11000 rw-p 00000000 fe:01 7 /lib/libjemalloc.so.2\n\
                            11000-300000 rw-p 00000000 00:00 0\n\
                            40000000-40008000 rw-p 00000000 00:00 0\n\
                            80000000-80400000 rw-p 00000000 00:00 0\n";
        let (root, block, heap) = (0x11238, 0x8000_0000, 0x4000_0000);
        let mut memory = Bytes(Vec::new());
        // One block, with the unused rest at its end.
        let leaf = block + 0x10c0;
        for (at, word) in [(0, 2 * TABLE), (24, block + 2 * TABLE - 64), (32, 64)] {
            memory.set(block + at, word);
        }
        memory.set(root + 8, leaf);
        let (state_at, class_at) = match layout {
            Layout::V5_1 => (16, 18),
            Layout::V5_3 => (17, 20),
        };
        let extents =
            [(0, 1, 0, 16), (1, 2, 0, 32), (3, 3, 1, 232), (6, 1, 2, 232), (7, 1, 3, 232)];
        for (number, (page, pages, state, class)) in (0..).zip(extents) {
            let extent = block + 0x300_000 + 128 * number;
            let is_slab = u64::from(number == 0);
            let bits = is_slab << 12 | state << state_at | class << class_at;
            memory.set(extent, bits | 3 * is_slab << (class_at + 8));
            memory.set(extent + 8, heap + page * PAGE);
            memory.set(extent + 16, pages * PAGE | 1);
            // Free regions, and what an earlier slab left behind its own.
            memory.set(extent + 64, 0b1000_1001);
            memory.set(extent + 72, u64::MAX);
            let state = if layout == Layout::V5_3 { state << 2 } else { 0 };
            for page in [page, page + pages - 1] {
                memory.set(leaf + 8 * page, class << 48 | extent | state | is_slab);
            }
        }
        for page in [0, 1, 3, 5, 6] {
            memory.set(heap + page * PAGE, 1);
        }
        memory.0.sort();
        Image { memory, mappings: Mappings::new(parse_smaps(MAPS)), root }
    }

    #[test]
    fn all_that_it_holds_is_told() {
        for layout in Layout::ALL {
            let Image { memory, mappings, .. } = image(layout);
            let walked = walk(&memory, &mappings, || Some(true)).expect("it is jemalloc");
            let free: Vec<u64> = walked.free.values().copied().collect();
            assert_eq!(free, [3 * PAGE, PAGE, 0, 3 * 512]);
            assert_eq!(walked.system, 7 * PAGE + 2 * TABLE);
            assert_eq!(walked.in_use, 5 * 512 + 2 * PAGE + 2 * TABLE);
            assert_eq!(walked.free_resident, Some(2 * PAGE + 3 * 512));
            assert_eq!(walked.free_by_region, [(0x4000_0000, 2 * PAGE + 3 * 512)].into());
            let trim = walked.trim.expect("it has a purge");
            assert_eq!((trim.frees, trim.partly_used, trim.edges), (2 * PAGE, 3 * 512, 0));
            assert_eq!(walked.settings, [("background_thread", 1)].into());
            assert_eq!((walked.arenas.len(), walked.unknown, walked.resyncs), (1, 0, 0));
        }
    }

    /// Every word of its books is damaged once, in several ways.
    #[test]
    fn damaged_books_give_a_value_or_an_error() {
        let books: Vec<u64> = {
            let Image { memory, .. } = image(Layout::V5_3);
            let words = memory.0.iter().flat_map(|(start, bytes)| {
                let words = (*start..).step_by(8).zip(bytes.chunks_exact(8));
                words.filter(|(_, word)| word.iter().any(|&byte| byte != 0)).map(|(at, _)| at)
            });
            words.collect()
        };
        for layout in Layout::ALL {
            for &address in &books {
                for word in [0, 1, 0x4000_0000, 0x8000_0000, 0x8000_10c0, 1 << 47, u64::MAX] {
                    let Image { mut memory, mappings, .. } = image(layout);
                    memory.set(address, word);
                    if let Ok(walked) = walk(&memory, &mappings, || None) {
                        assert!(walked.system <= 0x410_000 + 2 * TABLE, "{address:x}: {word:x}");
                    }
                }
            }
        }
    }

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
        let mut theirs: Vec<u64> =
            line.split_whitespace().map(|word| word.parse().expect("a number")).collect();

        let memory = ProcessMemory::open(child.id()).unwrap();
        let mappings = Mappings::new(procfs::maps(child.id()).unwrap());
        let root = find::roots(&memory, &mappings).unwrap()[0];
        let found = walk::tree(&memory, &mappings, root).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let mut sum = [0, 0, found.books, 0, 0, 0];
        for arena in found.arenas.values() {
            let &walk::InArena { allocated, active, dirty, muzzy, retained, .. } = arena;
            let kinds = [allocated, active, active + dirty + muzzy, retained, dirty, muzzy];
            for (sum, more) in sum.iter_mut().zip(kinds) {
                *sum += more;
            }
        }
        theirs[4] *= PAGE;
        theirs[5] *= PAGE;
        // Saying it took some memory, too.
        for (ours, theirs) in sum.iter().zip(&theirs) {
            assert!(ours.abs_diff(*theirs) * 1000 <= sum[2], "{sum:?} is not {theirs:?}");
        }
        println!("{sum:?} {theirs:?}");
    }
}
