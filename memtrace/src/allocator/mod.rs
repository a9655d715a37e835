//! What allocators hold: walks over their heaps, read from outside while the process runs.
//!
//! Reading order: `memory` (how a walk reads), `mappings`, `search` (for books in data), `pages`
//! (residency, and what lies on each page), `window`, `walked` (what a walk finds), then one file or
//! folder for each allocator. A walk follows no pointer without bounds, reads no page that is not
//! resident, and keeps no contents.

pub mod glibc;
pub mod go;
pub mod image;
pub mod jemalloc;
pub mod jvm;
pub mod mappings;
pub mod memory;
pub mod mimalloc;
pub mod musl;
pub mod pages;
pub mod pymalloc;
pub mod search;
pub mod tcmalloc;
pub mod v8;
pub mod walked;
pub mod window;
