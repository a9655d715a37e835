//! Where events come from: the probes, `/proc`, records that were kept, or a core file.

pub mod allocators;
pub mod batches;
pub mod cgroups;
pub mod core;
pub mod live;
pub mod memory;
pub mod process_memory;
pub mod procfs;
pub mod replay;
pub mod sequence;
pub mod settings;
pub mod stopped;
pub mod trace_file;
