//! The processes that the daemon watches.

use std::{
    io::{BufRead as _, BufReader, Lines},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// `bench-workload crowd`; ends with this.
pub(super) struct Crowd {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Crowd {
    /// Starts it, and waits until all are there that do nothing.
    pub(super) fn start(program: &Path, idle: u32, forks: u32) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["crowd", &idle.to_string(), &forks.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let said = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut crowd = Self { child, said };
        ensure!(crowd.line()? == "ready", "the processes did not begin");
        Ok(crowd)
    }

    /// Ends it, and returns how many came and went.
    pub(super) fn stop(mut self) -> Result<u64> {
        drop(self.child.stdin.take());
        let line = self.line()?;
        let forked = line.strip_prefix("forked ").with_context(|| format!("it said {line:?}"))?;
        Ok(forked.parse()?)
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.said.next().context("it ended")??)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
