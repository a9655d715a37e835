//! What sampling adds to a call of the allocator here: two functions of ours that do nothing, called
//! with and without probes on them.

use std::{arch::global_asm, os::unix::fs::MetadataExt as _, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};

use crate::{
    model::report::SamplingCost,
    probe::attach::Probes,
    source::{
        allocator_functions::{Function, Provider, Role},
        procfs,
    },
};

// As functions of allocators begin: with an instruction that the kernel emulates, or not. They give back
// what they get.
global_asm!(
    ".pushsection .text.memtrace_measure, \"ax\", @progbits",
    ".p2align 4",
    ".hidden memtrace_measure_emulated",
    ".globl memtrace_measure_emulated",
    ".type memtrace_measure_emulated, @function",
    "memtrace_measure_emulated:",
    "push rbx",
    "mov rax, rdi",
    "pop rbx",
    "ret",
    ".size memtrace_measure_emulated, . - memtrace_measure_emulated",
    ".p2align 4",
    ".hidden memtrace_measure_stepped",
    ".globl memtrace_measure_stepped",
    ".type memtrace_measure_stepped, @function",
    "memtrace_measure_stepped:",
    "test rdi, rdi",
    "mov rax, rdi",
    "ret",
    ".size memtrace_measure_stepped, . - memtrace_measure_stepped",
    ".popsection",
);

unsafe extern "C" {
    fn memtrace_measure_emulated(argument: usize) -> usize;
    fn memtrace_measure_stepped(argument: usize) -> usize;
}

/// A function that gives back what it gets.
pub(super) type Measured = unsafe extern "C" fn(usize) -> usize;

const ROUNDS: usize = 5;
const CALLS: u32 = 2_000;

/// The one that an allocator's functions are like, most of them.
pub(super) const EMULATED: Measured = memtrace_measure_emulated;

/// Measures the cost of a call, in the middle of some rounds.
pub(super) fn measure(probes: &mut Probes) -> Result<SamplingCost> {
    let (emulated, stepped): (Measured, Measured) = (EMULATED, memtrace_measure_stepped);
    let bare = median(emulated);
    let pid = std::process::id();
    probes.sample(pid, 1)?;
    let mut with = |function: Measured, role: Role| -> Result<u64> {
        probes.probe_functions(pid, &provider(function, role)?)?;
        let cost = (median(function) - bare).max(0.0).round() as u64;
        probes.release_functions();
        Ok(cost)
    };
    let free_ns = with(emulated, Role::Free)?;
    let allocation_ns = with(emulated, Role::Malloc)?;
    let stepped_ns = with(stepped, Role::Free)?.saturating_sub(free_ns);
    probes.end_sampling(pid)?;
    Ok(SamplingCost { allocation_ns, free_ns, stepped_ns })
}

/// Says where one of the functions lies as if it were an allocator's.
pub(super) fn provider(function: Measured, role: Role) -> Result<Provider> {
    let address = function as usize as u64;
    let maps = procfs::maps(std::process::id())?;
    let mapping = maps.iter().find(|mapping| (mapping.start..mapping.end).contains(&address));
    let mapping = mapping.context("cannot find memtrace's own code")?;
    let offset = address - mapping.start + mapping.offset;
    let path = PathBuf::from("/proc/self/exe");
    let file = std::fs::metadata(&path).context("cannot read memtrace's own file")?;
    let functions = vec![Function { name: "a function of memtrace", role, offset, emulated: true }];
    Ok(Provider { name: "memtrace".to_owned(), path, id: (file.dev(), file.ino()), functions })
}

/// Returns the nanoseconds of a call.
fn median(function: Measured) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                // SAFETY: it gives back what it gets.
                unsafe { function(16) };
            }
            start.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::entry_block::emulated;

    #[test]
    fn one_function_begins_with_what_the_kernel_emulates_and_one_does_not() {
        let code = |function: Measured| {
            // SAFETY: code of ours.
            unsafe { *(function as *const [u8; 7]) }
        };
        assert_eq!(emulated(&code(memtrace_measure_emulated), &[7]), Some(0));
        assert_eq!(emulated(&code(memtrace_measure_stepped), &[7]), None);
        // SAFETY: it gives back what it gets.
        assert_eq!(unsafe { (memtrace_measure_emulated(3), memtrace_measure_stepped(4)) }, (3, 4));
    }

    #[test]
    fn the_functions_are_found_in_our_own_file() {
        let provider = provider(memtrace_measure_stepped, Role::Free).expect("our own code");
        let file = std::fs::read(&provider.path).expect("our own file");
        let offset = provider.functions[0].offset as usize;
        assert_eq!(file[offset..offset + 3], [0x48, 0x85, 0xff]);
    }
}
