//! Shows where memory went after it was freed: live, kept, or back with the kernel.
//!
//! Reading order: `model` (pure: events in, reports out), `source` (where events come from),
//! `allocator` (what allocators hold), `probe` (the kernel side's counterpart), `follow` (keeps the model in step with them), `verify`
//! (holds it against them), `sink` (where reports go), `cli` (the commands).

pub mod allocator;
pub mod cli;
pub mod follow;
pub mod model;
pub mod probe;
pub mod sink;
pub mod source;
pub mod verify;
