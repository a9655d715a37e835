//! Programs that do as standard input says, for tests that attach to them.

use std::{
    io::BufRead as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{
    super::{driver::PAGE, paths::N},
    Mapped, pages,
};

pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Waits for a line of input; false at its end.
pub(crate) fn told() -> bool {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).is_ok_and(|len| len > 0)
}

/// So many threads map, protect, move and unmap as fast as they can until told to stop; then they
/// stay as they are until told to end.
pub(super) fn churn(args: &[String]) {
    let count: usize = args[0].parse().expect("a number of threads");
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for number in 0..count {
        let stop = Arc::clone(&stop);
        threads.push(thread::spawn(move || churn_one(number as u64, &stop)));
    }
    say("ready");
    told();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("the thread ends well");
    }
    say("stopped");
    told();
}

fn churn_one(seed: u64, stop: &AtomicBool) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let (mut held, mut read_only): (Vec<Mapped>, Vec<Mapped>) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match random(6) {
            0 | 1 => held.push(Mapped::anon(1 + random(16))),
            2 => {
                held.last().map(|mapped| mapped.touch());
            }
            3 => {
                if let Some(mapped) = held.pop() {
                    let part = mapped.part(0, 1 + random(mapped.len as u64 / PAGE));
                    // SAFETY: a mapping of ours; nobody writes to it after this.
                    unsafe { libc::mprotect(part.start.cast(), part.len, libc::PROT_READ) };
                    read_only.push(mapped);
                }
            }
            4 => {
                if let Some(Mapped { start, len }) = held.pop() {
                    let new = pages(1 + random(16));
                    // SAFETY: a mapping of ours.
                    let moved =
                        unsafe { libc::mremap(start.cast(), len, new, libc::MREMAP_MAYMOVE) };
                    assert_ne!(moved, libc::MAP_FAILED);
                    held.push(Mapped { start: moved.cast(), len: new });
                }
            }
            _ => {
                if let Some(mapped) = held.pop() {
                    mapped.unmap();
                }
            }
        }
        for list in [&mut held, &mut read_only] {
            if list.len() > 32 {
                list.drain(..16).for_each(Mapped::unmap);
            }
        }
    }
}

/// Holds memory until told to give it up; then it stays as it is until told to end.
pub(super) fn hold_then_unmap() {
    let mapped = Mapped::anon(N).touch();
    say("ready");
    told();
    mapped.unmap();
    say("stopped");
    told();
}

/// Holds so many regions and maps and unmaps one more as fast as it can until told to stop.
pub(super) fn many_regions(args: &[String]) {
    let count: u64 = args[0].parse().expect("a number of regions");
    let all = Mapped::anon(2 * count);
    for number in 0..count {
        let hole = all.part(2 * number, 1);
        // SAFETY: a mapping of ours that is never read.
        unsafe { libc::mprotect(hole.start.cast(), hole.len, libc::PROT_NONE) };
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let worker = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            Mapped::anon(1).touch().unmap();
        }
    });
    say("ready");
    told();
    stop.store(true, Ordering::Relaxed);
    worker.join().expect("the thread ends well");
    say("stopped");
    told();
}

/// The leader exits; another thread goes on, maps and unmaps when told.
pub(super) fn leaderless() -> ! {
    thread::spawn(|| {
        let exited = || {
            let text = std::fs::read_to_string("/proc/self/stat").expect("our own");
            text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
        };
        while !exited() {
            thread::yield_now();
        }
        say("ready");
        told();
        Mapped::anon(N).touch().unmap();
        say("stopped");
        told();
        std::process::exit(0);
    });
    // SAFETY: ends this thread alone.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("this thread has ended");
}

/// Pages of the mapping of [`located`].
pub(crate) const LOCATED_PAGES: u64 = 250;
/// Its chunks, and how far they are apart.
pub(crate) const LOCATED_CHUNKS: u64 = 64;
pub(crate) const LOCATED_CHUNK: u64 = 20 << 10;

/// Of five pages each it touches two, and pages one of these out where there is swap. Of its chunks every
/// second is free.
pub(super) fn located() {
    let mapped = Mapped::anon(LOCATED_PAGES);
    for page in (0..LOCATED_PAGES).step_by(5) {
        mapped.part(page, 2).touch();
        mapped.part(page + 1, 1).advise(libc::MADV_PAGEOUT);
    }
    // What is taken from malloc later would come out of the free chunks.
    print!("");
    let mut chunks: Vec<*mut libc::c_void> = Vec::with_capacity(LOCATED_CHUNKS as usize);
    for _ in 0..LOCATED_CHUNKS {
        // SAFETY: writes to what malloc gave.
        unsafe {
            let len = LOCATED_CHUNK as usize - 16;
            let chunk = libc::malloc(len);
            assert!(!chunk.is_null());
            std::ptr::write_bytes(chunk.cast::<u8>(), 1, len);
            chunks.push(chunk);
        }
    }
    let next = |two: &[*mut libc::c_void]| two[1] as u64 - two[0] as u64 == LOCATED_CHUNK;
    assert!(chunks.windows(2).all(next), "one behind the other: {chunks:?}");
    let line = format!("{} {}", mapped.start as u64, chunks[0] as u64);
    for chunk in chunks.iter().step_by(2) {
        // SAFETY: each is freed once.
        unsafe { libc::free(*chunk) };
    }
    say("ready");
    say(&line);
    // SAFETY: reads into a buffer of ours, until the end of input.
    while unsafe { libc::read(0, [0_u8; 16].as_mut_ptr().cast(), 16) } > 0 {}
}
