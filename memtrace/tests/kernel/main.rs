//! Tests that need a kernel to trace, as root: workloads of known behaviour against the report.
//!
//! Runs on this host (`cargo xtask test`) and in the VM matrix (`cargo xtask vm`). The same binary
//! is the workload: `kernel --workload NAME`.

mod driver;
mod maps;
mod paths;
mod tasks;
mod workload;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut args = std::env::args();
    if args.nth(1).as_deref() == Some("--workload") {
        let name = args.next().expect("a workload's name");
        workload::run(&name, &args.collect::<Vec<_>>());
        return;
    }
    let mut arguments = Arguments::from_args();
    // Workloads of their own and two CPUs: side by side they would only wait for each other.
    arguments.test_threads.get_or_insert(1);
    let trials: Vec<Trial> =
        [paths::trials(), maps::trials(), tasks::trials()].into_iter().flatten().collect();
    libtest_mimic::run(&arguments, trials).exit();
}
