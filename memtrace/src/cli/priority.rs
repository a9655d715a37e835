//! Who goes first: memtrace, or what it looks at (setpriority(2), which on Linux changes one thread).

use std::thread;

/// Lets the reader of the events go first: the traced threads may be many and busy. Call it after the
/// fork of a command, which would inherit it.
pub(super) fn hurry() {
    set(-20);
}

/// Lets the processes that are looked at go first: on busy CPUs they lose a tenth at most to a walk,
/// and wake up at once.
pub(super) fn step_back() {
    set(10);
}

/// Works as any other program does, while the thread that waits for it is in a hurry.
pub(super) fn without_hurry<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let worked = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            set(0);
            work()
        });
        thread.join()
    });
    worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Without the right to it the priority stays what it is.
fn set(nice: i32) {
    // SAFETY: changes this thread's own priority.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority() -> i32 {
        // SAFETY: asks for this thread's own priority.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn only_the_thread_itself_steps_back() {
        let before = priority();
        let stepped = thread::scope(|scope| {
            scope
                .spawn(|| {
                    step_back();
                    (priority(), without_hurry(priority))
                })
                .join()
                .expect("no panic")
        });
        // The right to go first again is that of root.
        let root = nix::unistd::Uid::effective().is_root();
        assert_eq!(stepped, (10, if root { 0 } else { 10 }));
        assert_eq!(priority(), before);
    }
}
