//! Programs that take memory from malloc, give it up, and say what malloc says of it.

use std::{
    hint,
    io::{Cursor, Write as _},
    os::unix::process::CommandExt as _,
    process::Command,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::super::workload::{Mapped, forbid_huge_pages, say};

/// Chunks that are freed, of 1000 bytes each.
pub(crate) const CHUNKS: usize = 64 << 10;
/// A chunk that keeps what lies below it: too large for any hole that is there before.
const PIN: usize = 100_000;
/// What glibc is told by.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// Pages that are given up by `MADV_FREE`.
pub(crate) const LAZY_PAGES: u64 = 8 << 10;
/// What `changing` keeps in use, with the headers of its chunks.
pub(crate) const IN_USE: u64 = 2 * 16 * 1024 * 1024;

/// A chunk of malloc's, written to.
fn chunk(size: usize) -> *mut u8 {
    // SAFETY: writes to what malloc gave.
    unsafe {
        let chunk = libc::malloc(size).cast::<u8>();
        assert!(!chunk.is_null());
        ptr::write_bytes(chunk, 1, size);
        // Else one that nobody uses would not be taken at all.
        hint::black_box(chunk)
    }
}

fn free(chunk: *mut u8) {
    // SAFETY: each chunk is freed once.
    unsafe { libc::free(chunk.cast()) };
}

/// Many chunks, whose addresses are not in malloc's memory.
struct Chunks(*mut *mut u8, usize);

// SAFETY: plain addresses, used by one thread at a time.
unsafe impl Send for Chunks {}

impl Chunks {
    fn new(count: usize, size: usize) -> Self {
        let pages = (count * size_of::<*mut u8>()).div_ceil(4096) as u64;
        let all = Self(Mapped::anon(pages).start.cast(), count);
        (0..count).for_each(|index| all.set(index, chunk(size)));
        all
    }

    fn get(&self, index: usize) -> *mut u8 {
        assert!(index < self.1);
        // SAFETY: inside the mapping.
        unsafe { *self.0.add(index) }
    }

    fn set(&self, index: usize, chunk: *mut u8) {
        assert!(index < self.1);
        // SAFETY: inside the mapping.
        unsafe { *self.0.add(index) = chunk };
    }

    fn free(&self, which: impl Fn(usize) -> bool) {
        (0..self.1).filter(|&index| which(index)).for_each(|index| free(self.get(index)));
    }
}

/// Sets up a heap, then answers: `figures`, or `trim`, after which come the figures.
pub(crate) fn run(args: &[String]) {
    match args[0].as_str() {
        "pinned" => {
            let chunks = Chunks::new(CHUNKS, 1000);
            chunk(PIN);
            chunks.free(|_| true);
        }
        // What is left lies on every page.
        "scattered" => Chunks::new(CHUNKS, 1000).free(|index| index % 4 != 0),
        "arenas" => {
            for _ in 0..8 {
                in_thread_that_stays(|| {
                    let chunks = Chunks::new(CHUNKS / 8, 1000);
                    chunk(PIN);
                    chunks.free(|_| true);
                });
            }
        }
        "drifted" => {
            // The threshold follows the largest mapping that was freed.
            free(chunk(20 << 20));
            let chunks = Chunks::new(60, 1 << 20);
            chunk(PIN);
            chunks.free(|_| true);
        }
        // Large ones are mappings of their own, and half of them goes back at once.
        "blocks" => Chunks::new(20, 8 << 20).free(|index| index % 2 == 0),
        "cached" => {
            tuned("cached", "glibc.malloc.tcache_count=65535");
            Chunks::new(CHUNKS - 1, 1000).free(|_| true);
        }
        "huge" => {
            tuned("huge", "glibc.malloc.hugetlb=1");
            forbid_huge_pages(false);
            // Stretches of 1 MiB, of which every second is freed.
            Chunks::new(CHUNKS, 1000).free(|index| index / 1024 % 2 == 0);
        }
        "forked" => {
            Chunks::new(CHUNKS, 1000).free(|index| index % 64 != 0);
            // SAFETY: the child goes on as this process would have, the parent waits for it.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            if child == 0 {
                // SAFETY: waits for its end only.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    loop {
                        libc::pause();
                    }
                }
            }
        }
        "stats" => return stats(),
        "lazy" => _ = Mapped::anon(LAZY_PAGES).touch().advise(libc::MADV_FREE),
        "changing" => {
            for number in 0..2 {
                thread::spawn(move || change(number));
            }
            while !FULL[0].load(Ordering::Acquire) || !FULL[1].load(Ordering::Acquire) {
                thread::yield_now();
            }
        }
        other => panic!("no heap {other}"),
    }
    say("ready");
    let mut command = [0; 16];
    loop {
        // SAFETY: reads into a buffer of ours. Nothing here takes memory from malloc.
        let len = unsafe { libc::read(0, command.as_mut_ptr().cast(), command.len()) };
        match &command[..usize::try_from(len).unwrap_or(0)] {
            b"" => return,
            b"trim\n" => {
                // SAFETY: gives free memory back to the kernel.
                unsafe { libc::malloc_trim(0) };
            }
            _ => {}
        }
        figures();
    }
}

/// Starts again with a setting of glibc's, unless it is set.
fn tuned(heap: &str, setting: &str) {
    if std::env::var_os(TUNABLES).is_none() {
        let error = Command::new("/proc/self/exe")
            .args(["--workload", "heap", heap])
            .env(TUNABLES, setting)
            .exec();
        panic!("cannot start again: {error}");
    }
}

/// Frees fifteen of sixteen chunks of all sizes, and says what the malloc that was loaded says of itself.
fn stats() {
    let chunks = Chunks::new(CHUNKS, 16);
    (0..CHUNKS).for_each(|index| {
        free(chunks.get(index));
        chunks.set(index, chunk(16 + index * 7919 % 1500));
    });
    chunks.free(|index| index % 16 != 0);
    let mut line = Cursor::new([0; 100]);
    // SAFETY: asks for functions by the names and types that the libraries give them (mallctl(3),
    // gperftools/malloc_extension_c.h), and calls those that are there.
    unsafe {
        let mallctl = libc::dlsym(libc::RTLD_DEFAULT, c"mallctl".as_ptr());
        let property =
            libc::dlsym(libc::RTLD_DEFAULT, c"MallocExtension_GetNumericProperty".as_ptr());
        if !mallctl.is_null() {
            let mallctl: MallCtl = std::mem::transmute(mallctl);
            let (mut value, mut len) = (1_u64, size_of::<u64>());
            mallctl(
                c"epoch".as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                (&raw mut value).cast(),
                len,
            );
            let mut read = |name: &std::ffi::CStr| {
                mallctl(name.as_ptr(), (&raw mut value).cast(), &raw mut len, ptr::null_mut(), 0);
                value
            };
            let (mapped, dirty) = (read(c"stats.mapped"), read(c"stats.arenas.4096.pdirty"));
            let _ = writeln!(line, "jemalloc {mapped} {dirty}\n");
        } else if !property.is_null() {
            let property: Property = std::mem::transmute(property);
            let read = |name: &std::ffi::CStr| {
                let mut value = 0;
                property(name.as_ptr(), &raw mut value);
                value
            };
            let heap = read(c"generic.heap_size");
            let used = read(c"generic.current_allocated_bytes");
            let _ = writeln!(line, "tcmalloc {heap} {used}\n");
        } else {
            let _ = writeln!(line, "static\n");
        }
        let (len, bytes) = (line.position() as usize, line.into_inner());
        libc::write(1, bytes.as_ptr().cast(), len);
        // Until the end of input.
        while libc::read(0, [0_u8; 1].as_mut_ptr().cast(), 1) > 0 {}
    }
}

type MallCtl = unsafe extern "C" fn(
    *const libc::c_char,
    *mut libc::c_void,
    *mut usize,
    *mut libc::c_void,
    usize,
) -> i32;
type Property = unsafe extern "C" fn(*const libc::c_char, *mut usize) -> i32;

/// Says what malloc and the kernel say, without malloc.
fn figures() {
    // SAFETY: reads malloc's own figures.
    let libc::mallinfo2 { fordblks: free, arena, hblkhd, .. } = unsafe { libc::mallinfo2() };
    let mut line = Cursor::new([0; 100]);
    let _ = writeln!(line, "{free} {} {}", arena + hblkhd, anonymous());
    let (len, bytes) = (line.position() as usize, line.into_inner());
    // SAFETY: writes a buffer of ours.
    unsafe { libc::write(1, bytes.as_ptr().cast(), len) };
}

fn anonymous() -> u64 {
    let mut bytes = [0_u8; 4096];
    // SAFETY: reads a file into a buffer of ours.
    let len = unsafe {
        let file = libc::open(c"/proc/self/smaps_rollup".as_ptr(), libc::O_RDONLY);
        let len = libc::read(file, bytes.as_mut_ptr().cast(), bytes.len());
        libc::close(file);
        usize::try_from(len).unwrap_or(0)
    };
    let text = std::str::from_utf8(&bytes[..len]).unwrap_or_default();
    super::super::driver::size(text, "Anonymous:").unwrap_or(0)
}

/// Runs in a thread of its own, which stays, and with it its arena.
fn in_thread_that_stays(work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = std::sync::mpsc::channel();
    thread::spawn(move || {
        work();
        let _ = done.send(());
        loop {
            thread::park();
        }
    });
    let _ = is_done.recv();
}

static FULL: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

/// Keeps half of [`IN_USE`] in chunks of one size class, and gives and takes them at random.
fn change(number: usize) {
    const SIZE: usize = 2032;
    let chunks = Chunks::new(IN_USE as usize / 2 / (SIZE + 16), SIZE);
    FULL[number].store(true, Ordering::Release);
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ number as u64;
    loop {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let index = (state % chunks.1 as u64) as usize;
        free(chunks.get(index));
        chunks.set(index, chunk(SIZE));
    }
}
