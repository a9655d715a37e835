//! The entry points, one file for each thing that is watched.

mod address_space;
mod allocation;
mod call;
mod fault;
mod frames;
mod snapshot;
mod task;
