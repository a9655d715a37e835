//! Pages that enter and leave address spaces, and frames that the page allocator gets back.

use aya_ebpf::{
    macros::{btf_tracepoint, fexit, raw_tracepoint},
    programs::{BtfTracePointContext, FExitContext, RawTracePointContext},
};

use crate::{
    books::{self, Freed, Mm},
    emit,
    evidence::{Args, Counted, Evidence},
    kernel::{self, Typed},
};

/// `TP_PROTO(struct mm_struct *mm, int member[, long count])` (include/trace/events/kmem.h).
/// `mm` is the owner of the pages, whoever runs.
#[btf_tracepoint(function = "rss_stat")]
fn rss_tracepoint(ctx: BtfTracePointContext) -> i32 {
    let mm = Typed::new(ctx.arg::<*const u8>(0));
    let books = match books::find_recent(mm.address()) {
        None if kernel::MACHINE.load() == 1 => books::discover(mm),
        followed => followed,
    };
    let Some(books) = books else { return 0 };
    // SAFETY: a live map value, only written atomically once it is live.
    let books = unsafe { &*books };
    if books.state == Mm::SEEDING {
        return 0;
    }
    let member: i32 = ctx.arg(1);
    let count: i64 = if kernel::RSS_HAS_COUNT.load() == 1 { ctx.arg(2) } else { 0 };
    let change = books::counter_change(mm, books, member as u32, count);
    if change != 0 {
        books::book(mm, books, member as u32, change);
    }
    0
}

/// The first eight words of `struct page`, which is all of it.
type PageWords = [u64; 8];

/// `TP_PROTO(struct page *page, unsigned int order)` (include/trace/events/kmem.h). Fires before
/// the page's state is wiped. `mm_page_free_batched` fires in addition and is not for us.
#[raw_tracepoint(tracepoint = "mm_page_free")]
fn free_tracepoint(ctx: RawTracePointContext) -> i32 {
    let words: PageWords = kernel::read_at(ctx.arg(0));
    let word = |field: u32| words[(field >> 3) as usize & 7];
    // Data of a process, not a page table, slab or network buffer: those are never "up to date".
    if word(kernel::PAGE_FLAGS.load()) >> kernel::PG_UPTODATE.load() & 1 == 0 {
        return 0;
    }
    let mapping = word(kernel::PAGE_MAPPING.load());
    // 0 for what left the page cache.
    if Freed::is_anon(mapping) || mapping == 0 {
        let order: u64 = ctx.arg(1);
        let index = word(kernel::PAGE_INDEX.load());
        let frames = 1 << (order & 31);
        let owner = books::book_freed(&Freed { mapping, index, frames });
        if kernel::STAMPS_FRAMES.load() == 1 {
            books::freed(ctx.arg(0), frames, owner);
        }
    }
    0
}

/// `TP_PROTO(struct page *page, unsigned int order, gfp_t gfp_flags, int migratetype)`
/// (include/trace/events/kmem.h).
#[raw_tracepoint(tracepoint = "mm_page_alloc")]
fn alloc_tracepoint(ctx: RawTracePointContext) -> i32 {
    let (page, order, gfp): (u64, u64, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    if page == 0 {
        return 0;
    }
    if kernel::STAMPS_FRAMES.load() == 1 {
        books::given_out(page, order, gfp, Counted::current_mm());
    }
    if books::is_data(gfp)
        && let Some(books) = books::find_recent(Counted::current_mm())
    {
        // SAFETY: a live map value, only written atomically.
        books::allocated(unsafe { &*books }, order, gfp);
    }
    0
}

/// `TP_PROTO(struct mm_struct *mm)` (include/trace/events/mmap.h, 6.1). Fires when all pages of an
/// address space are detached; on exec it is the old one.
#[btf_tracepoint(function = "exit_mmap")]
fn mm_end_tracepoint(ctx: BtfTracePointContext) -> i32 {
    let space = Typed::new(ctx.arg::<*const u8>(0));
    let mm = space.address();
    let Some(books) = books::followed(mm) else {
        books::died(mm);
        return 0;
    };
    books::end_teardown(mm);
    // SAFETY: a live map value, only written atomically.
    books::settle(space, unsafe { &*books });
    // SAFETY: as above.
    emit::mm_end::<Counted>(mm, unsafe { &raw const (*books).ledger });
    books::bury(mm, books);
    0
}

/// The same for `--evidence args`.
#[btf_tracepoint(function = "exit_mmap")]
fn mm_end_args(ctx: BtfTracePointContext) -> i32 {
    ended_args(ctx.arg(0))
}

/// `void exit_mmap(struct mm_struct *mm)` (mm/mmap.c): the same where there is no tracepoint (5.10).
#[fexit]
fn mm_end_args_fexit(ctx: FExitContext) -> i32 {
    ended_args(ctx.arg(0))
}

#[inline(always)]
fn ended_args(mm: u64) -> i32 {
    if Args::follows(mm) {
        emit::mm_end::<Args>(mm, core::ptr::null());
        Args::bury(mm);
    }
    0
}
