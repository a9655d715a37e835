//! PID 1 of the test machine: mounts the kernel's file systems, runs one program, says how it
//! ended, and leaves.
//!
//! `/vm/arguments` holds the program and its arguments, one a line; `/vm/environment` holds
//! `NAME=VALUE` lines. The kernel logs to ttyS0; the program's output and the `@@VM` marker lines
//! go to ttyS1.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};

const MOUNTS: [(&str, &str, &str); 12] = [
    ("devtmpfs", "/dev", ""),
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("bpf", "/sys/fs/bpf", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/run", "mode=755"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("devpts", "/dev/pts", ""),
];

/// The statuses of a shell for a program that cannot be run, or died by a signal.
const CANNOT_RUN: i32 = 127;
const BY_SIGNAL: i32 = 128;

fn main() {
    for (kind, folder, data) in MOUNTS {
        if let Err(error) = mount(kind, folder, data) {
            eprintln!("vm-init: cannot mount {kind} on {folder}: {error}");
        }
    }
    lift_locked_memory_limit();
    if let Err(error) = raise_loopback() {
        eprintln!("vm-init: cannot bring lo up: {error}");
    }
    // without its port nobody can hear a word: the host takes the silence for a death
    let status = match open_port() {
        Ok(mut port) => serve(&mut port),
        Err(error) => {
            eprintln!("vm-init: cannot open the output port: {error:#}");
            CANNOT_RUN
        }
    };
    leave(status);
}

/// Runs the program between the two marker lines.
fn serve(port: &mut File) -> i32 {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    say(port, &format!("@@VM ready kernel={} uptime={}", kernel.trim(), uptime()));
    let status = run_program(port).unwrap_or_else(|error| {
        say(port, &format!("vm-init: {error:#}"));
        CANNOT_RUN
    });
    say(port, &format!("@@VM exit rc={status} uptime={}", uptime()));
    // SAFETY: both only wait; the first until the port has sent everything (tcdrain)
    unsafe {
        libc::ioctl(port.as_raw_fd(), libc::TCSBRK, 1);
        libc::sync();
    }
    status
}

fn run_program(port: &File) -> Result<i32> {
    let arguments = fs::read_to_string("/vm/arguments").context("cannot read /vm/arguments")?;
    let mut arguments = arguments.lines();
    let program = arguments.next().context("/vm/arguments is empty")?;
    let environment = fs::read_to_string("/vm/environment").unwrap_or_default();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs([("PATH", "/bin:/sbin:/usr/bin:/usr/sbin"), ("HOME", "/root"), ("TMPDIR", "/tmp")])
        .envs(environment.lines().filter_map(|line| line.split_once('=')))
        .stdin(Stdio::null())
        .stdout(port.try_clone().context("cannot copy the port")?)
        .stderr(port.try_clone().context("cannot copy the port")?);
    // SAFETY: setsid is async-signal-safe and touches no memory
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    let child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    wait_for(i32::try_from(child.id()).context("a PID is an i32")?)
}

/// Reaps every orphan, as PID 1 must, until the program itself ends.
fn wait_for(program: i32) -> Result<i32> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for it
        match unsafe { libc::wait(&raw mut status) } {
            pid if pid < 0 => return Err(io::Error::last_os_error()).context("cannot wait"),
            pid if pid == program => {
                let status = ExitStatus::from_raw(status);
                let signal = BY_SIGNAL + status.signal().unwrap_or(0);
                return Ok(status.code().unwrap_or(signal));
            }
            _ => {}
        }
    }
}

fn open_port() -> Result<File> {
    let port = OpenOptions::new().write(true).open("/dev/ttyS1").context("cannot open ttyS1")?;
    // SAFETY: an all-zero termios is valid, and the calls only read and write it
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(port.as_raw_fd(), &raw mut settings) == 0 {
            settings.c_oflag &= !libc::OPOST;
            libc::tcsetattr(port.as_raw_fd(), libc::TCSANOW, &raw const settings);
        }
    }
    Ok(port)
}

fn say(port: &mut File, line: &str) {
    if let Err(error) = writeln!(port, "{line}") {
        eprintln!("vm-init: cannot write {line:?}: {error}");
    }
}

fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn mount(kind: &str, folder: &str, data: &str) -> io::Result<()> {
    // those below a mounted file system exist, or cannot be made
    let _ = fs::create_dir_all(folder);
    let (kind, folder, data) = (CString::new(kind)?, CString::new(folder)?, CString::new(data)?);
    // SAFETY: all are valid C strings
    let done = unsafe {
        libc::mount(kind.as_ptr(), folder.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Kernels before 5.11 charge BPF maps to this limit.
fn lift_locked_memory_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is valid
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } != 0 {
        eprintln!("vm-init: cannot lift RLIMIT_MEMLOCK: {}", io::Error::last_os_error());
    }
}

fn raise_loopback() -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid; the socket is closed by nobody but the machine's end
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l'.cast_signed();
        request.ifr_name[1] = b'o'.cast_signed();
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        if socket < 0 || libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends the machine: QEMU's own status becomes 33 for success and 35 for failure.
fn leave(status: i32) -> ! {
    let code: u8 = if status == 0 { 0x10 } else { 0x11 };
    // SAFETY: 0xf4 is the port of the exit device that xtask gives the machine; cloud kernels
    // have no /dev/port
    #[cfg(target_arch = "x86_64")]
    unsafe {
        if libc::ioperm(0xf4, 1, 1) == 0 {
            std::arch::asm!("out dx, al", in("dx") 0xf4_u16, in("al") code);
        }
    }
    // SAFETY: this is PID 1, and the machine has no more to do
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    // a PID 1 that ends is a panic, which is what the host should see now
    std::process::exit(code.into());
}
