//! `memtrace record` and `replay`: a replay is the report, to the byte.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use libtest_mimic::{Failed, Trial};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::driver::{Started, memtrace, scratch, start, this, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        ("a_command", &["nothing"][..]),
        ("a_family", &["fork_trim"]),
        ("frames_that_stay", &["fork_shared"]),
        ("threads", &["threads"]),
    ]
    .into_iter()
    .map(|(name, workload)| {
        trial(&format!("record::a_replay_of_{name}_is_its_report"), move || ran(workload))
    })
    .collect();
    trials.extend([
        trial("record::a_replay_of_running_processes_is_their_report", attached),
        trial("record::a_replayed_timeline_is_the_one_of_the_run", timeline),
        trial("record::a_replayed_page_shows_the_same_pages", paged),
        trial("record::a_kill_costs_a_second_at_most", killed),
    ]);
    trials
}

/// A trace and the report that was made beside it.
struct Recorded {
    trace: PathBuf,
    report: PathBuf,
}

impl Recorded {
    /// Runs memtrace with both.
    fn new(arguments: &[&str], behind: &[&str]) -> Result<Self, Failed> {
        Self::as_format("json", arguments, behind)
    }

    fn as_format(format: &str, arguments: &[&str], behind: &[&str]) -> Result<Self, Failed> {
        let (trace, report) = (scratch("trace"), scratch("report.json"));
        let output = Command::new(memtrace())
            .args(arguments)
            .arg("--record")
            .arg(&trace)
            .args(["--format", format, "-o"])
            .arg(&report)
            .args(behind)
            .stdin(Stdio::null())
            .output()?;
        let recorded = Self { trace, report };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{arguments:?}: {}: {said}", output.status).into());
        }
        Ok(recorded)
    }

    /// Fails unless the replay is the report.
    fn check(&self) -> Result<(), Failed> {
        let (report, said) = replay(&self.trace, &[])?;
        let wanted = fs::read_to_string(&self.report)?;
        if !said.is_empty() {
            return Err(format!("the replay says {said}").into());
        }
        if report != wanted {
            let differs = wanted.lines().zip(report.lines()).find(|(one, other)| one != other);
            return Err(format!("the replay differs: {differs:?}").into());
        }
        Ok(())
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.trace);
        let _ = fs::remove_file(&self.report);
    }
}

/// Returns the report of a trace, and what is said beside it.
fn replay(trace: &Path, part: &[&str]) -> Result<(String, String), Failed> {
    let mut command = Command::new(memtrace());
    let output = command.arg("replay").arg(trace).args(["--format", "json"]).args(part).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("replay: {}: {said}", output.status).into());
    }
    Ok((String::from_utf8(output.stdout)?, said))
}

fn ran(workload: &[&str]) -> Result<(), Failed> {
    let this = this();
    let this = this.to_str().ok_or("a path that is no text")?;
    let command = [&["--", this, "--workload"], workload].concat();
    Recorded::new(&["run", "--follow"], &command)?.check()
}

/// What a process that ran before has, and what its allocator holds, is in the trace too.
fn attached() -> Result<(), Failed> {
    let heap = Started::new(&["heap", "scattered"])?;
    let mut busy = Started::new(&["churn", "1"])?;
    let pids = [heap.pid().to_string(), busy.pid().to_string()];
    let recorded = Recorded::new(&["attach", "--duration", "300ms"], &[&pids[0], &pids[1]])?;
    recorded.check()?;
    let report: Value = serde_json::from_str(&fs::read_to_string(&recorded.report)?)?;
    let [heap, busy_one] = [0, 1].map(|at| &report["processes"][at]);
    if heap["allocators"][0]["name"] != "glibc" || busy_one["mapped"]["calls"] == 0 {
        return Err(format!("nothing was recorded: {heap} {busy_one}").into());
    }
    busy.go()?;
    busy.expect("stopped")?;
    busy.hang_up();
    Ok(())
}

/// A trace for Perfetto, drawn as things happen.
fn timeline() -> Result<(), Failed> {
    let this = this();
    let this = this.to_str().ok_or("a path that is no text")?;
    let command = ["--", this, "--workload", "threads"];
    let recorded = Recorded::as_format("perfetto", &["run", "--follow"], &command)?;
    let again = scratch("perfetto");
    let mut replay = Command::new(memtrace());
    replay.arg("replay").arg(&recorded.trace).args(["--format", "perfetto", "-o"]).arg(&again);
    let output = replay.output()?;
    let (drawn, wanted) = (fs::read(&again)?, fs::read(&recorded.report)?);
    fs::remove_file(&again)?;
    if !output.status.success() || drawn != wanted || wanted.len() < 500 {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} and {} bytes: {said}", wanted.len(), drawn.len()).into());
    }
    Ok(())
}

/// Where pages are is in the trace too.
fn paged() -> Result<(), Failed> {
    let located = Started::new(&["located"])?;
    let pid = located.pid().to_string();
    let recorded = Recorded::as_format("html", &["attach", "--duration", "300ms"], &[&pid])?;
    let mut replay = Command::new(memtrace());
    let output = replay.arg("replay").arg(&recorded.trace).args(["--format", "html"]).output()?;
    let wanted = fs::read(&recorded.report)?;
    let cells = String::from_utf8_lossy(&wanted).matches("\"resident\":[").count();
    if output.stdout != wanted || cells < 10 {
        let said = String::from_utf8_lossy(&output.stderr);
        let bytes = output.stdout.len();
        return Err(format!("{cells} cells, {} and {bytes} bytes: {said}", wanted.len()).into());
    }
    Ok(())
}

fn killed() -> Result<(), Failed> {
    let mut busy = Started::new(&["churn", "1"])?;
    let trace = scratch("killed.trace");
    let mut command = Command::new(memtrace());
    command.args(["record", "-v", "-o"]).arg(&trace).arg(busy.pid().to_string());
    let mut record = match start(&mut command, "tracing")? {
        Ok(child) => child,
        Err((_, said)) => return Err(format!("record failed: {said:?}").into()),
    };
    // Until it was written to for three seconds, so that the end is not the beginning.
    let begun = Instant::now();
    let mut grown = 0;
    while begun.elapsed() < Duration::from_secs(3) || fs::metadata(&trace)?.len() == grown {
        if begun.elapsed() > Duration::from_secs(30) {
            return Err("nothing is written".into());
        }
        grown = fs::metadata(&trace)?.len();
        std::thread::sleep(Duration::from_millis(20));
    }
    record.kill()?;
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let now_ns = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    record.wait()?;
    busy.go()?;
    busy.expect("stopped")?;
    busy.hang_up();

    let (report, said) = replay(&trace, &[])?;
    let parts = [&["--to", "1s"][..], &["--from", "1s", "--to", "2s"], &["--from", "2s"]];
    let parts = parts.map(|part| replay(&trace, part));
    fs::remove_file(&trace)?;
    let calls = |report: &Value| {
        report["processes"][0]["reclaimed"]["by_path"]["munmap"]["calls"].as_u64().unwrap_or(0)
    };
    let mut sum = 0;
    for part in parts {
        let part = calls(&serde_json::from_str(&part?.0)?);
        if part == 0 {
            return Err("a part of the trace has no calls".into());
        }
        sum += part;
    }
    let report: Value = serde_json::from_str(&report)?;
    let window = &report["window"];
    let end_ns = window["end_ns"].as_u64().ok_or("no end")?;
    let lost_ms = now_ns.saturating_sub(end_ns) / 1_000_000;
    // A virtual machine is slow.
    if lost_ms > 2_000 || window["complete"] != false || !said.contains("is cut") {
        return Err(format!("{lost_ms} ms are lost: {window} {said}").into());
    }
    let process = &report["processes"][0];
    if sum != calls(&report) {
        return Err(format!("{sum} calls in all parts, {} in the whole", calls(&report)).into());
    }
    if process["state"] != "unknown" || process["reclaimed"]["by_path"]["munmap"]["calls"] == 0 {
        return Err(format!("what was gathered is not kept: {process}").into());
    }
    Ok(())
}
