//! `--stacks` of `run` and `attach`: who allocated what is not freed, and who freed.

mod measure;
mod read;
mod safe;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use self::{measure::measure, read::read, safe::is_safe};
use super::{Failure, buffer_size, line::note};
use crate::{
    follow::Follower,
    model::{
        build::stacks::limit,
        report::{ProbedFunction, Report, SamplingCost},
    },
    probe::{attach::Probes, look::Gone},
    sink::{
        folded::{self, Measure},
        printable, size,
    },
    source::{
        allocator_functions::{self, Provider},
        code::Code,
        loaded_files::loaded_files,
        procfs,
    },
};

/// Options of the commands that trace.
#[derive(Debug, Args)]
pub(super) struct StackOptions {
    /// Samples who allocates and who frees, by probes on the allocator's functions: that costs the
    /// process some microseconds a call, nobody else anything. Says first how much.
    #[arg(long)]
    pub(super) stacks: bool,
    /// Samples one byte of so many that are allocated.
    #[arg(
        long, value_name = "SIZE", default_value = "512K", value_parser = buffer_size,
        requires = "stacks"
    )]
    sample_bytes: u32,
    /// What `--format folded` and `--format flamegraph` show, in bytes by call stack.
    #[arg(long, value_enum, default_value_t = Measure::Retained, requires = "stacks")]
    pub(super) flame: Measure,
    /// Writes all call stacks to FILE.
    #[arg(long, value_name = "FILE", requires = "stacks")]
    stacks_file: Option<PathBuf>,
    /// How FILE is written.
    #[arg(long, value_enum, default_value_t = StacksFormat::Folded, requires = "stacks_file")]
    stacks_format: StacksFormat,
}

/// How call stacks are written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StacksFormat {
    /// One line for each stack, for flame graphs.
    Folded,
}

impl StackOptions {
    /// Returns how often is sampled, if at all.
    pub(super) fn period(&self) -> Option<u32> {
        self.stacks.then_some(self.sample_bytes)
    }

    /// Tells whether what is asked for is known of running processes alone.
    pub(super) fn needs_running(&self) -> bool {
        self.flame == Measure::FreedResident
    }

    /// Writes the call stacks to the file that was named.
    pub(super) fn write(&self, report: &Report) -> Result<(), Failure> {
        let (Some(path), Some(stacks)) = (&self.stacks_file, &report.stacks) else {
            return Ok(());
        };
        let StacksFormat::Folded = self.stacks_format;
        std::fs::write(path, folded::render(stacks, &report.processes)).map_err(|error| {
            let shown = path.display();
            Failure::new(
                Failure::FAILED,
                anyhow::anyhow!("cannot write to {shown}: {error}"),
                "name a file in a folder that exists and that you may write to",
            )
        })
    }
}

/// A kernel on which sampling would end some programs.
#[derive(Debug, thiserror::Error)]
#[error(
    "this kernel ends a program that is confined by seccomp when a function returns that is probed \
     (Linux 6.11 to 6.13)"
)]
pub(super) struct Unsafe;

/// What is sampled.
pub(super) struct Sampling {
    sample_bytes: u32,
    cost: SamplingCost,
    functions: Vec<ProbedFunction>,
    processes: Vec<Sampled>,
}

/// A process that is sampled.
struct Sampled {
    tgid: u32,
    code: Code,
    /// Files in which its allocators are probed, by device and inode number.
    probed: Vec<(u64, u64)>,
    /// When its code was looked at last, and how many samples there were.
    last: (Instant, u64),
    /// It executed a program at that time: what it loads is looked at until it has settled.
    executed: Option<Instant>,
}

/// How long a program that was just executed is taken to load its libraries.
const LOADING: Duration = Duration::from_millis(500);
/// How often the code of a process is looked at while it allocates.
const LOOK: Duration = Duration::from_secs(1);

impl Sampling {
    /// Measures what it costs. Nothing is probed yet.
    pub(super) fn new(probes: &mut Probes, sample_bytes: u32) -> Result<Self> {
        let why = "cannot put probes on functions";
        if !is_safe(probes).context(why)? {
            bail!(Unsafe);
        }
        let cost = measure(probes).context(why)?;
        Ok(Self { sample_bytes, cost, functions: Vec::new(), processes: Vec::new() })
    }

    /// Samples a process that runs already.
    pub(super) fn seed(&mut self, probes: &mut Probes, tgid: u32) -> Result<()> {
        let mut sampled = Sampled::new(tgid);
        sampled.code.look(tgid).map_err(|error| {
            if procfs::is_gone(&error) { Gone.into() } else { anyhow::Error::from(error) }
        })?;
        let provider = allocator_functions::of_process(tgid)
            .with_context(|| format!("cannot sample process {tgid}"))?;
        self.probe(probes, &mut sampled, &provider)?;
        self.processes.push(sampled);
        probes.sample(tgid, 1)
    }

    /// Samples a process from when it executes `program` on.
    pub(super) fn expect(&mut self, probes: &mut Probes, tgid: u32, program: &Path) -> Result<()> {
        let mut sampled = Sampled::new(tgid);
        let files = loaded_files(program);
        sampled.code.expect(&files);
        match allocator_functions::of_program(&files) {
            Ok(provider) => self.probe(probes, &mut sampled, &provider)?,
            Err(error) => log::info!("{}: {error}", program.display()),
        }
        self.processes.push(sampled);
        probes.sample(tgid, 0)
    }

    /// Probes a file's functions in a process, and says what it costs before.
    fn probe(&mut self, probes: &mut Probes, sampled: &mut Sampled, from: &Provider) -> Result<()> {
        let SamplingCost { allocation_ns, free_ns, stepped_ns } = self.cost;
        let names = |emulated: bool| {
            let functions = from.functions.iter().filter(|function| function.emulated == emulated);
            functions.map(|function| function.name).collect::<Vec<_>>().join(", ")
        };
        let (cheap, dear) = (names(true), names(false));
        note(&format!(
            "memtrace: sampling one byte of {} that {} allocates, by probes on {cheap} of {}: each \
             allocation costs about {:.1} µs more, each free {:.1} µs (as just measured)",
            size(self.sample_bytes.into()),
            sampled.tgid,
            printable(&from.name),
            allocation_ns as f64 / 1e3,
            free_ns as f64 / 1e3,
        ));
        if !dear.is_empty() {
            log::warn!(
                "{dear}: no instruction at its beginning is cheap to probe, so each call costs {:.1} \
                 µs beside that",
                stepped_ns as f64 / 1e3
            );
        }
        probes.probe_functions(sampled.tgid, from)?;
        sampled.probed.push(from.id);
        for function in &from.functions {
            let name = function.name.to_owned();
            let row = ProbedFunction { name, file: from.name.clone(), emulated: function.emulated };
            if !self.functions.contains(&row) {
                self.functions.push(row);
            }
        }
        Ok(())
    }

    /// Notes that a process executed a program.
    pub(super) fn executed(&mut self, tgid: u32) {
        if let Some(sampled) = self.processes.iter_mut().find(|sampled| sampled.tgid == tgid) {
            sampled.code.executed();
            sampled.executed = Some(Instant::now());
        }
    }

    /// Looks at what sampled processes have loaded meanwhile.
    pub(super) fn turn(&mut self, probes: &mut Probes) -> Result<()> {
        let mut processes = std::mem::take(&mut self.processes);
        for sampled in &mut processes {
            self.look(probes, sampled)?;
        }
        self.processes = processes;
        Ok(())
    }

    fn look(&mut self, probes: &mut Probes, sampled: &mut Sampled) -> Result<()> {
        let is_loading = sampled.executed.is_some();
        if !is_loading && sampled.last.0.elapsed() < LOOK {
            return Ok(());
        }
        let samples = probes.sampling()?.samples;
        if !is_loading && samples == sampled.last.1 {
            return Ok(());
        }
        sampled.last = (Instant::now(), samples);
        match sampled.code.look(sampled.tgid) {
            Err(error) if procfs::is_gone(&error) => return Ok(()),
            looked => looked?,
        }
        if let Some(executed) = sampled.executed {
            // A script, a static program, or one with an allocator of its own.
            match allocator_functions::of_process(sampled.tgid) {
                Ok(provider) if !sampled.probed.contains(&provider.id) => {
                    if let Err(error) = self.probe(probes, sampled, &provider) {
                        log::warn!("{error:#}");
                    }
                    sampled.executed = None;
                }
                _ if executed.elapsed() > LOADING => sampled.executed = None,
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends sampling, and adds what was sampled to the report.
    pub(super) fn report(&mut self, follower: &mut Follower, report: &mut Report) -> Result<()> {
        for sampled in &mut self.processes {
            let _ = sampled.code.look(sampled.tgid);
        }
        let samples = follower.probes_mut().samples()?;
        let mut stacks = read(self, &samples, follower.model());
        for sampled in &mut stacks.processes {
            let mut processes = report.processes.iter();
            if let Some(process) = processes.find(|process| process.tgid == sampled.tgid) {
                limit(sampled, process);
            }
        }
        report.stacks = Some(stacks);
        Ok(())
    }
}

impl Sampled {
    fn new(tgid: u32) -> Self {
        let last = (Instant::now(), 0);
        Self { tgid, code: Code::default(), probed: Vec::new(), last, executed: None }
    }
}
