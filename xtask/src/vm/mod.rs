//! `cargo xtask vm`: the kernel tests on Debian's kernels, each in a throw-away QEMU machine.
//!
//! Without KVM and network, so that it is the same everywhere; the one disk is empty, for swap. The
//! kernels come from Debian's packages through an apt configuration of our own: nothing is installed,
//! nothing needs root.

mod apt;
mod cpio;
mod fetch;
mod guest;
mod kernels;
mod outcome;
mod qemu;
mod report;
mod table;
mod unpack;
mod version;

use std::{
    collections::VecDeque,
    env,
    path::PathBuf,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use self::{
    fetch::{Cache, Kernel},
    guest::Guest,
    kernels::Line,
    outcome::Outcome,
    qemu::{Boot, Qemu},
    report::Verdict,
};
use crate::{docs, workspace::Workspace};

/// The options of `cargo xtask vm`.
#[derive(Args)]
pub(crate) struct Options {
    /// Kernel lines such as 6.12, full releases, `newest`, or `all`
    #[arg(long, value_delimiter = ',', default_value = "6.1,newest")]
    kernels: Vec<String>,
    /// How many machines run at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Run only the tests whose name contains this
    #[arg(long, value_name = "FILTER")]
    test: Option<String>,
    /// Memory of a machine, as QEMU writes it
    #[arg(long, default_value = "2G")]
    memory: String,
    /// Transparent huge pages in the guest (the kernel's own default where not given)
    #[arg(long)]
    thp: Option<Thp>,
    /// Seconds after which a machine is ended
    #[arg(long, default_value_t = 1800)]
    timeout: u64,
    /// Put a file of this machine into the guest
    #[arg(long = "file", value_name = "HOST:GUEST")]
    files: Vec<String>,
    /// Boot this static program instead of the kernel tests; what counts is its exit status
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Fetch QEMU 10 from Debian's backports where this machine's own is older
    #[arg(long)]
    fetch_qemu: bool,
    /// Write what the kernels took and said into docs/KERNELS.md
    #[arg(long)]
    update: bool,
    /// Show the guests' output while they run
    #[arg(long, short)]
    verbose: bool,
    /// Arguments for the tests or the program
    #[arg(last = true)]
    args: Vec<String>,
}

/// The modes of the kernel's `transparent_hugepage=`.
#[derive(Clone, Copy, ValueEnum)]
enum Thp {
    Always,
    Madvise,
    Never,
}

/// Runs the tests on each kernel; fails when one of them fails.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let lines = kernels::wanted(&options.kernels)?;
    let cache = Cache::open()?;
    if options.fetch_qemu {
        cache.fetch_qemu()?;
    }
    let qemu = Qemu::find(&cache)?;
    println!("vm: {}", qemu.description);

    let mut kernels = Vec::new();
    let mut missing = Vec::new();
    for line in lines {
        match cache.kernel(&line).with_context(|| format!("cannot get kernel {line}"))? {
            Some(kernel) => kernels.push(kernel),
            None if line.is_required() => {
                bail!("apt no longer has a kernel {line}, which is required")
            }
            None => missing.push(line),
        }
    }
    if kernels.is_empty() {
        bail!("apt has none of the kernels asked for");
    }
    let guest = Guest::build(workspace, options)?;
    let verdicts = run_all(options, &qemu, &guest, kernels)?;
    report::print(&verdicts, &missing);
    if options.update {
        let command = "cargo xtask vm --kernels all --test table:: --update";
        docs::update(workspace, "docs/KERNELS.md", command, &table::render(&verdicts))?;
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.complaints.is_empty()).count();
    if failed > 0 {
        bail!("{failed} of {} kernels failed", verdicts.len());
    }
    Ok(())
}

fn run_all(
    options: &Options,
    qemu: &Qemu,
    guest: &Guest,
    kernels: Vec<Kernel>,
) -> Result<Vec<Verdict>> {
    let order: Vec<Line> = kernels.iter().map(|kernel| kernel.line.clone()).collect();
    let queue = Mutex::new(VecDeque::from(kernels));
    let next = || queue.lock().ok()?.pop_front();
    let mut verdicts = thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    while let Some(kernel) = next() {
                        done.push(run_one(options, qemu, guest, &kernel)?);
                    }
                    Ok(done)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .collect::<Result<Vec<_>>>()
    })?
    .concat();
    verdicts.sort_by_key(|verdict| order.iter().position(|line| *line == verdict.line));
    Ok(verdicts)
}

fn run_one(options: &Options, qemu: &Qemu, guest: &Guest, kernel: &Kernel) -> Result<Verdict> {
    let started = Instant::now();
    let boot = Boot {
        name: &kernel.line.to_string(),
        kernel: &kernel.image,
        initrd: &guest.initrd,
        memory: &options.memory,
        parameters: &options
            .thp
            .and_then(|thp| thp.to_possible_value())
            .map_or_else(String::new, |thp| format!("transparent_hugepage={}", thp.get_name())),
        timeout: Duration::from_secs(options.timeout),
        verbose: options.verbose,
    };
    let mut run = qemu.boot(&boot)?;
    let mut outcome = outcome::judge(&run);
    if let Outcome::Died { ready: false, why } = &outcome {
        // an emulator's mishap in early boot, not the tests'
        println!("vm: {} died before it was ready ({why}): trying once more", kernel.line);
        run = qemu.boot(&boot)?;
        outcome = outcome::judge(&run);
    }
    let verdict = Verdict::new(kernel, outcome, run, started.elapsed(), guest.has_tests);
    println!("vm: {}", verdict.line());
    Ok(verdict)
}

/// Returns the folder that outlives the clone: kernels, package lists, QEMU.
fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("MEMTRACE_VM_CACHE") {
        return Ok(folder.into());
    }
    if let Some(folder) = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder).join("memtrace-vm"));
    }
    Ok(env::home_dir().context("cannot find the home folder")?.join(".cache/memtrace-vm"))
}
