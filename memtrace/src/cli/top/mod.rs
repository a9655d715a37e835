//! `memtrace top`: the live view. This thread draws; another gathers, and neither waits for the other.

mod terminal;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::Args;
use ratatui::crossterm::event::{self, Event as Input};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use self::terminal::Terminal;
use super::{
    Common, Failure, Format, Outcome,
    attach::check_processes,
    connect::{Connect, explain},
    duration,
    gather::{Gatherer, Plan, WalkPlan},
    runtime,
};
use crate::sink::tui::{Step, View};

/// Shows live which processes hold memory that they freed, and what they give back.
///
/// `?` in it explains the keys and the figures.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// Shows something new each time that this has passed.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Attaches no probe: what the kernel gets back is not counted.
    #[arg(long, conflicts_with = "connect")]
    no_probes: bool,
    #[command(flatten)]
    connect: Connect,
    /// Only these processes, instead of all.
    #[arg(value_name = "PID")]
    pids: Vec<u32>,
}

/// Part of a CPU for walks that nobody asked for, in millionths.
const WALK_SHARE: u32 = 4000;

impl Top {
    /// Gathers and shows until it is told to end.
    pub(super) fn main(self, common: &Common) -> Outcome {
        if common.format != Format::Text || common.output.is_some() {
            return Err(Failure::usage(
                "top is a view on a terminal: it writes no report".to_owned(),
                "`memtrace report --all --watch 1s --format json` writes what a program can read",
            ));
        }
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(Failure::usage(
                "top needs a terminal to show something on and to read keys from".to_owned(),
                "`memtrace report --all` writes the same figures once",
            ));
        }
        let gatherer = match self.connect.daemon()? {
            Some(daemon) => {
                // A daemon that is not there is told before the terminal is taken.
                runtime()?.block_on(daemon.listing()).map_err(explain)?;
                Gatherer::connect(daemon, self.interval, self.pids)?
            }
            None => self.gather()?,
        };
        runtime()?.block_on(show(gatherer))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Gathers what is shown.
    fn gather(self) -> Result<Gatherer, Failure> {
        let (found, _) = check_processes(&self.pids, |_| Ok(()))?;
        if found.is_empty() && !self.pids.is_empty() {
            return Err(Failure::gone(
                "all of the processes are gone".to_owned(),
                "leave the PIDs out to see all processes",
            ));
        }
        let pids = found.into_iter().map(|(pid, _)| pid).collect();
        let plan = Plan {
            pids,
            every: self.interval,
            counts: !self.no_probes,
            evidence: None,
            machine: false,
            walks: WalkPlan { share: WALK_SHARE, ..WalkPlan::default() },
            measures_probes: false,
        };
        Ok(Gatherer::start(plan, || Ok(()))?)
    }
}

async fn show(gatherer: Gatherer) -> anyhow::Result<()> {
    // Nobody plans anew.
    let Gatherer { mut snapshots, wishes, walks: _walks, counts: _counts, ended } = gatherer;
    let mut ends = [
        catch(SignalKind::terminate())?,
        catch(SignalKind::interrupt())?,
        catch(SignalKind::hangup())?,
    ];
    // What is logged would be written over the view.
    log::set_max_level(log::LevelFilter::Off);
    let mut terminal = Terminal::take()?;
    let mut keys = keys()?;
    let mut view = View {
        color: std::env::var_os("NO_COLOR").is_none(),
        size: terminal.size()?,
        ..View::default()
    };
    loop {
        terminal.draw(&view)?;
        let [terminate, interrupt, hangup] = &mut ends;
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            changed = snapshots.changed() => {
                if changed.is_err() {
                    drop(terminal);
                    let why = ended.await.unwrap_or_else(|_| anyhow!("nothing is gathered any more"));
                    return Err(why);
                }
                view.take(snapshots.borrow_and_update().clone());
            }
            key = keys.recv() => match key.context("the terminal is gone")?? {
                Input::Key(key) => match view.press(key) {
                    Step::Show => {}
                    Step::Quit => return Ok(()),
                    Step::Suspend => terminal.suspend()?,
                },
                Input::Resize(columns, lines) => view.size = (columns, lines),
                Input::FocusGained | Input::FocusLost | Input::Mouse(_) | Input::Paste(_) => {}
            },
        }
        let wish = view.wish();
        wishes.send_if_modified(|before| std::mem::replace(before, wish) != wish);
    }
}

fn catch(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot catch signals")
}

/// Reads keys on a thread of its own, for as long as this process lives.
fn keys() -> anyhow::Result<mpsc::Receiver<io::Result<Input>>> {
    let (sender, keys) = mpsc::channel(64);
    let read = move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if sender.blocking_send(event).is_err() || failed {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("keys".to_owned());
    thread.spawn(read).context("cannot start a thread")?;
    Ok(keys)
}
