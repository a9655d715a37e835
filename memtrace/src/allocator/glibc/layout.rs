//! Where the fields are that a walk reads, in glibc 2.27 to 2.43 (malloc/malloc.c, malloc/arena.c),
//! 64 bits. The offsets are those of Debian's builds, measured.

/// Offsets from `malloc_state.bins`: the same in every version.
pub(super) mod arena {
    /// `top`.
    pub(in super::super) const TOP: u64 = 16;
    /// `next`: the ring of arenas.
    pub(in super::super) const NEXT: u64 = 2048;
    /// `attached_threads`.
    pub(in super::super) const THREADS: u64 = 2064;
    /// `system_mem`.
    pub(in super::super) const SYSTEM: u64 = 2072;
    /// `max_system_mem`.
    pub(in super::super) const MAX_SYSTEM: u64 = 2080;
    /// End of the structure.
    pub(in super::super) const END: u64 = 2088;
    /// Bins, each a `fd` and a `bk`.
    pub(in super::super) const BINS: usize = 127;
}

/// Smallest chunk, and the alignment of every chunk.
pub(super) const MIN_CHUNK: u64 = 32;
pub(super) const ALIGN: u64 = 16;
/// Bits of a chunk's size (`PREV_INUSE`, `IS_MMAPPED`, `NON_MAIN_ARENA`).
pub(super) const PREV_IN_USE: u64 = 1;
pub(super) const IS_MAPPED: u64 = 2;
pub(super) const NON_MAIN: u64 = 4;
pub(super) const FLAGS: u64 = 7;
/// The bit of `malloc_state.flags` that says that the main arena is not one piece.
pub(super) const NON_CONTIGUOUS: u64 = 2;
/// Largest chunk of the fastbins (`DEFAULT_MXFAST`), and how many lists there are.
pub(super) const MAX_FAST: u64 = 0x80;
pub(super) const FASTBINS: usize = 10;
/// What a free chunk keeps for its links: `sizeof (struct malloc_chunk)`.
pub(super) const CHUNK_HEAD: u64 = 48;
/// `HEAP_MAX_SIZE`, and what heaps are aligned to.
pub(super) const HEAP_MAX: u64 = 64 << 20;

/// Possible distances of `bins` from the start of `malloc_state`: 2.27 to 2.42, up to 2.26, 2.43.
pub(super) const BINS_AT: [u64; 3] = [112, 104, 24];

/// What differs between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Distance of `bins` from the start of `malloc_state`.
    pub(super) bins_at: u64,
    /// `sizeof (heap_info)`.
    pub(super) heap_head: u64,
    /// Links of thread caches and fastbins are mangled (`PROTECT_PTR`, 2.32).
    pub(super) mangled: bool,
    /// Cached chunks carry one random number (2.34), not the address of their cache.
    pub(super) random_key: bool,
    /// `tcache_perthread_struct`.
    pub(super) cache: CacheLayout,
}

/// `tcache_perthread_struct`: counts, then the heads of its lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheLayout {
    /// Size of its chunk.
    pub(super) chunk: u64,
    /// Lists.
    pub(super) lists: usize,
    /// The counts say what is in a list, not what still fits (2.42).
    pub(super) counts_entries: bool,
}

impl CacheLayout {
    /// Bytes of the counts.
    pub(super) const fn counts(self) -> u64 {
        self.lists as u64 * 2
    }
}

const CACHE_64: CacheLayout = CacheLayout { chunk: 0x290, lists: 64, counts_entries: true };
const CACHE_76: CacheLayout = CacheLayout { chunk: 0x300, lists: 76, counts_entries: false };

impl Layout {
    /// Returns the layout of version 2.`minor`.
    pub(super) const fn of(minor: u32, bins_at: u64) -> Self {
        Self {
            bins_at,
            heap_head: if minor >= 35 { 48 } else { 32 },
            mangled: minor >= 32,
            random_key: minor >= 34,
            cache: if minor >= 42 { CACHE_76 } else { CACHE_64 },
        }
    }

    /// Returns whether it has fastbins (not since 2.43), and where in `malloc_state`.
    pub(super) const fn fastbins_at(self) -> Option<u64> {
        match self.bins_at {
            112 => Some(16),
            104 => Some(8),
            _ => None,
        }
    }

    /// Returns the link that is stored at `address`.
    pub(super) const fn link(self, address: u64, stored: u64) -> u64 {
        if self.mangled { address >> 12 ^ stored } else { stored }
    }
}

/// Offsets in `malloc_par`, called `mp_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParametersLayout {
    /// `n_mmaps`; `n_mmaps_max`, `max_n_mmaps` and `no_dyn_threshold` follow, 4 bytes each.
    pub(super) maps: u64,
    /// `mmapped_mem`; `max_mmapped_mem` follows.
    pub(super) mapped: u64,
    /// `sbrk_base`; `tcache_bins`, `tcache_max_bytes` and `tcache_count` follow.
    pub(super) base: u64,
    /// `thp_pagesize` and `hp_pagesize`, side by side.
    pub(super) huge: Option<u64>,
    /// The oldest version that has it, for programs that do not tell theirs.
    pub(super) minor: u32,
}

pub(super) const PARAMETERS: [ParametersLayout; 3] = [
    ParametersLayout { maps: 40, mapped: 56, base: 72, huge: None, minor: 31 },
    ParametersLayout { maps: 60, mapped: 80, base: 96, huge: Some(40), minor: 35 },
    ParametersLayout { maps: 68, mapped: 88, base: 104, huge: Some(48), minor: 43 },
];
