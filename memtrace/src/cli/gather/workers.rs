//! What takes long, each on a thread of its own: walks of heaps, and attaching the probes.

use std::{io, sync::mpsc as from_here, thread};

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, oneshot};

use crate::{
    cli::{
        Failure, Level,
        failure::check_privileges,
        ledger::count_machine,
        look::{self, Look as Looked, Wanted},
        machine::{cpu_ns, now_ns},
        priority,
    },
    model::{
        report::ProcessReport,
        top::{Id, Look},
    },
    probe::attach::Probes,
    source::{procfs, progress::Counter},
};

/// Walks one process after the other, behind all others.
pub(super) struct Walker {
    asked: from_here::SyncSender<Id>,
    /// What was found; `None` where the process is gone.
    pub(super) found: mpsc::Receiver<Option<Look>>,
}

impl Walker {
    /// Starts it.
    pub(super) fn start() -> Result<Self> {
        let (asked, questions) = from_here::sync_channel::<Id>(1);
        let (answers, found) = mpsc::channel(1);
        let work = move || {
            priority::step_back();
            for id in questions {
                if answers.blocking_send(walk(id)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("walks".to_owned());
        thread.spawn(work).context("cannot start a thread")?;
        Ok(Self { asked, found })
    }

    /// Asks it to walk a process; false when it is busy.
    pub(super) fn ask(&self, id: Id) -> bool {
        self.asked.try_send(id).is_ok()
    }
}

/// Walks a process, `None` when it is gone.
fn walk(id: Id) -> Option<Look> {
    let before_ns = cpu_ns().ok()?;
    let result = match look(id) {
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(procfs::is_gone) => {
            return None;
        }
        Err(error) => Err(match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::PermissionDenied) => {
                format!("it cannot be looked at: {error:#}; {}", look::NEEDED)
            }
            _ => format!("it cannot be looked at: {error:#}"),
        }),
        Ok(report) => Ok(report?),
    };
    Some(Look {
        id,
        at_ns: now_ns().ok()?,
        cost_ns: cpu_ns().ok()?.saturating_sub(before_ns),
        result,
    })
}

fn look(id: Id) -> Result<Option<ProcessReport>> {
    let Some(found) = procfs::find(id.tgid)?.filter(|now| now.stat.start_ns == id.start_ns) else {
        return Ok(None);
    };
    let start_ns = now_ns()?;
    let mut looked = Looked::at(id.tgid, found, Wanted::default())?;
    looked.walk(false, &Counter::default())?;
    Ok(look::report(vec![looked], start_ns)?.processes.pop())
}

/// Attaches the probes, which takes a second. Says why not, where it cannot be done.
pub(super) fn attach(evidence: Option<Level>) -> Result<oneshot::Receiver<Result<Probes, String>>> {
    let (sender, attached) = oneshot::channel();
    let work = move || {
        let probes = check_namespace()
            .and_then(|()| check_privileges())
            .and_then(|()| count_machine(evidence))
            .map_err(|failure| failure.sentence());
        // Nobody waits when memtrace ends.
        let _ = sender.send(probes);
    };
    let thread = thread::Builder::new().name("probes".to_owned());
    thread.spawn(work).context("cannot start a thread")?;
    Ok(attached)
}

/// The kernel counts by the host's PIDs: checks that these are ours.
fn check_namespace() -> Result<(), Failure> {
    /// Number of the first namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
    const HOST: &str = "pid:[4026531836]";
    let own = std::fs::read_link("/proc/self/ns/pid").context("cannot read /proc/self/ns/pid")?;
    if own.as_os_str() != HOST {
        return Err(anyhow::anyhow!("PIDs here are not those of the host").into());
    }
    Ok(())
}
