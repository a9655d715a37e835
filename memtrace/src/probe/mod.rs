//! The probes: what this kernel offers, which hooks that makes us take, and attaching them.

pub mod attach;
pub mod btf;
pub mod cost;
pub mod facts;
mod iter;
pub mod load;
pub mod look;
mod machine;
pub mod plan;
mod room;
pub mod stacks;
mod sums;
pub mod table;
