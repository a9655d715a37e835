//! Where events come from: the probes, `/proc`, records that were kept, or a core file.

pub mod allocator_functions;
pub mod allocators;
pub mod batches;
pub mod cgroups;
pub mod code;
pub mod core;
pub mod entry_block;
pub mod live;
pub mod loaded_files;
pub mod memory;
pub mod process_memory;
pub mod procfs;
pub mod progress;
pub mod replay;
pub mod sequence;
pub mod settings;
pub mod stopped;
pub mod symbols;
pub mod trace_file;
