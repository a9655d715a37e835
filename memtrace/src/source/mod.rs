//! Where events come from: the probes, `/proc`, or records that were kept.

pub mod allocators;
pub mod batches;
pub mod cgroups;
pub mod live;
pub mod memory;
pub mod process_memory;
pub mod procfs;
pub mod replay;
pub mod sequence;
pub mod settings;
pub mod stopped;
pub mod trace_file;
