//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! Nothing here is shipped: memtrace itself builds with plain `cargo build`.

mod bench;
mod bpf;
mod command;
mod deb;
mod docs;
mod fuzz;
mod fuzz_maps;
mod libtest;
mod man;
mod soak;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(about = "The project's own commands", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the BPF object that memtrace embeds, or check that the committed one is right
    Bpf(bpf::Options),
    /// Run every check and test that this machine can run, and say which it cannot
    Test,
    /// Measure what tracing costs, side by side with strace, perf and bpftrace
    Bench(bench::Options),
    /// Build the Debian package to target/debian, and check it
    Deb,
    /// Run the fuzz targets of the decoders, parsers and the model
    Fuzz(fuzz::Options),
    /// Do random memory operations and hold memtrace's region maps against the kernel's
    FuzzMaps(fuzz_maps::Options),
    /// Write the man pages to target/man
    Man,
    /// Run the daemon among thousands of processes, and say what it takes and whether that grows
    Soak(soak::Options),
    /// Run the kernel tests on Debian's kernels in QEMU
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let workspace = Workspace::find();
    let done = match Cli::parse().command {
        Command::Bpf(options) => bpf::run(&workspace, &options),
        Command::Test => test::run(&workspace),
        Command::Bench(options) => bench::bench(&workspace, &options),
        Command::Deb => deb::build(&workspace),
        Command::Fuzz(options) => fuzz::fuzz(&workspace, &options),
        Command::FuzzMaps(options) => fuzz_maps::fuzz(&workspace, &options),
        Command::Man => man::write(&workspace),
        Command::Soak(options) => soak::soak(&workspace, &options),
        Command::Vm(options) => vm::run(&workspace, &options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
