//! Where events come from: the probes, `/proc`, or records that were kept.

pub mod live;
pub mod procfs;
pub mod replay;
pub mod sequence;
pub mod stopped;
pub mod trace_file;
