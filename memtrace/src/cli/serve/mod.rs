//! `memtrace serve`: the daemon. One thread gathers, as for `top`; this one answers requests.

mod config;
mod export;
mod http;
mod own;
mod privileges;
mod recordings;

use std::{collections::HashMap, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};

pub(super) use self::config::{Listen, read_token};
use self::{
    config::Config,
    export::{Export, Tally},
    http::{Listener, Order, Shared, router},
    own::{Limited, Usage},
    privileges::Keep,
    recordings::{Recordings, Refused},
};
use super::{
    Common, Failure, Format, Outcome,
    gather::{Gatherer, Plan},
    priority, runtime,
};
use crate::model::{
    fleet::{Fleet, Limits, Teller},
    rules::Rules,
    top::{Counting, Snapshot},
    watchdog::{Counts, Shed, Watchdog},
};

/// Orders that wait at most.
const ORDERS: usize = 16;

/// Runs for ever and tells Prometheus, and whoever asks by HTTP, what the processes of this machine hold,
/// what of it they have freed, and what leaves them.
///
/// docs/SERVE.md has the metrics and the requests.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Reads this file; without one everything is as `--print-config` shows.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Writes the configuration that is the case without a file.
    #[arg(long, conflicts_with = "config")]
    print_config: bool,
    /// Checks the configuration, and ends.
    #[arg(long, requires = "config")]
    check_config: bool,
}

impl Serve {
    /// Serves until SIGTERM or Ctrl-C.
    pub(super) fn main(self, common: &Common) -> Outcome {
        if common.format != Format::Text || common.output.is_some() {
            return Err(Failure::usage(
                "the daemon writes no report".to_owned(),
                "ask it: curl http://127.0.0.1:9477/api/v1/processes",
            ));
        }
        if self.print_config {
            print!("{}", config::DEFAULT);
            return Ok(ExitCode::SUCCESS);
        }
        let config = self.config()?;
        let (token, headers) = (config.token()?, config.otlp.headers()?);
        if self.check_config {
            return Ok(ExitCode::SUCCESS);
        }
        // A descriptor for each process and each connection.
        if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, most.min(1 << 20), most);
        }
        priority::step_back();
        runtime()?.block_on(self.serve(config, token, headers))
    }

    fn config(&self) -> Result<Config, Failure> {
        self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)
    }

    async fn serve(
        &self,
        config: Config,
        token: Option<String>,
        headers: HashMap<String, String>,
    ) -> Outcome {
        let listener = Listener::open(&config.listen).await?;
        let lacking = privileges::lacking()?;
        lacking.iter().for_each(|lack| log::warn!("{lack}"));
        let plan = Plan {
            pids: Vec::new(),
            every: config.interval,
            counts: true,
            evidence: config.evidence,
            machine: true,
            walks: config.walks(),
            measures_probes: config.measure_probes,
        };
        let keep =
            Keep { recordings: config.recordings.is_some(), measuring: config.measure_probes };
        // Nobody points at a process.
        let Gatherer { mut snapshots, wishes: _wishes, walks, counts, ended } =
            Gatherer::start(plan, || privileges::drop(keep))?;
        let mut terminate = catch(SignalKind::terminate())?;
        let mut interrupt = catch(SignalKind::interrupt())?;
        let mut reload = catch(SignalKind::hangup())?;

        let mut recordings = Recordings::open(config.recordings()).map_err(|why| anyhow!(why))?;
        let mut rules = Rules::default();
        rules.set(config.rules.clone());
        let (orders, mut ordered) = mpsc::channel(ORDERS);

        let tally = Arc::new(Tally::default());
        let mut usage = Usage::new(tally.clone(), &lacking);
        let mut watchdog = Watchdog::new(config.budget, config.budget_over_ns());
        let mut teller = Teller::new(limits(&config));
        let nothing = usage.own(&Snapshot::default(), &limited(&config, watchdog.shed()));
        let nothing = (Arc::new(Fleet::default()), nothing);
        let (tell, told) = watch::channel(nothing);
        let (new_token, token) = watch::channel(token);
        let export = Export::start(&config.otlp, headers, limits(&config), told.clone(), tally)?;
        let shared = Shared {
            snapshots: snapshots.clone(),
            told,
            token,
            recordings: recordings.list(),
            orders,
            lacking,
        };
        log::info!("listening on {}", listener.name());
        let serving = listener.serve(router(shared.into()));
        tokio::pin!(serving);
        let mut config = config;
        loop {
            tokio::select! {
                _ = &mut serving => unreachable!("it takes connections for ever"),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Some(order) = ordered.recv() => obey(&mut recordings, order),
                () = recordings.one_ends() => {}
                _ = reload.recv() => match self.reload(&config, keep) {
                    Ok((new, token)) => {
                        teller.set_limits(limits(&new));
                        watchdog.set(new.budget, new.budget_over_ns());
                        walks.send_replace(new.walks_but(watchdog.shed()));
                        new_token.send_replace(token);
                        rules.set(new.rules.clone());
                        if let Err(why) = recordings.set(new.recordings()) {
                            log::warn!("there are no recordings any more: {why}");
                        }
                        config = new;
                        log::info!("the configuration was read again");
                    }
                    Err(failure) => log::warn!("the configuration stays as it was: {}", failure.sentence()),
                },
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        let why = ended.await.unwrap_or_else(|_| anyhow!("nothing is gathered any more"));
                        return Err(why.into());
                    }
                    let snapshot = snapshots.borrow_and_update().clone();
                    record_what_is_due(&mut rules, &mut recordings, &snapshot);
                    let cpu_ns = usage.cpu_ns(&snapshot);
                    // To attach the probes takes what it takes.
                    if snapshot.counting != Counting::Starting
                        && let Some(took) = watchdog.take(snapshot.time_ns, cpu_ns)
                    {
                        let shed = watchdog.shed();
                        log::warn!("{}", left_out(took, shed));
                        walks.send_replace(config.walks_but(shed));
                        counts.send_replace(shed.counts);
                    }
                    let fleet = Arc::new(teller.tell(&snapshot));
                    let own = usage.own(&snapshot, &limited(&config, watchdog.shed()));
                    tell.send_replace((fleet, own));
                }
            }
        }
        recordings.end().await;
        if let Some(export) = export {
            export.stop();
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Reads the configuration again, and says what of it takes a restart.
    fn reload(&self, before: &Config, keep: Keep) -> Result<(Config, Option<String>), Failure> {
        let mut config = self.config()?;
        if !keep.recordings && config.recordings.take().is_some() {
            log::warn!("recordings are made when memtrace is started again: it may not by now");
        }
        let token = config.token()?;
        for (field, changed) in [
            ("listen", config.listen != before.listen),
            ("interval", config.interval != before.interval),
            ("evidence", config.evidence != before.evidence),
            ("measure_probes", config.measure_probes != before.measure_probes),
            ("otlp", config.otlp != before.otlp),
        ] {
            if changed {
                log::warn!("{field} changes when memtrace is started again");
            }
        }
        Ok((config, token))
    }
}

/// Says what is left out by now.
fn left_out(took: u64, shed: Shed) -> String {
    let what = match (shed.walks, shed.counts) {
        (false, Counts::All) => "nothing is left out any more",
        (true, Counts::All) => "no heap is walked for a while",
        (false, Counts::NoFrames) => "heaps are walked again, frames are not counted",
        (true, Counts::NoFrames) => "frames are not counted until it is started again",
        (_, Counts::Nothing) => "nothing is counted until it is started again",
    };
    format!("memtrace took {:.2} % of a CPU: {what}", took as f64 / 10_000.0)
}

/// Does what was asked for by HTTP. Who asked may be gone by now.
fn obey(recordings: &mut Recordings, order: Order) {
    match order {
        Order::Start { id, comm, duration, answer } => {
            let _ = answer.send(recordings.start(id, &comm, duration, None));
        }
        Order::Stop { name, answer } => _ = answer.send(recordings.stop(&name)),
        Order::Remove { name, answer } => _ = answer.send(recordings.remove(&name)),
        Order::Open { name, answer } => _ = answer.send(recordings.trace(&name)),
    }
}

/// Records the processes of which a rule says so.
fn record_what_is_due(rules: &mut Rules, recordings: &mut Recordings, snapshot: &Snapshot) {
    let mut begun = Vec::new();
    for (id, rule) in rules.due(snapshot) {
        let process = snapshot.processes.iter().find(|process| process.id == id);
        let comm = process.map_or("", |process| &process.comm);
        let duration = Duration::from_nanos(rule.record_ns);
        match recordings.start(id, comm, duration, Some(rule.to_string())) {
            // It is its turn later.
            Err(Refused::TooMany) => {}
            Ok(_) | Err(Refused::Already) => begun.push(id),
            Err(why) => {
                log::warn!("process {} is not recorded, of which {rule}: {why}", id.tgid);
                begun.push(id);
            }
        }
    }
    begun.into_iter().for_each(|id| rules.done(id));
}

fn catch(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot catch signals")
}

const fn limited(config: &Config, shed: Shed) -> Limited {
    Limited { budget: config.budget, walk_budget: config.walk_budget, shed }
}

const fn limits(config: &Config) -> Limits {
    Limits { processes: config.top_processes, cgroups: config.top_cgroups }
}
