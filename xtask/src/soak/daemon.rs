//! `memtrace serve`, and what it takes by the kernel's account.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

/// What is waited for comes in this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon of its own; ends with this.
pub(super) struct Daemon {
    child: Child,
    folder: TempDir,
}

/// What it took, and has.
pub(super) struct Reading {
    pub(super) at: Instant,
    /// CPU time, seconds.
    pub(super) cpu: f64,
    /// Resident, bytes.
    pub(super) resident: u64,
    /// Open descriptors.
    pub(super) files: usize,
    /// Lines of `/metrics`.
    pub(super) metrics: usize,
    /// Processes that it could not count.
    pub(super) untracked: f64,
}

impl Reading {
    /// Returns the part of a core that it took since, per cent.
    pub(super) fn percent_since(&self, before: &Self) -> f64 {
        100.0 * (self.cpu - before.cpu) / self.at.duration_since(before.at).as_secs_f64()
    }
}

impl Daemon {
    /// Starts it with a socket of its own and without walks, which have a budget, and waits until it counts.
    pub(super) fn start(memtrace: &Path, interval: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let (socket, config) = (folder.path().join("socket"), folder.path().join("memtrace.toml"));
        let text = format!(
            "listen = \"unix:{}\"\ninterval = \"{interval}\"\nwalk_budget = \"0%\"\nbudget = \"100%\"\n",
            socket.display()
        );
        fs::write(&config, text).context("cannot write a configuration")?;
        let child = Command::new(memtrace)
            .args(["serve", "--config"])
            .arg(&config)
            .spawn()
            .with_context(|| format!("cannot start {}", memtrace.display()))?;
        let daemon = Self { child, folder };
        daemon.wait("it is not ready", |daemon| {
            Ok(daemon.get("/readyz").is_ok_and(|text| text.contains("200 OK")))
        })?;
        Ok(daemon)
    }

    /// Waits until it tells of so many processes.
    pub(super) fn wait_for(&self, processes: u32) -> Result<()> {
        self.wait("it does not find them", |daemon| {
            let metrics = daemon.get("/metrics")?;
            Ok(metric(&metrics, "memtrace_machine_processes")? > processes.into())
        })
    }

    fn wait(&self, why: &str, is: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !is(self)? {
            if Instant::now() > until {
                bail!("{why} within {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Reads what it took.
    pub(super) fn read(&self) -> Result<Reading> {
        let metrics = self.get("/metrics")?;
        let proc = |file: &str| format!("/proc/{}/{file}", self.child.id());
        let stat = fs::read_to_string(proc("stat")).context("the daemon ended")?;
        let status = fs::read_to_string(proc("status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident =
            resident.and_then(|line| line.split_whitespace().next()).context("no RSS")?;
        Ok(Reading {
            at: Instant::now(),
            cpu: cpu_of(&stat)?,
            resident: resident.parse::<u64>()? << 10,
            files: fs::read_dir(proc("fd"))?.count(),
            metrics: metrics.lines().count(),
            untracked: metric(&metrics, "memtrace_untracked_spaces_total")?,
        })
    }

    /// Returns what it answers, head and body.
    fn get(&self, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.folder.path().join("socket"))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a figure of the page of metrics.
fn metric(page: &str, name: &str) -> Result<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("there is no {name}"))?.trim().parse()?)
}

/// Returns user and system time of `/proc/PID/stat`, seconds (proc_pid_stat(5), fields 14 and 15).
fn cpu_of(stat: &str) -> Result<f64> {
    // SAFETY: asks for a number.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ensure!(ticks_per_second > 0, "how long is a tick?");
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let ticks: Vec<&str> = fields.split(' ').skip(11).take(2).collect();
    let mut sum = 0.0;
    for field in ticks {
        sum += field.parse::<f64>()?;
    }
    Ok(sum / ticks_per_second as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_of_user_and_system() -> Result<()> {
        let stat = "7 (a b) c) S 1 7 7 0 -1 0 1 2 3 4 150 50 9 9 20 0 1 0 5";
        // SAFETY: asks for a number.
        let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        assert_eq!(cpu_of(stat)? * ticks_per_second as f64, 200.0);
        Ok(())
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() -> Result<()> {
        let page = "a_b 1\na 2\na{x=\"y\"} 3\n";
        assert_eq!(metric(page, "a")?, 2.0);
        assert!(metric(page, "c").is_err());
        Ok(())
    }
}
