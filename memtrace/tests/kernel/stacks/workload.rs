//! Allocates known bytes in functions of known names. Those that give pages up and fault are in `sums`.

use std::{
    hint::black_box,
    os::unix::process::CommandExt as _,
    process::Command,
    ptr,
    sync::atomic::{AtomicPtr, Ordering::Relaxed},
    thread,
};

use super::{
    super::workload::{say, told},
    sums,
};

/// Bytes that each function allocates.
pub(crate) const BYTES: u64 = 16 << 20;
const SIZE: usize = 1024;
const COUNT: usize = BYTES as usize / SIZE;

type Block = *mut libc::c_void;

/// Does what is asked for.
pub(crate) fn run(args: &[String]) {
    match args[0].as_str() {
        // One step allocates all, the next frees what is not kept, and so on until its input ends.
        "steps" => {
            say("ready");
            let mut blocks = Vec::with_capacity(COUNT);
            while told() {
                if blocks.is_empty() {
                    keeps_it();
                    gives_it_back(&mut blocks);
                } else {
                    takes_it_back(&mut blocks);
                }
                say("done");
            }
        }
        "at_once" => {
            keeps_it();
            let mut blocks = Vec::with_capacity(COUNT);
            gives_it_back(&mut blocks);
            takes_it_back(&mut blocks);
        }
        "functions" => {
            by_calloc();
            by_realloc();
            by_shrinking();
            by_posix_memalign();
            by_aligned_alloc();
        }
        "exec" => {
            keeps_it();
            let error = Command::new("/proc/self/exe").args(["--workload", "nothing"]).exec();
            panic!("cannot execute: {error}");
        }
        "threads" => {
            let threads = [0, 1, 2, 3].map(|number| thread::spawn(move || moves_it_about(number)));
            for thread in threads {
                thread.join().expect("it does not panic");
            }
            (0..SHARED).for_each(|index| free(SLOTS[index].swap(ptr::null_mut(), Relaxed)));
        }
        "sums" => sums::run(&args[1]),
        other => panic!("no workload stacks {other}"),
    }
}

fn malloc(size: usize) -> Block {
    // SAFETY: takes memory.
    let block = unsafe { libc::malloc(size) };
    assert!(!block.is_null());
    // SAFETY: the block is ours.
    unsafe { block.write_bytes(1, size) };
    block
}

fn free(block: Block) {
    // SAFETY: it came from malloc, and nobody has it any more.
    unsafe { libc::free(block) };
}

#[inline(never)]
fn keeps_it() {
    for _ in 0..COUNT {
        black_box(malloc(SIZE));
    }
}

#[inline(never)]
fn gives_it_back(blocks: &mut Vec<Block>) {
    for _ in 0..COUNT {
        blocks.push(malloc(SIZE));
    }
    black_box(blocks);
}

#[inline(never)]
fn takes_it_back(blocks: &mut Vec<Block>) {
    blocks.drain(..).for_each(free);
    black_box(blocks);
}

#[inline(never)]
fn by_calloc() {
    for _ in 0..COUNT {
        // SAFETY: takes memory.
        black_box(unsafe { libc::calloc(SIZE / 16, 16) });
    }
}

#[inline(never)]
fn by_realloc() {
    for _ in 0..COUNT {
        // SAFETY: takes memory, and makes it larger.
        black_box(unsafe { libc::realloc(libc::realloc(ptr::null_mut(), SIZE / 2), SIZE) });
    }
}

#[inline(never)]
fn by_shrinking() {
    for _ in 0..COUNT {
        // SAFETY: takes memory, and makes it smaller.
        black_box(unsafe { libc::realloc(libc::malloc(SIZE), SIZE / 4) });
    }
}

#[inline(never)]
fn by_posix_memalign() {
    for _ in 0..COUNT {
        let mut block = ptr::null_mut();
        // SAFETY: takes memory.
        black_box(unsafe { libc::posix_memalign(&raw mut block, 64, SIZE) });
        black_box(block);
    }
}

#[inline(never)]
fn by_aligned_alloc() {
    for _ in 0..COUNT {
        // SAFETY: takes memory.
        black_box(unsafe { libc::aligned_alloc(64, SIZE) });
    }
}

/// Blocks that any thread may take and free.
const SHARED: usize = 64;
static SLOTS: [AtomicPtr<libc::c_void>; SHARED] =
    [const { AtomicPtr::new(ptr::null_mut()) }; SHARED];

#[inline(never)]
fn moves_it_about(number: usize) {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ number as u64;
    for _ in 0..20_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let size = 1 + (state >> 8) as usize % 4000;
        let mut block = malloc(size);
        if state & 1 == 0 {
            // SAFETY: the block is ours.
            block = unsafe { libc::realloc(block, size / 2 + 1 + (state >> 32) as usize % 4000) };
        }
        free(SLOTS[state as usize >> 1 & (SHARED - 1)].swap(block, Relaxed));
    }
}
