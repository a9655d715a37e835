//! `memtrace attach`: processes that run already.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Common, Outcome, Tracing, duration,
    failure::{Failure, check_executable, check_privileges},
    output::{Output, Stream},
    priority, runtime,
    tracer::Tracer,
};
use crate::{probe::look::Gone, source::procfs};

/// Traces running processes until Ctrl-C, a duration or their exit, then reports.
#[derive(Debug, Args)]
pub(super) struct Attach {
    #[command(flatten)]
    pub(super) tracing: Tracing,
    /// Stops after this time, such as 500ms, 10s or 5m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) duration: Option<Duration>,
    /// The processes.
    #[arg(required = true, value_name = "PID")]
    pub(super) pids: Vec<u32>,
}

impl Attach {
    /// Traces, then reports.
    pub(super) fn main(self, common: &Common) -> Outcome {
        self.tracing.check(common)?;
        let (pids, mut gone) = check_processes(&self.pids, |pid| {
            check_executable((procfs::memory_dir(pid) + "/exe").as_ref())
        })?;
        check_privileges()?;
        let mut output = Output::open(common, Stream::Stdout)?;
        let runtime = runtime()?;
        runtime.block_on(async {
            let mut tracer = Tracer::attach(&self.tracing, common, &output, true)?;
            let stopped = stop(self.duration)?;
            let mut traced = 0;
            for (pid, _) in pids {
                match tracer.seed(pid) {
                    Ok(()) => traced += 1,
                    Err(error) if error.is::<Gone>() => {
                        log::warn!("process {pid} exited while it was being attached");
                        gone.push(pid);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if traced == 0 {
                let error = match gone.as_slice() {
                    [pid] => anyhow!("process {pid} exited while it was being attached"),
                    gone => anyhow!("all {} processes are gone", gone.len()),
                };
                return Err(Failure::new(Failure::FAILED, error, "nothing was traced"));
            }
            log::info!("tracing");
            priority::hurry();
            tracer.follow_to_exit(stopped).await?;
            let report = tracer.report()?;
            self.tracing.stacks.write(&report)?;
            self.tracing.tell(&mut tracer, &report, &mut output)?;
            Ok(ExitCode::from(if gone.is_empty() { 0 } else { Failure::FAILED }))
        })
    }
}

/// Returns what ends when the user wants to stop, or the time is over. Signals are caught from now
/// on, the time counts from when it is first awaited.
pub(super) fn stop(duration: Option<Duration>) -> Result<impl Future<Output = Result<()>>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch signals")?;
    Ok(async move {
        let timer = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = timer => {}
        }
        Ok(())
    })
}

/// Processes that can be looked at.
pub(super) type Processes = Vec<(u32, procfs::Found)>;

/// Returns those of many processes that can be looked at, each once, and those that are gone: they may
/// have ended since they were named. `is_fit` is asked about each of the first.
pub(super) fn check_processes(
    pids: &[u32],
    is_fit: impl Fn(u32) -> Result<(), Failure>,
) -> Result<(Processes, Vec<u32>), Failure> {
    let (mut found, mut gone) = (Processes::new(), Vec::new());
    for &pid in pids {
        match check_process(pid) {
            Err(failure) if failure.is_gone() && pids.len() > 1 => {
                log::warn!("there is no process {pid} (any more)");
                gone.push(pid);
            }
            checked => {
                let process = checked?;
                is_fit(pid)?;
                if found.iter().all(|(known, _)| *known != pid) {
                    found.push((pid, process));
                }
            }
        }
    }
    Ok((found, gone))
}

/// There is nothing to trace.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoProcess {
    /// Nobody has this number.
    #[error("there is no process {0}")]
    None(u32),
    /// It exited and was not waited for.
    #[error("process {0} ({1}) exited already: its memory is gone")]
    Exited(u32, String),
}

/// Checks that `pid` is a process that can be traced.
pub(super) fn check_process(pid: u32) -> Result<procfs::Found, Failure> {
    if pid == 0 {
        return Err(Failure::usage(
            "PID 0 is the kernel's idle task, not a process".to_owned(),
            "name a process: `pgrep -f NAME`",
        ));
    }
    if pid == std::process::id() {
        return Err(Failure::usage(format!("{pid} is memtrace itself"), "name another process"));
    }
    let found = procfs::find(pid).with_context(|| format!("cannot read /proc/{pid}/stat"))?;
    let Some(found) = found else {
        return Err(Failure::new(
            Failure::FAILED,
            NoProcess::None(pid).into(),
            "find it with `pgrep -f NAME`; in a container, PIDs differ from the host's",
        ));
    };
    if let Some(tgid) = procfs::tgid_of(pid).filter(|&tgid| tgid != pid) {
        return Err(Failure::usage(
            format!("{pid} is a thread of process {tgid}"),
            format!("name the process: {tgid}"),
        ));
    }
    if found.stat.is_kernel_thread {
        return Err(Failure::usage(
            format!("{pid} ({}) is a kernel thread: it has no address space", found.stat.comm),
            "name a process of userspace",
        ));
    }
    if procfs::living_thread(pid).is_none() {
        return Err(Failure::new(
            Failure::FAILED,
            NoProcess::Exited(pid, found.stat.comm).into(),
            "it is a zombie until its parent waits for it",
        ));
    }
    Ok(found)
}
