//! `memtrace verify`: the model against the kernel, while the process runs.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;

use super::{
    Common, Outcome,
    attach::{check_process, stop},
    buffer_size, duration,
    failure::{Failure, check_executable, check_privileges},
    output::{Output, Stream},
    runtime,
};
use crate::{
    follow::Follower,
    model::report::Evidence,
    probe::{attach::Options, look::Gone},
    sink::{json, verify as text},
    source::{procfs, stopped::Stopped},
    verify::{self, Difference, Pages, Verdict},
};

/// Traces a running process and holds what memtrace knows of it against what the kernel says: each
/// region, and the pages that are resident. Exits with 1 when they differ.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Looks again and again for so long, such as 500ms, 10s or 5m.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    duration: Duration,
    /// Stops the process for each look, a few milliseconds. Without it, looks at which the process
    /// changed its memory do not count.
    #[arg(long)]
    stop: bool,
    /// Size of the buffer between kernel and memtrace, such as 64K or 16M.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = buffer_size)]
    buffer: u32,
    /// The process.
    #[arg(value_name = "PID")]
    pid: u32,
}

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a difference must last without a change of the map: a call may not have returned yet.
const PATIENCE: Duration = Duration::from_millis(500);

impl Verify {
    /// Traces and compares.
    pub(super) fn main(self, common: &Common) -> Outcome {
        let found = check_process(self.pid)?;
        check_executable((procfs::memory_dir(self.pid) + "/exe").as_ref())?;
        check_privileges()?;
        let mut output = Output::open(common, Stream::Stdout)?;
        let runtime = runtime()?;
        let verdict = runtime.block_on(self.verify(found.stat.comm))?;
        output.write_text(&match common.format {
            super::Format::Json => json::render(&verdict),
            _ => text::render(&verdict),
        })?;
        Ok(ExitCode::from(if verdict.is_proof() { 0 } else { Failure::FAILED }))
    }

    async fn verify(&self, comm: String) -> Result<Verdict, Failure> {
        let mut follower = Follower::attach(Options {
            // Frames that are freed make no difference here.
            evidence: Some(Evidence::Rss),
            running: true,
            buffer_bytes: self.buffer,
            ..Options::default()
        })?;
        let stopped = stop(Some(self.duration))?;
        match follower.seed(self.pid) {
            Err(error) if error.is::<Gone>() => {
                let error = anyhow!("process {} exited while it was being attached", self.pid);
                return Err(Failure::new(Failure::FAILED, error, "nothing was compared"));
            }
            seeded => seeded?,
        }
        let mut verdict = Verdict::new(self.pid, comm);
        tokio::pin!(stopped);
        let mut next = Instant::now();
        loop {
            let is_due = tokio::select! {
                ended = &mut stopped => {
                    ended?;
                    break;
                }
                is_due = follower.turn() => is_due?,
            };
            follower.catch_up();
            if is_due {
                follower.heal()?;
            }
            if Instant::now() < next {
                continue;
            }
            self.look(&mut follower, &mut verdict)?;
            if verdict.exited || !verdict.differences.is_empty() {
                break;
            }
            next = Instant::now() + PAUSE;
        }
        if verdict.looks == 0 && !verdict.exited && verdict.differences.is_empty() {
            self.look(&mut follower, &mut verdict)?;
        }
        verdict.resyncs = follower.model().resyncs();
        Ok(verdict)
    }

    /// Looks once, or until what differs has stayed for long enough.
    fn look(&self, follower: &mut Follower, verdict: &mut Verdict) -> Result<()> {
        let held = if self.stop { Some(Stopped::new(self.pid)) } else { None };
        let _held = match held.transpose() {
            Err(_) if procfs::living_thread(self.pid).is_none() => None,
            held => held?,
        };
        let began = Instant::now();
        let mut differs_since: Option<(u64, Instant)> = None;
        loop {
            match compare(follower, self.pid, verdict)? {
                Compared::Exited => {
                    verdict.exited = true;
                    return Ok(());
                }
                Compared::Busy => {
                    verdict.busy += 1;
                    return Ok(());
                }
                Compared::Still { differences, .. } if differences.is_empty() => {
                    verdict.looks += 1;
                    return Ok(());
                }
                Compared::Still { sections, differences } => match differs_since {
                    Some((then, since)) if then == sections => {
                        if since.elapsed() > PATIENCE {
                            verdict.looks += 1;
                            verdict.differences = differences;
                            return Ok(());
                        }
                    }
                    _ => differs_since = Some((sections, Instant::now())),
                },
            }
            // It differs each time, but is never the same for long.
            if began.elapsed() > 4 * PATIENCE {
                verdict.busy += 1;
                return Ok(());
            }
            thread::sleep(Follower::TICK);
        }
    }
}

/// What one comparison gave.
enum Compared {
    /// The process has no address space any more.
    Exited,
    /// It changed its map or its pages meanwhile.
    Busy,
    /// It did not.
    Still { sections: u64, differences: Vec<String> },
}

fn compare(follower: &mut Follower, tgid: u32, verdict: &mut Verdict) -> Result<Compared> {
    follower.catch_up();
    let Some(space) = space_of(follower, tgid) else { return Ok(Compared::Exited) };
    let Some(mm) = follower.model().mm(space) else { return Ok(Compared::Exited) };
    let before = follower.probes().sections(mm)?;
    follower.settle()?;
    follower.read_books()?;
    let books = follower.model().space(space).ledger;
    let mappings = match procfs::maps(tgid) {
        Err(error) if procfs::is_gone(&error) => return Ok(Compared::Exited),
        read => read.with_context(|| format!("cannot read /proc/{tgid}/maps"))?,
    };
    follower.catch_up();
    follower.heal()?;
    let model = follower.model();
    let differing = verify::regions(model, space, &mappings);
    let mut differences: Vec<String> = differing.iter().map(Difference::to_string).collect();
    let regions = model.space(space).regions.count() as u64;
    let by_books = Pages::of_ledger(&books);
    let by_tables = match procfs::pagemap::resident(tgid, verify::counted(model, space)) {
        Err(error) if procfs::is_gone(&error) => return Ok(Compared::Exited),
        read => Pages::from(read.with_context(|| format!("cannot read /proc/{tgid}/pagemap"))?),
    };
    follower.settle()?;
    follower.read_books()?;
    if space_of(follower, tgid) != Some(space) {
        return Ok(Compared::Exited);
    }
    let still = follower.model().space(space).ledger == books;
    let after = follower.probes().sections(mm)?;
    let (Some(sections), true) = (after, before == after && still) else {
        return Ok(Compared::Busy);
    };
    if by_books != by_tables {
        differences.push(format!(
            "resident pages: memtrace {} anonymous and {} of files, the kernel {} and {}",
            by_books.anon, by_books.file, by_tables.anon, by_tables.file
        ));
    }
    (verdict.regions, verdict.pages) = (regions, Some([by_books, by_tables]));
    Ok(Compared::Still { sections, differences })
}

fn space_of(follower: &Follower, tgid: u32) -> Option<crate::model::SpaceId> {
    follower.model().living().find(|process| process.tgid == tgid)?.space()
}
