//! The victim's threads and children.

use std::{os::unix::process::CommandExt as _, process::Command, ptr, thread};

use super::{CHILDREN, SLOTS, Victim};

/// A child and the pipe whose end tells it to exit.
#[derive(Clone, Copy)]
pub(super) struct Kid {
    pid: i32,
    leash: i32,
}

impl Victim {
    pub(super) fn race(&mut self, a: u32, b: u32, c: u32) {
        let count = 2 + a % 3;
        thread::scope(|scope| {
            for number in 0..count {
                let mut sibling = self.sibling();
                scope.spawn(move || {
                    sibling.run_some(c.wrapping_add(number), 8 + b % 48);
                    sibling.give_back();
                });
            }
        });
    }

    /// Returns where a child goes, unless there are enough.
    pub(super) fn room(&self) -> Option<usize> {
        self.kids.iter().position(Option::is_none)
    }

    pub(super) fn fork(&mut self, a: u32, b: u32) {
        let Some(room) = self.room() else { return };
        let (leash, end, ready, tell) = pipes();
        // SAFETY: this process has one thread; the child goes on alone.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            close(end);
            // What was not inherited (`MADV_DONTFORK`) would be somebody else's later.
            (self.kids, self.slots) = ([None; CHILDREN], [(0, 0); SLOTS]);
            self.run_some(a, 5 + b % 60);
            if b.is_multiple_of(7) {
                // It ends when its parent does: the parent holds the leash.
                self.fork(a.wrapping_add(1), b / 7);
            }
            say_and_wait(tell, leash);
        }
        close(leash);
        close(tell);
        wait(ready);
        self.kids[room] = Some(Kid { pid, leash: end });
    }

    /// The child works while this process waits, as after `vfork`.
    pub(super) fn share_ops(&mut self, a: u32, b: u32) {
        let mut sibling = self.sibling();
        // SAFETY: the parent stands still until the child exits; the child's slots are its own.
        unsafe {
            let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64;
            let mut stack = vec![0_u128; 1 << 14];
            let top = stack.as_mut_ptr_range().end;
            let mut job: (*mut Self, u32, u32) = (&raw mut sibling, a, 5 + b % 40);
            extern "C" fn child(job: *mut libc::c_void) -> i32 {
                // SAFETY: the parent's variables, and the parent stands still.
                let (sibling, seed, count) = unsafe { &*job.cast::<(*mut Victim, u32, u32)>() };
                // SAFETY: as above.
                unsafe { (**sibling).run_some(*seed, *count) };
                0
            }
            let pid = libc::clone(child, top.cast(), flags as i32, (&raw mut job).cast());
            libc::waitpid(pid, ptr::null_mut(), 0);
        }
        sibling.give_back();
    }

    /// The child shares the address space and only waits: it has no thread-local memory of its own.
    pub(super) fn share_stay(&mut self) {
        let Some(room) = self.room() else { return };
        let (leash, end, ready, tell) = pipes();
        close(ready);
        close(tell);
        extern "C" fn child(pipe: *mut libc::c_void) -> i32 {
            let (leash, end) = (pipe as usize as i32 & 0xffff, pipe as usize as i32 >> 16);
            let mut byte = 0_u8;
            // SAFETY: its own copies of a pipe's ends. Nothing fails, so that `errno` is left alone.
            unsafe {
                libc::close(end);
                libc::read(leash, (&raw mut byte).cast(), 1);
            }
            0
        }
        let pipe = (leash | end << 16) as usize as *mut libc::c_void;
        // SAFETY: a stack that is never given back, for a child that only reads.
        let pid = unsafe {
            let stack = Box::leak(Box::new([0_u128; 1024]));
            let top = stack.as_mut_ptr_range().end;
            libc::clone(child, top.cast(), libc::CLONE_VM | libc::SIGCHLD, pipe)
        };
        close(leash);
        if pid > 0 {
            self.kids[room] = Some(Kid { pid, leash: end });
        }
    }

    pub(super) fn fork_exec(&mut self, a: u32, b: u32) {
        let Some(room) = self.room() else { return };
        let (leash, end, ready, tell) = pipes();
        // SAFETY: this process has one thread; the child executes at once. The descriptors get
        // numbers that survive the exec.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: as above.
            unsafe {
                libc::dup2(leash, 0);
                libc::dup2(tell, 1);
            }
            let error = Command::new("/proc/self/exe")
                .args(["--workload", "fuzz_victim", &a.to_string(), &(5 + b % 60).to_string()])
                .exec();
            panic!("exec: {error}");
        }
        close(leash);
        close(tell);
        wait(ready);
        self.kids[room] = Some(Kid { pid, leash: end });
    }

    /// Says that it is ready and exits when it is told: standard input and output are pipes.
    pub(super) fn tell_ready_and_wait(&self) -> ! {
        say_and_wait(1, 0)
    }

    /// A child that exits, or is killed, while its threads are at work.
    pub(super) fn vanish(&mut self, a: u32, b: u32) {
        // SAFETY: this process has one thread; the child never returns.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            for number in 0..3 {
                let mut sibling = self.sibling();
                thread::spawn(move || {
                    loop {
                        sibling.run_some(a.wrapping_add(number), 200);
                    }
                });
            }
            self.racing = true;
            self.run_some(b, b % 300);
            // SAFETY: ends the child, however its threads are doing.
            unsafe {
                if b.is_multiple_of(2) {
                    libc::_exit(0)
                } else {
                    libc::kill(libc::getpid(), libc::SIGKILL)
                };
            }
            loop {
                thread::park();
            }
        }
        // SAFETY: waits for our child.
        unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    }
}

/// Returns two pipes: reading and writing end of each. All are closed by exec.
fn pipes() -> (i32, i32, i32, i32) {
    let mut first = [0; 2];
    let mut second = [0; 2];
    // SAFETY: new descriptors.
    unsafe {
        assert_eq!(libc::pipe2(first.as_mut_ptr(), libc::O_CLOEXEC), 0);
        assert_eq!(libc::pipe2(second.as_mut_ptr(), libc::O_CLOEXEC), 0);
    }
    (first[0], first[1], second[0], second[1])
}

fn close(fd: i32) {
    // SAFETY: a descriptor of ours that nobody uses any more.
    unsafe { libc::close(fd) };
}

/// Waits for a byte and closes.
fn wait(ready: i32) {
    let mut byte = 0_u8;
    // SAFETY: reads into a variable of ours.
    unsafe { libc::read(ready, (&raw mut byte).cast(), 1) };
    close(ready);
}

/// Says that a child is ready, waits for the end of its leash, exits.
pub(super) fn say_and_wait(tell: i32, leash: i32) -> ! {
    let mut byte = 1_u8;
    // SAFETY: writes and reads a variable of ours, then ends the process.
    unsafe {
        libc::write(tell, (&raw const byte).cast(), 1);
        libc::read(leash, (&raw mut byte).cast(), 1);
        libc::_exit(0)
    }
}

/// Ends a child and waits for it.
pub(super) fn reap(Kid { pid, leash }: Kid) {
    // SAFETY: a descriptor and a child of ours. Other children may hold copies of the descriptor:
    // a byte tells one reader, and all of them are to end some time.
    unsafe {
        libc::write(leash, [1_u8].as_ptr().cast(), 1);
        libc::close(leash);
        libc::waitpid(pid, ptr::null_mut(), 0);
    }
}
