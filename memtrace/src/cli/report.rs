//! `memtrace report`: one look at what processes hold, and how much of it is free.

use std::{io, path::PathBuf, process::ExitCode, thread, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Common, Format, Outcome,
    attach::{Processes, check_processes, stop},
    connect::{Connect, Daemon, Problem, explain},
    core, duration,
    failure::Failure,
    look::{self, Look, Walks, Wanted},
    machine::now_ns,
    output::{Output, Stream},
    priority, runtime,
};
use crate::{
    model::{cells::share, report::Report as Looked},
    source::procfs::{self, Found},
};

/// Says of running processes, or of a core file, how much of their memory is live, and how much is free
/// but still held.
#[derive(Debug, Args)]
pub(super) struct Report {
    /// Stops each process while its heaps are walked (for a third of a second per GiB), so that the
    /// figures are exact. Its system calls that wait may return early (EINTR).
    #[arg(long, conflicts_with = "connect")]
    exact: bool,
    /// Looks at every process of the machine; those that hold the most free memory come first.
    #[arg(long, conflicts_with = "pids")]
    all: bool,
    /// Looks again and again, each time after so long, until Ctrl-C or the exit of all.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "connect")]
    watch: Option<Duration>,
    /// Tells memory that is not touched for so long, too. It is cold, not known to be free. Each page
    /// that is touched costs the process a little once.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with_all = ["watch", "connect"])]
    cold: Option<Duration>,
    /// Looks at what a core file holds instead: of a process that ended, or that `gcore` wrote down.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pids", "exact", "all", "watch", "cold", "connect"])]
    core: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
    /// The processes.
    #[arg(required_unless_present_any = ["all", "core"], value_name = "PID")]
    pids: Vec<u32>,
}

impl Report {
    /// Reads, walks and shows.
    pub(super) fn main(self, common: &Common) -> Outcome {
        if let Some(core) = &self.core {
            let look = core::look(core)?;
            Output::open(common, Stream::Stdout)?.write(&look::report(vec![look], now_ns()?)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.watch.is_some() && common.format == Format::Html {
            return Err(Failure::usage(
                "a page is one look, --watch makes many".to_owned(),
                "leave --watch out, or take --format text or json",
            ));
        }
        if let Some(daemon) = self.connect.daemon()? {
            return self.ask(&daemon, common);
        }
        // What stands still waits for the walk.
        if !self.exact {
            priority::step_back();
        }
        let mut output = Output::open(common, Stream::Stdout)?;
        let Some(time) = self.watch else {
            let (report, gone) = self.look(output.format() == Format::Html)?;
            output.write(&report)?;
            return Ok(ExitCode::from(if gone == 0 { 0 } else { Failure::FAILED }));
        };
        runtime()?.block_on(async {
            let mut stop = std::pin::pin!(stop(None)?);
            let mut tick = interval(time);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut seen = false;
            loop {
                tokio::select! {
                    ended = &mut stop => {
                        ended?;
                        return Ok(ExitCode::SUCCESS);
                    }
                    _ = tick.tick() => match self.look(false) {
                        Ok((report, _)) => output.write_again(&report)?,
                        Err(failure) if failure.is_gone() && seen => return Ok(ExitCode::SUCCESS),
                        Err(failure) => return Err(failure),
                    },
                }
                seen = true;
            }
        })
    }

    /// Reports what a daemon found.
    fn ask(&self, daemon: &Daemon, common: &Common) -> Outcome {
        let mut output = Output::open(common, Stream::Stdout)?;
        let report = runtime()?.block_on(async {
            let pids = if self.all {
                let walked = daemon.listing().await?.processes.into_iter();
                walked.filter(|process| process.live.is_some()).map(|one| one.tgid).collect()
            } else {
                self.pids.clone()
            };
            let mut whole: Option<Looked> = None;
            for pid in pids {
                match daemon.report(pid).await {
                    Ok(report) => match &mut whole {
                        None => whole = Some(report),
                        Some(whole) => whole.processes.extend(report.processes),
                    },
                    Err(error) if self.all && error.is::<Problem>() => {}
                    Err(error) => return Err(error.context(format!("process {pid}"))),
                }
            }
            whole.context("the daemon has walked nothing yet")
        });
        output.write(&report.map_err(explain)?)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the report, `located` with where pages are, and how many of the processes were gone.
    fn look(&self, located: bool) -> Result<(Looked, usize), Failure> {
        let start_ns = now_ns()?;
        let (found, mut gone) = self.find()?;
        if let Some(time) = self.cold {
            for (pid, _) in &found {
                procfs::forget_references(*pid)
                    .with_context(|| format!("cannot reset what process {pid} has touched"))?;
            }
            thread::sleep(time);
        }
        let cells = located.then(|| share(found.len()));
        let wanted = Wanted { cold: self.cold.is_some(), cells };
        let (mut looks, mut denied) = (Vec::new(), 0);
        let mut walks = Walks::of(found.iter().map(|(pid, _)| *pid));
        let _line = walks.show();
        for (pid, found) in found {
            match self.look_at(pid, found, wanted, &mut walks) {
                Ok(look) => looks.push(look),
                Err(error) if procfs::is_gone(&error) => {
                    log::info!("process {pid} exited while it was looked at");
                    gone += usize::from(!self.all);
                }
                Err(error) if self.all && error.kind() == io::ErrorKind::PermissionDenied => {
                    denied += 1;
                }
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    return Err(error.context(format!("cannot read /proc/{pid}/smaps")).into());
                }
            }
        }
        if denied > 0 {
            log::warn!("not looked at for lack of permission: {denied} of the processes");
        }
        if looks.is_empty() && !self.all {
            let what = match self.pids.as_slice() {
                [pid] => format!("process {pid} ended while it was looked at"),
                pids => format!("all {} processes are gone", pids.len()),
            };
            return Err(Failure::gone(what, "it exited, or became other programs too fast"));
        }
        Ok((look::report(looks, start_ns)?, gone))
    }

    /// Returns the processes to look at, and how many of those that were named are gone.
    fn find(&self) -> Result<(Processes, usize), Failure> {
        if self.all {
            let found = everyone().context("cannot list /proc")?;
            return Ok((found, 0));
        }
        let mut pids = self.pids.clone();
        pids.sort_unstable();
        let (found, gone) = check_processes(&pids, |_| Ok(()))?;
        Ok((found, gone.len()))
    }

    fn look_at(
        &self,
        pid: u32,
        mut found: Found,
        wanted: Wanted,
        walks: &mut Walks,
    ) -> io::Result<Look> {
        /// Times that a process is looked at again that became another program meanwhile.
        const MOST_EXECS: usize = 5;
        let counter = walks.next(pid, &found.stat.comm);
        for _ in 0..MOST_EXECS {
            let looked = Look::at(pid, found, wanted).and_then(|mut look| {
                look.walk(self.exact, counter)?;
                Ok(look)
            });
            match (looked, procfs::find(pid)) {
                (Err(error), Ok(Some(now))) if procfs::is_gone(&error) => found = now,
                (looked, _) => return looked,
            }
        }
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// Returns every process but this one and those of the kernel.
fn everyone() -> io::Result<Processes> {
    let mut found = Vec::new();
    for pid in procfs::pids()?.into_iter().filter(|&pid| pid != std::process::id()) {
        // What ends meanwhile is not there.
        if let Ok(Some(process)) = procfs::find(pid)
            && !process.stat.is_kernel_thread
            && !process.stat.is_dead()
        {
            found.push((pid, process));
        }
    }
    Ok(found)
}
