//! Many processes that do nothing, and others that come and go, until the input of this one is closed.

use std::{
    io::Error,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// Is the crowd, of which each that comes and goes does some work; prints `ready`, and how many of these there
/// were when it ends.
pub(crate) fn run(idle: u32, forks_per_second: u32, work: impl Fn()) -> Result<()> {
    for _ in 0..idle {
        begin(|| {
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        })?;
    }
    println!("ready");
    let mut forked: u64 = 0;
    let mut next = Instant::now();
    while !is_closed_by(next)? {
        let child = begin(&work)?;
        // SAFETY: waits for a child of this process.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        forked += 1;
        next += Duration::from_secs(1) / forks_per_second.max(1);
    }
    println!("forked {forked}");
    Ok(())
}

/// Waits until some time; returns true as soon as the input is closed.
fn is_closed_by(time: Instant) -> Result<bool> {
    let left = time.saturating_duration_since(Instant::now());
    let mut input = libc::pollfd { fd: 0, events: 0, revents: 0 };
    let timeout = libc::timespec {
        tv_sec: left.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(left.subsec_nanos()),
    };
    // SAFETY: both live as long as the call.
    let found = unsafe { libc::ppoll(&raw mut input, 1, &raw const timeout, std::ptr::null()) };
    ensure!(found >= 0, "cannot wait: {}", Error::last_os_error());
    Ok(found > 0)
}

/// Begins a process that ends with its parent.
fn begin(work: impl FnOnce()) -> Result<libc::pid_t> {
    // SAFETY: there is one thread; the child does its work and ends without running destructors.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            work();
            libc::_exit(0);
        }
    }
    ensure!(child > 0, "cannot fork: {}", Error::last_os_error());
    Ok(child)
}
