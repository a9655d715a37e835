//! Who allocates what is not freed, and who frees: probes on the functions of allocators.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{super::line::note, measure::measure, read::read, safe::is_safe};
use crate::{
    follow::Follower,
    model::{
        build::stacks::limit,
        report::{ProbedFunction, Report, SamplingCost, Stacks},
    },
    probe::{attach::Probes, look::Gone},
    sink::{printable, size},
    source::{
        allocator_functions::{self, Provider},
        code::Code,
        loaded_files::loaded_files,
        procfs,
    },
};

/// A kernel on which sampling would end some programs.
#[derive(Debug, thiserror::Error)]
#[error(
    "this kernel ends a program that is confined by seccomp when a function returns that is probed \
     (Linux 6.11 to 6.13)"
)]
pub(super) struct Unsafe;

/// What is sampled.
pub(super) struct Allocations {
    pub(super) sample_bytes: u32,
    pub(super) cost: SamplingCost,
    pub(super) functions: Vec<ProbedFunction>,
    pub(super) processes: Vec<Sampled>,
}

/// A process that is sampled.
pub(super) struct Sampled {
    pub(super) tgid: u32,
    pub(super) code: Code,
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

impl Allocations {
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

    /// Ends sampling, and returns what was sampled.
    pub(super) fn read(&mut self, follower: &mut Follower, report: &Report) -> Result<Stacks> {
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
        Ok(stacks)
    }
}

impl Sampled {
    fn new(tgid: u32) -> Self {
        let last = (Instant::now(), 0);
        Self { tgid, code: Code::default(), probed: Vec::new(), last, executed: None }
    }
}
