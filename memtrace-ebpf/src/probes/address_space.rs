//! Changes of region maps: write sections of the mm's lock, VMAs stored and erased.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel_str,
    macros::{map, raw_tracepoint},
    maps::LruHashMap,
    programs::RawTracePointContext,
};
use memtrace_common::{Backing, FileName, Kind, Region};

use crate::{
    books::{self, Mm, Stored},
    emit::{self, emit, emit_with},
    kernel,
};

/// The name that was last emitted of a file, by inode number and device: the kernel's hash of it.
/// (Numbers are used again, and files renamed.)
#[map]
static NAMED: LruHashMap<[u64; 2], u64> = LruHashMap::with_max_entries(4_096, 0);

/// `TP_PROTO(struct mm_struct *mm, bool write, bool success)`
/// (include/trace/events/mmap_lock.h, 6.18 to 7.3).
#[raw_tracepoint(tracepoint = "mmap_lock_acquire_returned")]
fn section_tracepoint(ctx: RawTracePointContext) -> i32 {
    section(ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

/// `TP_PROTO(struct mm_struct *mm, const char *memcg_path, bool write, bool success)`
/// (include/trace/events/mmap_lock.h, 6.1 to 6.12).
#[raw_tracepoint(tracepoint = "mmap_lock_acquire_returned")]
fn section_memcg_tracepoint(ctx: RawTracePointContext) -> i32 {
    section(ctx.arg(0), ctx.arg(2), ctx.arg(3))
}

#[inline(always)]
fn section(mm: u64, write: u64, success: u64) -> i32 {
    if success as u8 == 0 || (write as u8 == 0 && !books::in_process_madvise()) {
        return 0;
    }
    let Some(books) = books::followed(mm) else { return 0 };
    if write as u8 == 0 {
        // Advice reads the map of the process that it is about.
        if let Some(task) = books::task() {
            task.advised = mm;
        }
        return 0;
    }
    // SAFETY: a live map value; the mm's lock is held for writing.
    correct(mm, unsafe { &mut *books });
    let seq = books::open_section(books);
    if let Some(task) = books::task() {
        task.seq = seq;
    }
    0
}

/// `TP_PROTO(const char *fn, struct ma_state *mas, unsigned long piv, void *val)`
/// (include/trace/events/maple_tree.h, 6.1 to 7.3).
///
/// Every store of a VMA fires, and every erase but, from 6.12, one that fits a slot exactly: that
/// range is in the arguments of the call that erased it.
#[raw_tracepoint(tracepoint = "ma_write")]
fn region_tracepoint(ctx: RawTracePointContext) -> i32 {
    let mas: u64 = ctx.arg(1);
    let vma: u64 = ctx.arg(3);
    let tree: u64 = kernel::read(mas, &kernel::MAS_TREE);
    let mm = tree.wrapping_sub(u64::from(kernel::MM_TREE.load()));
    let books = match books::followed(mm) {
        Some(books) => books,
        None if vma != 0 && is_embryo(mm, vma) => {
            let Some(books) = books::track(mm, Mm::EMBRYO) else { return 0 };
            books
        }
        None => return 0,
    };
    // SAFETY: a live map value; the mm's lock is held for writing.
    let books = unsafe { &mut *books };
    let seq = books.ledger.sections;
    if vma == 0 {
        correct(mm, books);
        let start: u64 = kernel::read(mas, &kernel::MAS_INDEX);
        let last: u64 = kernel::read(mas, &kernel::MAS_LAST);
        let header = emit::header::<Region>(Kind::UnmapRegion, mm);
        emit(Region { header, seq, start, end: last.saturating_add(1), ..Region::default() });
        return 0;
    }
    // One store fires on its way through the tree more than once, at first before the VMA has its
    // file.
    let stored = Stored::read(vma, seq);
    if stored != books.stored {
        correct(mm, books);
        books.stored = stored;
        emit(region(mm, &stored));
    }
    0
}

/// Emits the offset of the VMA that was stored last, if it got it only now.
#[inline(always)]
pub(super) fn correct(mm: u64, books: &mut Mm) {
    if kernel::OFFSET_COMES_LATE.load() == 0 {
        return;
    }
    if let Some(pgoff) = books.stored.late_offset() {
        books.stored.pgoff = pgoff;
        let Stored { start, end, section: seq, .. } = books.stored;
        let header = emit::header::<Region>(Kind::RegionOffset, mm);
        emit(Region { header, seq, start, end, pgoff, ..Region::default() });
    }
}

/// Tells whether `mm` is one that the current process builds by exec, or for a followed child.
#[inline(always)]
fn is_embryo(mm: u64, vma: u64) -> bool {
    // SAFETY: the map's value is only looked at for its presence.
    if unsafe { books::TRACED.get(kernel::tgid()) }.is_none() {
        return false;
    }
    let builds = books::in_exec() || (kernel::FOLLOW.load() == 1 && books::in_fork());
    builds && kernel::read::<u64>(vma, &kernel::VMA_MM) == mm
}

/// Returns the record of a VMA, and emits the name of its file if nobody knows it.
#[inline(always)]
pub(super) fn region(mm: u64, stored: &Stored) -> Region {
    let &Stored { vma: _, start, end, flags, file, pgoff, section: seq } = stored;
    let mut region = Region {
        header: emit::header::<Region>(Kind::MapRegion, mm),
        seq,
        start,
        end,
        pgoff,
        flags,
        inode: 0,
        dev: 0,
        backing: Backing::Anon as u16,
        name_tag: 0,
    };
    if file != 0 {
        let inode: u64 = kernel::read(file, &kernel::FILE_INODE);
        let superblock: u64 = kernel::read(inode, &kernel::INODE_SB);
        region.inode = kernel::read(inode, &kernel::INODE_INO);
        region.dev = kernel::read(superblock, &kernel::SB_DEV);
        let magic: u64 = kernel::read(superblock, &kernel::SB_MAGIC);
        let is_shmem = magic == kernel::TMPFS_MAGIC;
        region.backing = if is_shmem { Backing::Shmem } else { Backing::File } as u16;
        let dentry: u64 = kernel::read(file, &kernel::FILE_DENTRY);
        let name: u64 = kernel::read(dentry, &kernel::DENTRY_HASH);
        // Some hashes are left 0: the length is in the upper half.
        region.name_tag = (name ^ name >> 32) as u16;
        let key = [region.inode, u64::from(region.dev) << 16 | u64::from(region.name_tag)];
        // SAFETY: a copy of a value that is written whole.
        if unsafe { NAMED.get(key) }.copied() != Some(name) {
            name_file(mm, dentry, &region, key, name);
        }
    }
    region
}

/// Emits the name of a file, and remembers that it was if there was room for it.
#[inline(always)]
fn name_file(mm: u64, dentry: u64, region: &Region, key: [u64; 2], hash: u64) {
    let &Region { inode, dev, name_tag, .. } = region;
    let name: u64 = kernel::read(dentry, &kernel::DENTRY_NAME);
    let header = emit::header::<FileName>(Kind::FileName, mm);
    emit_with(|place: *mut FileName| {
        let _ = NAMED.insert(key, hash, 0);
        // SAFETY: `place` is reserved memory of the ring; the helper is given the field's size.
        unsafe {
            place.write(FileName { header, inode, dev, name_tag, reserved: 0, name: [0; 64] });
            bpf_probe_read_kernel_str((&raw mut (*place).name).cast(), 64, name as *const _);
        }
    });
}
