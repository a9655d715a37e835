//! Traces for which there is no room.

use std::{fs, io::Write as _, process::Command};

use libtest_mimic::Failed;
use serde_json::Value;

use crate::{
    disk::Disk,
    program::{Running, check, finish, is, memtrace, text},
};

/// A program that maps and unmaps a page often, for each line that it reads.
const BUSY: &str = "import mmap, sys\n\
                    for line in sys.stdin:\n\
                    \x20   for _ in range(50_000): mmap.mmap(-1, 4096).close()\n\
                    \x20   print('done', flush=True)\n";

pub(crate) fn the_report_is_written_all_the_same() -> Result<(), Failed> {
    let (disk, folder) = (Disk::new("64K"), tempfile::tempdir()?);
    let (trace, report) = (disk.path().join("trace"), folder.path().join("report"));
    let args = ["run", "--format", "json", "-o", report.to_str().ok_or("a path")?, "--record"];
    let mut command = memtrace(args);
    command.arg(&trace).args(["--", "python3", "-c", BUSY]);
    let mut running = Running::start(command)?;
    running.stdin()?.write_all(b"\n")?;
    let output = running.finish()?;
    let stderr = text(&output.stderr);
    check(stderr.contains("cannot write all of the trace"), stderr.as_str())?;
    check(stderr.contains("No space left") && stderr.contains("hint: "), stderr)?;
    is(output.status.code(), Some(1))?;
    let report: Value = serde_json::from_slice(&fs::read(report)?)?;
    check(report["window"]["emitted"].as_u64() > Some(50_000), report["window"].to_string())?;
    // What there was room for is there.
    let replayed = finish(memtrace(["replay", trace.to_str().ok_or("a path")?]))?;
    check(text(&replayed.stdout).contains("python3 (pid "), text(&replayed.stdout))
}

pub(crate) fn a_recording_ends() -> Result<(), Failed> {
    let disk = Disk::new("64K");
    let mut command = Command::new("python3");
    command.args(["-c", BUSY]);
    let mut target = Running::start(command)?;
    let mut command = memtrace(["-v", "record", "-o"]);
    command.arg(disk.path().join("trace")).arg(target.child.id().to_string());
    let mut recording = Running::start(command)?;
    recording.stderr.wait_for("[INFO ] tracing")?;
    target.stdin()?.write_all(b"\n")?;
    target.stdout.wait_for("done")?;
    let output = recording.finish()?;
    is(output.status.code(), Some(1))?;
    check(text(&output.stderr).contains("No space left"), text(&output.stderr))?;
    target.stdin()?.write_all(b"\n")?;
    target.stdout.wait_for("done")
}
