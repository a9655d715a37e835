//! `memtrace serve`: its threads count with no right to attach a probe, on every kernel.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::{
    driver::{PAGE, interrupt, memtrace, scratch, start, this, trial},
    paths::N,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("daemon::counts_are_read_without_the_right_to_attach_probes", counts)]
}

/// How long anything may take, also where every instruction is emulated.
const PATIENCE: Duration = Duration::from_secs(120);

/// `CAP_SYS_ADMIN`, `CAP_PERFMON` and `CAP_BPF` (include/uapi/linux/capability.h).
const RIGHTS: u64 = 1 << 21 | 1 << 38 | 1 << 39;

fn counts() -> Result<(), Failed> {
    let (config, socket) = (scratch("serve.toml"), scratch("socket"));
    let text = format!(
        "listen = \"unix:{}\"\ninterval = \"200ms\"\nwalk_budget = \"0%\"\n",
        socket.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new(memtrace());
    command.args(["-v", "serve", "--config"]).arg(&config);
    let mut daemon = match start(&mut command, "listening on")? {
        Ok(daemon) => daemon,
        Err((status, said)) => return Err(format!("{status}: {said:?}").into()),
    };
    let checked = check(&daemon, &socket);
    let ended = interrupt(&mut daemon)?;
    fs::remove_file(&config)?;
    checked?;
    if ended.success() { Ok(()) } else { Err(format!("it ended with {ended}").into()) }
}

fn check(daemon: &Child, socket: &Path) -> Result<(), Failed> {
    let state = until("it counts, or cannot", || {
        let state = ask(socket, "/api/v1/processes").ok()?["counting"].clone();
        (state["state"] != "starting").then_some(state)
    })?;
    if state["state"] == "off" {
        let why = state["why"].as_str().unwrap_or_default();
        let is_known = why.contains("counts no pages by process");
        return if is_known { Ok(()) } else { Err(format!("it does not count: {why}").into()) };
    }
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id()))?;
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let effective = field("CapEff:").and_then(|bits| u64::from_str_radix(bits, 16).ok());
    if effective.is_none_or(|bits| bits & RIGHTS != 0) || field("Seccomp:") != Some("2") {
        return Err(format!("it may do too much: {status}").into());
    }
    let before = unmapped(socket)?;
    let ran = Command::new(this()).args(["--workload", "munmap"]).status()?;
    if !ran.success() {
        return Err(format!("the workload: {ran}").into());
    }
    until("what the workload unmapped is counted", || {
        let now = unmapped(socket).ok()?;
        (now >= before + N * PAGE).then_some(())
    })
}

/// Returns what was unmapped on this machine, in bytes.
fn unmapped(socket: &Path) -> Result<u64, Failed> {
    let page = get(socket, "/metrics")?;
    let name = "memtrace_machine_detached_bytes_total{path=\"munmap\"} ";
    let value = page.lines().find_map(|line| line.strip_prefix(name));
    Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
}

fn ask(socket: &Path, path: &str) -> Result<Value, Failed> {
    Ok(serde_json::from_str(&get(socket, path)?)?)
}

fn get(socket: &Path, path: &str) -> Result<String, Failed> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").ok_or("no answer")?.1.to_owned())
}

fn until<T>(what: &str, is: impl Fn() -> Option<T>) -> Result<T, Failed> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(found) = is() {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(format!("{what}: not in {PATIENCE:?}").into())
}
