//! The program that is driven: it does to its own memory what it is told, and waits.
//!
//! Everything happens in a window of fixed addresses and in what the kernel placed; nothing there
//! is ever dereferenced, only handed to system calls that fail where memory is missing.

mod family;
mod memory;

use std::{
    io::{BufRead as _, Write as _},
    os::unix::process::CommandExt as _,
    process::Command,
    ptr,
};

use self::{
    family::{Kid, reap},
    memory::{use_stack, window},
};
use super::op::{Kind, Op, Random};

const PAGE: usize = 4096;
/// First byte of the window.
const WINDOW: usize = 0x20_0000_0000;
/// Its size in pages: small, so that operations meet.
const WINDOW_PAGES: usize = 192;
/// Mappings that the kernel placed, at most.
const SLOTS: usize = 24;
/// Children that stay, at most.
const CHILDREN: usize = 3;
/// Pages of the files.
const FILE_PAGES: usize = 64;
/// Pages that the heap grows at most.
const HEAP_PAGES: usize = 96;

/// Runs as the victim: lines of operations on standard input, `sync` to be told when they are done.
pub(crate) fn main(args: &[String]) {
    let mut victim = Victim::new();
    if let [seed, count] = args {
        // Executed anew by another: does so much by itself and stays.
        let (seed, count) = (seed.parse().expect("a seed"), count.parse().expect("a count"));
        victim.run_some(seed, count);
        victim.tell_ready_and_wait();
    }
    if args == [AGAIN] {
        // What else the batch held went with the program before.
        say_done();
    }
    let mut ops: Vec<Op> = Vec::with_capacity(4096);
    let mut line = String::with_capacity(4096);
    let stdin = std::io::stdin();
    let mut input = stdin.lock();
    loop {
        line.clear();
        if input.read_line(&mut line).expect("a line") == 0 {
            return;
        }
        match line.trim() {
            "sync" => {
                ops.drain(..).for_each(|op| victim.run(op));
                say_done();
            }
            op => ops.push(op.parse().expect("an operation")),
        }
    }
}

/// Tells a victim that it is in the middle of a batch.
const AGAIN: &str = "again";

fn say_done() {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "done").and_then(|()| stdout.flush()).expect("a reader");
}

struct Victim {
    /// File, memfd, `/dev/zero`.
    files: [i32; 3],
    zero: i32,
    segments: [i32; 2],
    /// Mappings that the kernel placed: address and pages.
    slots: [(usize, usize); SLOTS],
    next_slot: usize,
    heap_start: usize,
    heap_end: usize,
    kids: [Option<Kid>; CHILDREN],
    /// It is one of several that work on the window at once.
    racing: bool,
}

impl Victim {
    fn new() -> Self {
        // The allocator takes what it needs now, and leaves brk and us alone later.
        // SAFETY: settings of this process's allocator; new descriptors of files of our own.
        unsafe {
            libc::mallopt(libc::M_TOP_PAD, 4 << 20);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::free(libc::malloc(1 << 20));
            let path = super::super::driver::scratch("fuzz");
            let path =
                std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).expect("a path");
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
            let file = libc::open(path.as_ptr(), flags, 0o600);
            libc::unlink(path.as_ptr());
            let memfd = libc::memfd_create(c"memtrace-fuzz".as_ptr(), libc::MFD_CLOEXEC);
            let zero = libc::open(c"/dev/zero".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            for fd in [file, memfd] {
                assert_eq!(libc::ftruncate(fd, (FILE_PAGES * PAGE) as i64), 0);
            }
            assert!(zero >= 0);
            let segment = || {
                let id = libc::shmget(libc::IPC_PRIVATE, 16 * PAGE, libc::IPC_CREAT | 0o600);
                assert!(id >= 0, "shmget: {}", std::io::Error::last_os_error());
                id
            };
            let segments = [segment(), segment()];
            for id in segments {
                // They vanish with the last one that has them attached; one stays attached.
                libc::shmat(id, ptr::null(), 0);
                libc::shmctl(id, libc::IPC_RMID, ptr::null_mut());
            }
            let heap = libc::sbrk(0) as usize;
            Self {
                files: [file, memfd, zero],
                zero,
                segments,
                slots: [(0, 0); SLOTS],
                next_slot: 0,
                heap_start: heap,
                heap_end: heap,
                kids: [None; CHILDREN],
                racing: false,
            }
        }
    }

    /// One of several that work on the same window: what it places it takes back itself.
    fn sibling(&self) -> Self {
        Self { slots: [(0, 0); SLOTS], next_slot: 0, kids: [None; CHILDREN], racing: true, ..*self }
    }

    fn run_some(&mut self, seed: u32, count: u32) {
        let mut random = Random::new(u64::from(seed));
        for _ in 0..count {
            self.run(Op::random_simple(&mut random));
        }
    }

    fn run(&mut self, Op { kind, numbers: [a, b, c, d] }: Op) {
        match kind {
            Kind::Map => self.map(a, b, c, d),
            Kind::MapLimited => self.map_limited(a, b, c, d),
            Kind::Unmap => self.unmap(a, b, c),
            Kind::UnmapSlot => self.unmap_slot(a, b),
            Kind::Remap => self.remap(window(a, b), c, d),
            Kind::RemapSlot => {
                let slot = a as usize % SLOTS;
                let (start, pages) = std::mem::take(&mut self.slots[slot]);
                if pages > 0 {
                    self.remap((start, pages), c, d);
                }
            }
            Kind::Protect => self.protect(a, b, c, d),
            Kind::Advise => self.advise(a, b, c, d),
            Kind::Touch => self.touch(a, b, c),
            Kind::Brk => self.brk(a),
            Kind::Attach => self.attach(a, b),
            Kind::Detach => self.detach(a),
            Kind::FilePages => self.file_pages(a, b, c),
            Kind::Lock => self.lock(a, b, c),
            Kind::LockAll => self.lock_all(a),
            Kind::Stack => {
                std::hint::black_box(use_stack(a % 64));
            }
            Kind::Name => self.name(a, b, c),
            Kind::Seal => self.seal(a),
            Kind::Race => self.race(a, b, c),
            Kind::Fork => self.fork(a, b),
            Kind::ShareOps => self.share_ops(a, b),
            Kind::ShareStay => self.share_stay(),
            Kind::ForkExec => self.fork_exec(a, b),
            Kind::Reap => {
                if let Some(kid) = self.kids[a as usize % CHILDREN].take() {
                    reap(kid);
                }
            }
            Kind::Vanish => self.vanish(a, b),
            Kind::Exec => {
                let error = Command::new("/proc/self/exe")
                    .args(["--workload", "fuzz_victim", AGAIN])
                    .exec();
                panic!("exec: {error}");
            }
        }
    }
}
