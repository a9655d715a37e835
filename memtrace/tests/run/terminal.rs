//! A real terminal, which tmux plays.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use libtest_mimic::{Completion, Failed};

use super::{
    program::*,
    trial::{has_program, without},
};

/// A shell in a terminal of 80 columns and 24 lines.
pub(crate) struct Terminal {
    server: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Terminal {
    /// Starts it; `None` without tmux.
    pub(crate) fn start() -> Result<Option<Self>, Failed> {
        if !has_program("tmux") {
            return Ok(None);
        }
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let server = format!("memtrace-test-{}-{number}", std::process::id());
        let terminal = Self { server, folder: tempfile::tempdir()? };
        let shell = "exec env -u NO_COLOR PS1='> ' sh";
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", shell])?;
        terminal.wait_for(">")?;
        Ok(Some(terminal))
    }

    /// Ends a test that did not run.
    pub(crate) fn missing() -> Result<Completion, Failed> {
        without("tmux")
    }

    /// Runs a command on the empty screen, which says at last how that ended.
    pub(crate) fn run(&self, command: &str) -> Result<(), Failed> {
        self.press(&format!("clear; {command}; echo \"ended: $?\""))?;
        self.press("Enter")
    }

    /// Returns the path of a file of the test.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(crate) fn resize(&self, columns: u16, lines: u16) -> Result<(), Failed> {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &lines]).map(drop)
    }

    pub(crate) fn tmux(&self, args: &[&str]) -> Result<String, Failed> {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.server]).args(args).stdin(Stdio::null());
        let output = command.output()?;
        check(output.status.success(), format!("{args:?}: {}", text(&output.stderr)))?;
        Ok(text(&output.stdout))
    }

    pub(crate) fn press(&self, keys: &str) -> Result<(), Failed> {
        self.tmux(&["send-keys", keys]).map(drop)
    }

    pub(crate) fn lines(&self) -> Result<Vec<String>, Failed> {
        Ok(self.tmux(&["capture-pane", "-p"])?.lines().map(str::to_owned).collect())
    }

    pub(crate) fn wait_for(&self, text: &str) -> Result<(), Failed> {
        let mut last = vec![];
        let found = until(text, || {
            last = self.lines()?;
            Ok(last.iter().any(|line| line.contains(text)))
        });
        found.map_err(|error| {
            format!("{}; seen: {last:#?}", error.message().unwrap_or_default()).into()
        })
    }

    /// Waits for the shell to say how it ended, and looks at the terminal then.
    pub(crate) fn is_given_back(&self, code: i32) -> Result<(), Failed> {
        self.wait_for(&format!("ended: {code}"))?;
        check(self.is_as_it_was()?, "the terminal is as it was")
    }

    /// The screen is the shell's, the cursor is seen, and the terminal shows what is typed.
    pub(crate) fn is_as_it_was(&self) -> Result<bool, Failed> {
        let state =
            self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag} #{pane_tty}"])?;
        let Some(tty) = state.trim().strip_prefix("0 1 ") else { return Ok(false) };
        let stty = Command::new("stty").args(["-a", "-F", tty]).output()?;
        let modes = text(&stty.stdout);
        let is_set = |mode| modes.split_ascii_whitespace().any(|word| word == mode);
        Ok(["echo", "icanon", "isig", "opost"].into_iter().all(is_set))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
