//! Tests that need a kernel to trace, as root: workloads of known behaviour against the report.
//!
//! Runs on this host (`cargo xtask test`) and in the VM matrix (`cargo xtask vm`). The same binary
//! is the workload: `kernel --workload NAME`, and the fuzzer: `kernel --fuzz …`.

mod afterlife;
mod cases;
mod cells;
mod daemon;
mod driver;
mod evidence;
mod fuzz;
#[path = "../common/group.rs"]
mod group;
mod heap;
mod hooks;
mod ledger;
mod maps;
mod outside;
mod paths;
mod record;
mod rights;
mod settle;
mod stacks;
mod tasks;
mod workload;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut args = std::env::args();
    match args.nth(1).as_deref() {
        Some("--workload") => {
            let name = args.next().expect("a workload's name");
            workload::run(&name, &args.collect::<Vec<_>>());
            return ExitCode::SUCCESS;
        }
        Some("--fuzz") => {
            return match fuzz::main(&args.collect::<Vec<_>>()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    println!("{error:#}");
                    ExitCode::FAILURE
                }
            };
        }
        _ => {}
    }
    let mut arguments = Arguments::from_args();
    // Workloads of their own and two CPUs: side by side they would only wait for each other.
    arguments.test_threads.get_or_insert(1);
    let trials: Vec<Trial> = [
        paths::trials(),
        cases::trials(),
        cells::trials(),
        maps::trials(),
        tasks::trials(),
        hooks::trials(),
        heap::trials(),
        ledger::trials(),
        daemon::trials(),
        evidence::trials(),
        outside::trials(),
        afterlife::trials(),
        stacks::trials(),
        record::trials(),
        rights::trials(),
        fuzz::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    driver::print_notes();
    conclusion.exit_code()
}
