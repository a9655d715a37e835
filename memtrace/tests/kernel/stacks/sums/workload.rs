//! Touches, gives up and gives back known pages in functions of known names.

use std::{
    fs::File,
    hint::black_box,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::Command,
};

use super::super::super::workload::{Mapped, child, say, told};

/// Pages that each function is about.
pub(super) const FEW: u64 = 600;
pub(super) const MORE: u64 = 1_500;
pub(super) const ADVISED: u64 = 900;
pub(super) const TOUCHED: u64 = FEW + MORE + ADVISED;
pub(super) const SET: u64 = 700;
pub(super) const READ: u64 = 800;

/// Does what is asked for.
pub(crate) fn run(name: &str) {
    match name {
        "steps" => {
            say("ready");
            while told() {
                all();
                say("done");
            }
        }
        "at_once" => all(),
        "child" => {
            unmaps_few(touches(FEW));
            child(|| unmaps_more(touches(MORE)));
        }
        "exec" => {
            unmaps_few(touches(FEW));
            let arguments = ["--workload", "stacks", "sums", "at_once"];
            let error = Command::new("/proc/self/exe").args(arguments).exec();
            panic!("cannot execute: {error}");
        }
        other => panic!("no workload stacks sums {other}"),
    }
}

fn all() {
    unmaps_few(touches(FEW));
    unmaps_more(touches(MORE));
    advises(touches(ADVISED)).unmap();
    sets(Mapped::anon(SET));
    reads_into(Mapped::anon(READ));
}

#[inline(never)]
fn touches(count: u64) -> Mapped {
    black_box(Mapped::anon(count).touch())
}

#[inline(never)]
fn unmaps_few(mapped: Mapped) {
    black_box(mapped).unmap();
}

#[inline(never)]
fn unmaps_more(mapped: Mapped) {
    black_box(mapped).unmap();
}

#[inline(never)]
fn advises(mapped: Mapped) -> Mapped {
    black_box(mapped.advise(libc::MADV_DONTNEED))
}

/// The function that faults has no frame: its caller is known all the same.
#[inline(never)]
fn sets(mapped: Mapped) {
    let Mapped { start, len } = black_box(mapped);
    // SAFETY: a mapping of ours.
    black_box(unsafe { libc::memset(start.cast(), 1, len) });
    black_box(mapped);
}

/// The kernel faults.
#[inline(never)]
fn reads_into(mapped: Mapped) {
    let Mapped { start, len } = black_box(mapped);
    let zeros = File::open("/dev/zero").expect("it is always there");
    // SAFETY: a mapping of ours, of which zeros may be read.
    let read = unsafe { libc::read(zeros.as_raw_fd(), start.cast(), len) };
    assert_eq!(read, len as isize);
    black_box(zeros);
}
