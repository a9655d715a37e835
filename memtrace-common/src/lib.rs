//! The records that the probes write and memtrace reads.
//!
//! This crate is the whole contract between `memtrace-ebpf` and `memtrace`.
//! It is `no_std`, allocates nothing and does no I/O.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod control;
mod decode;
mod event;
mod ledger;
pub mod stacks;

pub use decode::{DecodeError, decode, decode_ledger};
pub use event::{
    Backing, Call, Event, Exec, Exit, Fault, FileName, Fork, Header, Kind, MmEnd, Record, Region,
    Syscall, TaskSeed, TeardownRun,
};
pub use ledger::{
    COUNTERS, Counter, DELAY_BUCKETS, Delays, FILLS, Fill, Ledger, Owner, PATHS, Path,
    PathCounters, ProbeStats, Remanence, Sum,
};
