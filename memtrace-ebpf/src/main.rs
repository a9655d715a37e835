//! The probes. Built for the host too, so that `cargo check` and rust-analyzer see them.
//!
//! Reading order: `kernel` (what is read and where it lies), `books` (who is followed and what is
//! counted), `emit` (the one way out), `evidence` (what each level may use), `stacks` (who allocates
//! and frees, who gives up and who faults), `probes` (one file for each thing that is watched).
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(core_intrinsics))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "see `atomic`"))]

mod atomic;
mod books;
mod emit;
mod evidence;
mod kernel;
mod percpu;
mod probes;
mod stacks;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
