//! What the benchmarks trace. Those of `cargo xtask bench` print the time of their inner loop alone, so that
//! what a tracer takes to start does not count: `elapsed_ns N`.

#[path = "../../../../memtrace/tests/common/churn.rs"]
mod churn;
mod redis;

use std::{
    path::Path,
    process::ExitCode,
    ptr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const PAGE: usize = 4096;
/// Pages that each of a crowd touches that comes and goes.
const CROWD_PAGES: usize = 64;
/// `PR_SET_THP_DISABLE` (include/uapi/linux/prctl.h).
const PR_SET_THP_DISABLE: i32 = 41;
const USAGE: &str = "bench-workload map-unmap ROUNDS | fault-storm PAGES ROUNDS | \
                     redis-set REQUESTS SOCKET SERVER… | crowd IDLE FORKS_PER_SECOND";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-workload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let elapsed = match words.as_slice() {
        ["map-unmap", rounds] => storms(0, rounds.parse()?),
        ["fault-storm", pages, rounds] => storms(pages.parse()?, rounds.parse()?),
        ["redis-set", requests, socket, ..] => {
            redis::set(requests.parse()?, Path::new(socket), &args[3..])?
        }
        ["crowd", idle, forks] => {
            return churn::run(idle.parse()?, forks.parse()?, || storm(CROWD_PAGES));
        }
        _ => bail!("{USAGE}"),
    };
    println!("elapsed_ns {}", elapsed.as_nanos());
    Ok(())
}

fn storms(pages: usize, rounds: usize) -> Duration {
    // SAFETY: changes this process's own setting: faults are to be of 4 KiB.
    unsafe { libc::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let start = Instant::now();
    for _ in 0..rounds {
        storm(pages);
    }
    start.elapsed()
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
