//! Random operations against the kernel's own map: a victim does them, memtrace follows, and after
//! each batch every address space of the victim's family is held against `/proc/PID/maps`.

mod op;
mod shrink;
pub(crate) mod victim;

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use libtest_mimic::{Failed, Trial};
use memtrace::{
    follow::Follower,
    model::report::Evidence,
    probe::attach::Options,
    source::procfs,
    verify::{self, Difference, Pages},
};
use memtrace_common::Event;

use self::op::{Op, Random};
use super::driver::{note, this, trial};

/// Operations between two looks.
const BATCH: usize = 100;
/// Every so many looks, resident pages are compared as well.
const RESIDENCY_EVERY: u64 = 10;
/// What differs must still do so after this time: a process may just be exiting by itself.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The operations of a seed that is a test.
const TEST_OPS: usize = 20_000;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials =
        vec![trial("table::random_operations_end_in_the_kernels_map", || fuzz_one(1, TEST_OPS))];
    trials.extend(KEPT.iter().map(|&(name, text)| {
        trial(&format!("fuzz::kept::{name}"), move || {
            Ok(run(&parse(text)?).map(drop).map_err(|found| format!("{found:#}"))?)
        })
    }));
    trials
}

macro_rules! kept {
    ($($name:literal),+ $(,)?) => {
        /// Sequences that failed once, cut down.
        const KEPT: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../data/fuzz/", $name, ".ops")))),+];
    };
}
kept!("protect_grows_down", "shmdt_of_a_grown_segment", "stored_before_its_file");

fn fuzz_one(seed: u64, count: usize) -> Result<(), Failed> {
    let totals = run(&ops_of(seed, count)).map_err(|found| format!("seed {seed}: {found:#}"))?;
    note(format!("@@FUZZ {totals}"));
    Ok(())
}

fn ops_of(seed: u64, count: usize) -> Vec<Op> {
    let mut random = Random::new(seed);
    (0..count).map(|_| Op::random(&mut random)).collect()
}

fn parse(text: &str) -> Result<Vec<Op>, String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::parse).collect()
}

/// `kernel --fuzz FIRST-SEED SEEDS OPERATIONS`: stops at the first seed that fails, cuts it down
/// and writes it to a file. `kernel --fuzz FILE` runs such a file.
pub(crate) fn main(args: &[String]) -> Result<()> {
    let [first, seeds, count] = args else {
        let [file] = args else { bail!("--fuzz FIRST-SEED SEEDS OPERATIONS | --fuzz FILE") };
        let ops = parse(&fs::read_to_string(file)?).map_err(anyhow::Error::msg)?;
        // Whatever fails, one look an operation says after which.
        run_in_batches(&ops, 1)?;
        return run(&ops).map(|totals| println!("{totals}"));
    };
    let first: u64 = first.parse().context("a seed")?;
    let (seeds, count): (u64, usize) = (seeds.parse()?, count.parse()?);
    let start = Instant::now();
    let mut totals = Totals::default();
    for seed in first..first + seeds {
        let ops = ops_of(seed, count);
        match run(&ops) {
            Ok(more) => totals.add(more),
            Err(found) => {
                println!("seed {seed}: {found:#}");
                let ops = shrink::shrink(ops, |ops| run(ops).is_err());
                let lines: Vec<String> = ops.iter().map(Op::to_string).collect();
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{seed}.ops"));
                fs::write(&path, lines.join("\n") + "\n")?;
                println!("cut down to {} operations: {}", ops.len(), path.display());
                if let Err(found) = run(&ops) {
                    println!("which gives: {found:#}");
                }
                bail!("seed {seed} failed after {totals}");
            }
        }
        if (seed + 1 - first).is_multiple_of(10) {
            println!("{} seeds: {totals}, {:.0?}", seed + 1 - first, start.elapsed());
        }
    }
    println!("{seeds} seeds: {totals}, {:.0?}", start.elapsed());
    Ok(())
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    operations: usize,
    looks: u64,
    spaces: u64,
    /// Address spaces whose resident pages were compared.
    pages: u64,
    /// Maps that memtrace knew it had to read again.
    resyncs: u64,
    /// Looks at which such a map was indeed wrong.
    healed: u64,
    events: u64,
}

impl Totals {
    fn add(&mut self, more: Self) {
        self.operations += more.operations;
        self.looks += more.looks;
        self.spaces += more.spaces;
        self.pages += more.pages;
        self.resyncs += more.resyncs;
        self.healed += more.healed;
        self.events += more.events;
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { operations, looks, spaces, pages, resyncs, healed, events } = self;
        write!(
            f,
            "{operations} operations, {looks} looks at {spaces} maps and the pages of {pages}, {events} events, {resyncs} \
             resyncs ({healed} needed), 0 differences"
        )
    }
}

/// Has a victim do `ops`. Errors: the first differences, or what went wrong.
fn run(ops: &[Op]) -> Result<Totals> {
    run_in_batches(ops, BATCH)
}

/// As [`run`], with a look after so many operations.
fn run_in_batches(ops: &[Op], size: usize) -> Result<Totals> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let mut session = Session::start()?;
    for (number, batch) in ops.chunks(size).enumerate() {
        session.batch(batch).with_context(|| {
            format!("operations {} to {}", number * size, number * size + batch.len())
        })?;
    }
    session.totals.operations = ops.len();
    session.totals.resyncs = session.follower.model().resyncs();
    session.totals.events = session.follower.counters()?.0.emitted;
    Ok(session.totals)
}

struct Session {
    follower: Follower,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    totals: Totals,
    /// The events that came last, to show those about what differs.
    history: VecDeque<Event>,
}

/// Events that are remembered.
const HISTORY: usize = 50_000;

impl Session {
    fn start() -> Result<Self> {
        let mut child = Command::new(this())
            .args(["--workload", "fuzz_victim"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("piped")?);
        let mut follower = Follower::attach(Options {
            follow: true,
            running: true,
            buffer_bytes: 16 << 20,
            ..Options::default()
        })?;
        let stdout = BufReader::new(stdout);
        follower.seed(child.id())?;
        let (totals, history) = (Totals::default(), VecDeque::new());
        let mut session = Self { follower, child, stdin, stdout, totals, history };
        session.batch(&[])?;
        Ok(session)
    }

    fn batch(&mut self, ops: &[Op]) -> Result<()> {
        let mut lines = String::new();
        for op in ops {
            writeln!(lines, "{op}")?;
        }
        lines.push_str("sync\n");
        self.stdin.as_mut().context("open")?.write_all(lines.as_bytes())?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line != "done\n" {
            bail!("the victim says {line:?}: {:?}", self.child.try_wait());
        }
        self.totals.looks += 1;
        let start = Instant::now();
        loop {
            let differences = self.look()?;
            if differences.is_empty() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("{differences}{}", self.history());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Holds every address space of the family against the kernel. Returns what differs.
    fn look(&mut self) -> Result<String> {
        let history = &mut self.history;
        self.follower.drain(|model, event| {
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(*event);
            drop(model.apply(event));
        });
        if self.evidence() == Evidence::Args {
            // Nothing is followed: what it is held against is what it reads.
            self.follower.settle()?;
        } else if !self.follower.model().stale().is_empty() {
            let differences = self.differences()?;
            self.totals.healed += u64::from(!differences.is_empty());
            if !differences.is_empty() && std::env::var_os("MEMTRACE_FUZZ_HEALED").is_some() {
                println!("healed:\n{differences}");
            }
        }
        self.follower.heal()?;
        let mut differences = self.differences()?;
        let is_due = self.totals.looks.is_multiple_of(RESIDENCY_EVERY);
        if is_due && differences.is_empty() && self.evidence() >= Evidence::Rss {
            self.pages(&mut differences)?;
        }
        Ok(differences)
    }

    fn evidence(&self) -> Evidence {
        self.follower.probes().evidence()
    }

    /// Shows the events about the first region that differs.
    fn history(&self) -> String {
        let model = self.follower.model();
        let mut text = String::new();
        for process in model.living() {
            let Some(space) = process.space() else { continue };
            let Ok(mappings) = procfs::maps(process.tgid) else { continue };
            let differences = verify::regions(model, space, &mappings);
            let Some(Difference::OnlyModel(line) | Difference::OnlyKernel(line)) =
                differences.first()
            else {
                continue;
            };
            let about = |start: u64, end: u64| start < line.end && line.start < end;
            for event in self
                .history
                .iter()
                .filter(|event| event.header().mm == model.mm(space).unwrap_or(0))
            {
                let shown = match event {
                    Event::MapRegion(region) | Event::UnmapRegion(region) => {
                        about(region.start, region.end).then(|| format!("{region:x?}"))
                    }
                    Event::Call(call) => {
                        let [first, second, ..] = call.args;
                        let old = about(first, first.saturating_add(second));
                        let new = about(call.ret as u64, (call.ret as u64).saturating_add(1));
                        (old || new).then(|| format!("{call:x?}"))
                    }
                    _ => None,
                };
                if let Some(shown) = shown {
                    let _ = writeln!(text, "  {shown}");
                }
            }
            break;
        }
        text
    }

    /// Holds the books of every address space against its page tables.
    fn pages(&mut self, text: &mut String) -> Result<()> {
        self.follower.settle()?;
        self.follower.read_books()?;
        let model = self.follower.model();
        for process in model.living() {
            let Some(space) = process.space() else { continue };
            let ranges = verify::counted(model, space);
            let Ok(pages) = procfs::pagemap::resident(process.tgid, ranges) else { continue };
            let (ours, theirs) = (Pages::of_ledger(&model.space(space).ledger), Pages::from(pages));
            if ours != theirs {
                writeln!(text, "process {}: books {ours:?}, tables {theirs:?}", process.tgid)?;
            }
            self.totals.pages += 1;
        }
        Ok(())
    }

    fn differences(&mut self) -> Result<String> {
        let model = self.follower.model();
        let mut text = String::new();
        let mut known = BTreeSet::new();
        for process in model.living() {
            let tgid = process.tgid;
            known.insert(tgid);
            let mappings = match procfs::maps(tgid) {
                Err(error) if procfs::is_gone(&error) => Vec::new(),
                read => read?,
            };
            let Some(space) = process.space() else {
                writeln!(text, "process {tgid} has no address space")?;
                continue;
            };
            self.totals.spaces += 1;
            describe(&mut text, tgid, &verify::regions(model, space, &mappings))?;
        }
        let family = family(self.child.id());
        if family != known {
            writeln!(text, "living: memtrace knows {known:?}, the kernel {family:?}")?;
        }
        Ok(text)
    }
}

fn describe(text: &mut String, tgid: u32, differences: &[Difference]) -> std::fmt::Result {
    for difference in differences.iter().take(12) {
        writeln!(text, "process {tgid}: {difference}")?;
    }
    if differences.len() > 12 {
        writeln!(text, "process {tgid}: and {} more", differences.len() - 12)?;
    }
    Ok(())
}

/// Returns a process and all its descendants that have not exited.
fn family(tgid: u32) -> BTreeSet<u32> {
    let mut family = BTreeSet::new();
    if procfs::living_thread(tgid).is_none() {
        return family;
    }
    family.insert(tgid);
    let threads = fs::read_dir(format!("/proc/{tgid}/task")).into_iter().flatten().flatten();
    for thread in threads {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
            family.append(&mut self::family(child));
        }
    }
    family
}

impl Drop for Session {
    fn drop(&mut self) {
        // The victim ends at the end of its input, its children when it does.
        self.stdin.take();
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
