//! A process that is held at its exit, before it gives its memory up (`PTRACE_EVENT_EXIT`).

use std::{io, ptr};

/// A process that this thread traces with ptrace(2).
pub(crate) struct Held(i32);

impl Held {
    /// Has a process stop at its exit.
    pub(crate) fn seize(pid: i32) -> Self {
        let held = Self(pid);
        held.request(libc::PTRACE_SEIZE, libc::PTRACE_O_TRACEEXIT | libc::PTRACE_O_EXITKILL);
        held
    }

    /// Kills a process and waits until it is at its exit.
    pub(crate) fn kill(pid: i32) -> Self {
        let held = Self::seize(pid);
        // SAFETY: ends a process of ours.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
        held.wait();
        held
    }

    /// Waits until it is at its exit.
    pub(crate) fn wait(&self) {
        let mut status = 0;
        // SAFETY: a place for the status.
        let pid = unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) };
        let exit = libc::SIGTRAP | libc::PTRACE_EVENT_EXIT << 8;
        assert_eq!((pid, status >> 8), (self.0, exit), "it should be at its exit");
    }

    /// Lets it exit.
    pub(crate) fn let_go(self) {
        self.request(libc::PTRACE_DETACH, 0);
    }

    fn request(&self, request: libc::c_uint, argument: i32) {
        // SAFETY: requests that read and write no memory.
        let done =
            unsafe { libc::ptrace(request, self.0, ptr::null_mut::<libc::c_void>(), argument) };
        assert_eq!(done, 0, "ptrace: {}", io::Error::last_os_error());
    }
}
