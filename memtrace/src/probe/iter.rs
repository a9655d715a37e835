//! Starts a BPF iterator for one thread and reads what it writes. (aya attaches iterators to every
//! task of the machine; we look only at those that we were asked about.)

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

/// `BPF_LINK_CREATE`, `BPF_ITER_CREATE` and `BPF_TRACE_ITER` (include/uapi/linux/bpf.h).
const LINK_CREATE: libc::c_long = 28;
const ITER_CREATE: libc::c_long = 33;
const TRACE_ITER: u32 = 28;

/// `union bpf_attr` for `BPF_LINK_CREATE` of an iterator.
#[repr(C)]
struct LinkCreate {
    prog_fd: RawFd,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: *const LinkInfo,
    iter_info_len: u32,
    reserved: u32,
}

/// `union bpf_iter_link_info`, the part about tasks (6.1).
#[repr(C)]
struct LinkInfo {
    tid: u32,
    pid: u32,
    pid_fd: u32,
    reserved: u32,
}

/// `union bpf_attr` for `BPF_ITER_CREATE`.
#[repr(C)]
struct IterCreate {
    link_fd: RawFd,
    flags: u32,
}

/// What the kernel buffers at most for one read (kernel/bpf/bpf_iter.c, 6.18).
const READ_BYTES: usize = 32 << 10;

/// Whom to look at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope {
    /// Every task of the machine: kernels before 6.1 cannot be told whom.
    Machine,
    /// One thread, by tid.
    Thread(u32),
    /// A process, by tgid. (With a tid, `task_vma` starts over at the end of an output of more than
    /// one read and never ends: 6.18.)
    Process(u32),
}

/// Runs a loaded iterator program and returns what it wrote.
///
/// Errors: `ESRCH` or `ENOENT` when there is no such thread or process.
pub(super) fn run(program: BorrowedFd<'_>, scope: Scope) -> io::Result<Vec<u8>> {
    let (tid, pid) = match scope {
        Scope::Machine => (0, 0),
        Scope::Thread(tid) => (tid, 0),
        Scope::Process(tgid) => (0, tgid),
    };
    let info = LinkInfo { tid, pid, pid_fd: 0, reserved: 0 };
    let info: &[LinkInfo] = if matches!(scope, Scope::Machine) { &[] } else { &[info] };
    let link = bpf(
        LINK_CREATE,
        &LinkCreate {
            prog_fd: program.as_raw_fd(),
            target_fd: 0,
            attach_type: TRACE_ITER,
            flags: 0,
            iter_info: if info.is_empty() { std::ptr::null() } else { info.as_ptr() },
            iter_info_len: size_of_val(info) as u32,
            reserved: 0,
        },
    )?;
    let iter = bpf(ITER_CREATE, &IterCreate { link_fd: link.as_raw_fd(), flags: 0 })?;
    let mut iter = File::from(iter);
    let mut bytes = Vec::new();
    // Large reads: the iterator gives the mm's lock up after each.
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = iter.read(&mut buffer)?;
        if read == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
}

/// Calls `bpf(2)` with a command that returns a file descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    let attributes = std::ptr::from_ref(attributes);
    // SAFETY: `attributes` points to a `union bpf_attr` of the given size for the whole call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
