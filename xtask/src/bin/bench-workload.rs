//! What the benchmark traces. Prints the time of its inner loop alone, so that what a tracer takes
//! to start does not count: `elapsed_ns N`.

use std::{process::ExitCode, ptr, time::Instant};

const PAGE: usize = 4096;
/// `PR_SET_THP_DISABLE` (include/uapi/linux/prctl.h).
const PR_SET_THP_DISABLE: i32 = 41;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = args.iter().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    // SAFETY: changes this process's own setting: faults are to be of 4 KiB.
    unsafe { libc::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let (rounds, pages) = match (args.first().map(String::as_str), numbers.as_slice()) {
        (Some("map-unmap"), &[rounds]) => (rounds, 0),
        (Some("fault-storm"), &[pages, rounds]) => (rounds, pages),
        _ => {
            eprintln!("bench-workload map-unmap ROUNDS | fault-storm PAGES ROUNDS");
            return ExitCode::FAILURE;
        }
    };
    let start = Instant::now();
    for _ in 0..rounds {
        storm(pages);
    }
    println!("elapsed_ns {}", start.elapsed().as_nanos());
    ExitCode::SUCCESS
}

/// Maps, touches so many pages, and unmaps.
fn storm(pages: usize) {
    let len = pages.max(1) * PAGE;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, written inside its bounds, and unmapped.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED, "mmap");
        for page in 0..pages {
            start.cast::<u8>().add(page * PAGE).write_volatile(1);
        }
        libc::munmap(start, len);
    }
}
