//! Whether this kernel lets a program live that is confined by seccomp, when a function returns that is
//! probed: from 6.11 that is a system call (`uretprobe`), which filters saw until 6.14
//! (kernel/seccomp.c, `mode1_syscalls_allowed`). A child of ours tries it.

use std::{io, mem, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{Pid, pipe},
};

use super::measure::{EMULATED, provider};
use crate::{probe::attach::Probes, source::allocator_functions::Role};

/// `__NR_uretprobe` (arch/x86/entry/syscalls/syscall_64.tbl, 6.11).
const URETPROBE: u32 = 335;

/// Tells whether a confined child of ours survives.
pub(super) fn is_safe(probes: &mut Probes) -> Result<bool> {
    let provider = provider(EMULATED, Role::Malloc)?;
    let (permitted, permission) = pipe().context("cannot make a pipe")?;
    // SAFETY: this process has one thread that may hold locks, this one; the child only makes system
    // calls.
    let child = match unsafe { libc::fork() } {
        0 => confined(permitted.as_raw_fd(), permission.as_raw_fd()),
        -1 => return Err(io::Error::last_os_error()).context("cannot fork"),
        child => child,
    };
    let attached = probes.probe_functions(child as u32, &provider);
    let told = nix::unistd::write(&permission, &[u8::from(attached.is_ok())]);
    let status = waitpid(Pid::from_raw(child), None);
    probes.release_functions();
    attached?;
    told.context("cannot tell a child to go on")?;
    Ok(matches!(status.context("cannot wait for a child")?, WaitStatus::Exited(_, 0)))
}

/// The child: waits, confines itself, calls the probed function, and ends with 0 when that returned what
/// it should.
fn confined(permitted: i32, permission: i32) -> ! {
    let filter =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filters = [
        filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, URETPROBE),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filters.len() as u16, filter: filters.as_mut_ptr() };
    let mut go = [0_u8; 1];
    // SAFETY: system calls with values of ours; the function gives back what it gets.
    unsafe {
        // Or memtrace's death would leave it waiting for ever.
        libc::close(permission);
        // A crash of this child is an answer, no core.
        let none = mem::zeroed::<libc::rlimit>();
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        if libc::read(permitted, go.as_mut_ptr().cast(), 1) != 1 || go[0] == 0 {
            libc::_exit(2);
        }
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        // Where there is no seccomp, nobody is confined by it.
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
        libc::_exit(i32::from(EMULATED(3) != 3));
    }
}
