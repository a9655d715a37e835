//! A process that does nothing and is traced: what that costs the others is measured.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// An idle process that memtrace traces; both end with this.
pub(super) struct Idle {
    idle: Child,
    tracer: Child,
}

impl Idle {
    /// Starts both and waits until memtrace traces at that level.
    pub(super) fn traced(memtrace: &str, level: &str) -> Result<Self> {
        let idle = Command::new("sleep").arg("1000").spawn().context("cannot start sleep")?;
        let mut tracer = Command::new(memtrace)
            .args(["-v", "attach", "--evidence", level, "-o", "/dev/null"])
            .arg(idle.id().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start memtrace")?;
        let stderr = tracer.stderr.take().context("no stderr")?;
        let traced = Self { idle, tracer };
        let mut lines = BufReader::new(stderr).lines();
        let attached = lines.any(|line| line.is_ok_and(|line| line.contains("tracing")));
        ensure!(attached, "memtrace did not attach");
        Ok(traced)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for child in [&mut self.tracer, &mut self.idle] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
