//! `memtrace report` on programs that know what their allocator holds.

mod core;
mod others;
mod servers;
pub(crate) mod workload;

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

use self::workload::{CHUNKS, LAZY_PAGES};
use super::driver::{PAGE, Started, kernel, memtrace, scratch, size, trial, trial_or_ignored};

pub(crate) fn trials() -> Vec<Trial> {
    // What each is expected to have among its findings, and not to have.
    let heaps: [(&str, &[&str], &[&str]); 6] = [
        (
            "pinned",
            &["pinned_top"],
            &["idle_arenas", "threshold_drift", "partly_used_pages", "live"],
        ),
        ("scattered", &["partly_used_pages"], &["pinned_top", "idle_arenas", "live"]),
        ("arenas", &["idle_arenas"], &["pinned_top", "live"]),
        ("drifted", &["threshold_drift"], &["partly_used_pages", "live"]),
        ("blocks", &["live"], &["pinned_top", "threshold_drift"]),
        ("cached", &["thread_caches"], &["partly_used_pages", "live"]),
    ];
    let mut trials: Vec<Trial> = heaps
        .into_iter()
        .map(|(name, found, not_found)| {
            trial(&format!("heap::{name}_is_what_malloc_says"), move || {
                same(name, found, not_found)
            })
        })
        .collect();
    trials.extend(["scattered", "arenas", "cached"].map(|name| {
        trial(&format!("heap::{name}_is_in_a_core_file_what_it_is_live"), move || core::same(name))
    }));
    trials.extend([
        trial("heap::a_trim_in_a_forked_child_frees_nothing", forked),
        trial_or_ignored("heap::parts_of_huge_pages_come_back_late", huge),
        trial("heap::lazily_free_memory_is_not_live", lazily_free),
        trial("heap::a_process_that_stands_still_goes_on", goes_on),
        trial("heap::a_heap_that_changes_is_nearly_right", changing),
        trial("heap::walks_join_the_stream", streamed),
        trial("heap::a_process_goes_on_when_memtrace_is_killed_over_it", killed),
    ]);
    trials.extend(others::trials());
    trials.extend(servers::trials());
    trials
}

/// A workload whose heap stands as it was asked for.
struct Heap(Started);

/// What it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Says {
    /// `fordblks` of `mallinfo2`: free, but for thread caches.
    free: u64,
    /// `arena` and `hblkhd`.
    system: u64,
    /// `Anonymous` of `smaps_rollup`.
    anon: u64,
}

impl Heap {
    fn new(name: &str) -> Result<Self, Failed> {
        Ok(Self(Started::new(&["heap", name])?))
    }

    fn says(&mut self, command: &str) -> Result<Says, Failed> {
        self.0.tell(command)?;
        let line = self.0.line()?;
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let &[free, system, anon] = numbers.as_slice() else {
            return Err(format!("{line:?} should be three numbers").into());
        };
        Ok(Says { free, system, anon })
    }

    /// Returns what memtrace says of it.
    fn report(&self, options: &[&str]) -> Result<Value, Failed> {
        report(self.0.pid(), options)
    }
}

/// Returns what memtrace says of a process.
fn report(pid: u32, options: &[&str]) -> Result<Value, Failed> {
    let mut command = Command::new(memtrace());
    command.args(["report", "--format", "json"]).args(options).arg(pid.to_string());
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let mut report: Value = serde_json::from_slice(&output.stdout)?;
    Ok(report["processes"][0].take())
}

/// Returns what glibc holds in all arenas, without what thread caches do.
fn free(glibc: &Value) -> u64 {
    ["fastbins", "bins", "top"].iter().map(|class| number(&glibc["free"][class])).sum()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(u64::MAX)
}

fn glibc(process: &Value) -> Result<&Value, Failed> {
    match process["allocators"].as_array().map(Vec::as_slice) {
        Some([only]) if only["name"] == "glibc" => Ok(only),
        _ => Err(format!("glibc alone should be there: {}", process["allocators"]).into()),
    }
}

/// To the byte what `mallinfo2` says, and to the KiB what `malloc_trim` gives.
fn same(name: &str, found: &[&str], not_found: &[&str]) -> Result<(), Failed> {
    let mut heap = Heap::new(name)?;
    let before = heap.says("figures")?;
    let process = heap.report(&["--exact"])?;
    let live = heap.report(&[])?;
    let after = heap.says("trim")?;

    for process in [&process, &live] {
        let glibc = glibc(process)?;
        let walked = (free(glibc), number(&glibc["system"]), number(&glibc["unknown"]));
        if walked != (before.free, before.system, 0) {
            return Err(format!("{walked:?} should be {before:?}: {glibc}").into());
        }
    }
    let trimmable = number(&glibc(&process)?["trimmable"]);
    if trimmable != before.anon - after.anon {
        let gave = before.anon - after.anon;
        return Err(format!("a trim gave {gave}, not {trimmable}: {process}").into());
    }
    check_classes(&process)?;
    let ids: Vec<&str> = process["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|f| f["id"].as_str())
        .collect();
    if found.iter().any(|id| !ids.contains(id)) || not_found.iter().any(|id| ids.contains(id)) {
        let findings = &process["findings"];
        return Err(format!("{found:?} should be there, {not_found:?} not: {findings}").into());
    }
    Ok(())
}

/// Live and free add up to what is resident, in all and in each region.
fn check_classes(process: &Value) -> Result<(), Failed> {
    let memory = &process["memory"];
    let freed = &memory["freed_not_reclaimed"];
    let parts = number(&memory["live"]) + number(&freed["allocator"]) + number(&freed["lazy_free"]);
    if parts != number(&memory["resident"]) {
        return Err(format!("the classes do not add up: {memory}").into());
    }
    let regions = process["regions"].as_array().ok_or("no regions")?;
    let free: u64 = regions.iter().map(|region| number(&region["free_resident"])).sum();
    if free != number(&freed["allocator"]) {
        return Err(format!("{free} is free in the regions, not as in {memory}").into());
    }
    Ok(())
}

fn forked() -> Result<(), Failed> {
    let mut heap = Heap::new("forked")?;
    let parent = heap.says("figures")?;
    let process = heap.report(&["--exact"])?;
    let glibc = glibc(&process)?;
    let (trimmable, shared) = (number(&glibc["trimmable"]), number(&glibc["remains"]["shared"]));
    // A page or two are written after the fork.
    let least = CHUNKS as u64 * 1000 * 9 / 10;
    if free(glibc) != parent.free || trimmable > 16 * PAGE || shared < least {
        return Err(format!("nearly all of {parent:?} is shared: {glibc}").into());
    }
    let after = heap.says("trim")?;
    if parent.anon - after.anon != trimmable + shared {
        return Err(format!("the trim took {} from it", parent.anon - after.anon).into());
    }
    Ok(())
}

/// A trim takes half of each huge page: nobody gets those frames at once.
fn huge() -> Result<Completion, Failed> {
    let mut heap = Heap::new("huge")?;
    let smaps = fs::read_to_string(format!("/proc/{}/smaps_rollup", heap.0.pid()))?;
    let huge_pages = size(&smaps, "AnonHugePages:").unwrap_or(0);
    if huge_pages < 32 << 20 {
        return Ok(Completion::ignored_with("optional: no huge pages are to be had"));
    }
    if kernel()? < (6, 7) {
        return Ok(Completion::ignored_with("optional: no PAGEMAP_SCAN before 6.7"));
    }
    let before = heap.says("figures")?;
    let process = heap.report(&["--exact"])?;
    let after = heap.says("trim")?;
    let glibc = glibc(&process)?;
    let (trimmable, late) = (number(&glibc["trimmable"]), number(&glibc["trimmable_late"]));
    if trimmable != before.anon - after.anon || late > trimmable || late < huge_pages / 4 {
        let gave = before.anon - after.anon;
        return Err(format!("{gave} were trimmed, of {huge_pages} in huge pages: {glibc}").into());
    }
    Ok(Completion::Completed)
}

fn lazily_free() -> Result<(), Failed> {
    let heap = Heap::new("lazy")?;
    let process = heap.report(&[])?;
    let lazy = number(&process["memory"]["freed_not_reclaimed"]["lazy_free"]);
    // Pages wait in lists of the CPUs before they are marked (mm/swap.c, `lru_lazyfree`).
    let late = (LAZY_PAGES * PAGE).abs_diff(lazy);
    if late > 64 * PAGE {
        return Err(format!("{lazy} is lazily free: {}", process["memory"]).into());
    }
    check_classes(&process)
}

/// Stopped a hundred times, it answers all the same.
fn goes_on() -> Result<(), Failed> {
    let mut heap = Heap::new("pinned")?;
    let first = heap.says("figures")?;
    for _ in 0..100 {
        heap.report(&["--exact"])?;
    }
    let last = heap.says("figures")?;
    if first != last {
        return Err(format!("{last:?} was {first:?}").into());
    }
    Ok(())
}

/// Two threads take and give as fast as they can: on average within 1 %, and never off by 5 %.
fn changing() -> Result<(), Failed> {
    const LOOKS: u64 = 20;
    let heap = Heap::new("changing")?;
    let mut sum = 0.0;
    for _ in 0..LOOKS {
        let process = heap.report(&[])?;
        let glibc = glibc(&process)?;
        // The workload keeps so many bytes in use, give or take what is in flight.
        let in_use = number(&glibc["in_use"]) as f64 + number(&glibc["unknown"]) as f64;
        let wanted = workload::IN_USE as f64;
        let off = (in_use - wanted) / wanted;
        if off.abs() > 0.05 {
            return Err(format!("{in_use} in use, not {wanted}: {glibc}").into());
        }
        sum += off.abs();
    }
    if sum / LOOKS as f64 > 0.01 {
        return Err(format!("off by {:.2} % on average", 100.0 * sum / LOOKS as f64).into());
    }
    Ok(())
}

/// Each walk of a traced process is a line of the stream, with the figures of a report.
fn streamed() -> Result<(), Failed> {
    let heap = Heap::new("pinned")?;
    let wanted = heap.report(&[])?;
    let place = scratch("walked.json");
    let output = Command::new(memtrace())
        .args([
            "attach",
            "--events",
            "--walk",
            "50ms",
            "--duration",
            "1s",
            "--format",
            "json",
            "-o",
        ])
        .arg(&place)
        .arg(heap.0.pid().to_string())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let attached: Value = serde_json::from_str(&fs::read_to_string(&place)?)?;
    fs::remove_file(&place)?;
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let memory: Vec<Value> = lines.filter(|line| line["event"] == "memory").collect();
    if memory.len() < 2 {
        return Err(format!("only {} walks in a second: {said}", memory.len()).into());
    }
    let free = &wanted["memory"]["freed_not_reclaimed"]["allocator"];
    let regions = |line: &Value| -> u64 {
        let regions = line["regions"].as_array().into_iter().flatten();
        regions.map(|region| number(&region["free_resident"])).sum()
    };
    for line in &memory {
        if line["free_resident"] != *free || regions(line) != number(free) {
            return Err(format!("{free} is free, not as in {line}").into());
        }
    }
    let cold = &attached["processes"][0]["memory"]["cold"];
    if !cold.is_null() {
        return Err(format!("nobody asked what is cold, and {cold} is").into());
    }
    let of_attach = &attached["processes"][0]["memory"]["freed_not_reclaimed"]["allocator"];
    if of_attach != free {
        return Err(format!("attach says {of_attach}, report {free}").into());
    }
    Ok(())
}

/// Killed again and again while it has a process stopped: the kernel lets that go on.
fn killed() -> Result<(), Failed> {
    let mut heap = Heap::new("scattered")?;
    let before = heap.says("figures")?;
    let mut was_stopped = false;
    for delay in 0..40 {
        let mut child = Command::new(memtrace())
            .args(["report", "--exact", "--format", "json"])
            .arg(heap.0.pid().to_string())
            .stdout(Stdio::null())
            .spawn()?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(delay) {
            was_stopped |= state(heap.0.pid())? == Some('t');
        }
        child.kill()?;
        child.wait()?;
        // Whatever it was doing, it answers.
        let now = heap.says("figures")?;
        if now != before || state(heap.0.pid())? == Some('t') {
            return Err(format!("{now:?} was {before:?}").into());
        }
    }
    if !was_stopped {
        return Err("it was never seen standing still".into());
    }
    Ok(())
}

/// Returns the state of a process, as in `/proc/PID/stat`.
fn state(pid: u32) -> Result<Option<char>, Failed> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(stat.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next()))
}
