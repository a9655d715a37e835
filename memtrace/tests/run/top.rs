//! `memtrace top` in a real terminal, which tmux plays: what is seen, what keys do, and that the terminal
//! is given back whatever ends it. Shows only processes that the test started.

use std::{
    env, fs,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use libtest_mimic::{Completion, Failed};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::program::*;

/// Runs a test in a terminal, if there is tmux.
pub(crate) fn in_terminal(
    test: fn(&Terminal, u32) -> Result<(), Failed>,
) -> Result<Completion, Failed> {
    if Command::new("tmux").arg("-V").output().is_err() {
        check(env::var_os("CI").is_none(), "tmux is not installed, and CI needs it")?;
        return Ok(Completion::ignored_with("optional: tmux is not installed"));
    }
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let sleep = Running::start(sleep)?;
    test(&Terminal::start()?, sleep.child.id())?;
    Ok(Completion::Completed)
}

pub(crate) fn keys_do_what_they_say(terminal: &Terminal, pid: u32) -> Result<(), Failed> {
    terminal.show(pid)?;
    let row = |line: &str| line.contains(&format!(" {pid}  sleep "));
    let lines = terminal.lines()?;
    check(lines.get(3).is_some_and(|line| row(line)), format!("its row is the fourth: {lines:?}"))?;
    terminal.press("/")?;
    terminal.press("nobody")?;
    terminal.wait_for("no process has this in its name")?;
    terminal.press("Escape")?;
    until("all are shown again", || Ok(terminal.lines()?.iter().any(|line| row(line))))?;
    terminal.press("Enter")?;
    terminal.wait_for(&format!("sleep (pid {pid})"))?;
    terminal.press("2")?;
    terminal.press("Space")?;
    terminal.wait_for(" paused ")?;
    terminal.tmux(&["resize-window", "-x", "100", "-y", "30"])?;
    until("it fills the window", || {
        Ok(terminal.lines()?.get(29).is_some_and(|line| line.starts_with("q quit")))
    })?;
    terminal.press("Escape")?;
    terminal.press("?")?;
    terminal.wait_for("what the kernel's page allocator got back")?;
    terminal.press("q")?;
    terminal.is_given_back(0)
}

pub(crate) fn a_signal_gives_the_terminal_back(
    terminal: &Terminal,
    pid: u32,
) -> Result<(), Failed> {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let top = terminal.show(pid)?;
        kill(top, signal)?;
        terminal.is_given_back(0)?;
    }
    Ok(())
}

pub(crate) fn it_goes_to_the_background_and_comes_back(
    terminal: &Terminal,
    pid: u32,
) -> Result<(), Failed> {
    terminal.show(pid)?;
    terminal.press("C-z")?;
    until("the terminal is given back", || terminal.is_as_it_was())?;
    terminal.press("fg")?;
    terminal.press("Enter")?;
    terminal.wait_for("1 process,")?;
    terminal.press("C-c")?;
    until("the terminal is given back again", || terminal.is_as_it_was())
}

/// A shell in a terminal of 80 columns and 24 lines.
pub(crate) struct Terminal {
    server: String,
    folder: tempfile::TempDir,
}

impl Terminal {
    fn start() -> Result<Self, Failed> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let server = format!("memtrace-test-{}-{number}", std::process::id());
        let terminal = Self { server, folder: tempfile::tempdir()? };
        let shell = "exec env -u NO_COLOR PS1='> ' sh";
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", shell])?;
        terminal.wait_for(">")?;
        Ok(terminal)
    }

    /// Has a process shown, and returns who shows it.
    fn show(&self, pid: u32) -> Result<Pid, Failed> {
        let file = self.folder.path().join("pid");
        let command = format!("echo $$ >{}; exec {MEMTRACE} top --no-probes {pid}", file.display());
        self.press(&format!("clear; sh -c '{command}'; echo \"ended: $?\""))?;
        self.press("Enter")?;
        self.wait_for("1 process,")?;
        Ok(Pid::from_raw(fs::read_to_string(file)?.trim().parse()?))
    }

    fn tmux(&self, args: &[&str]) -> Result<String, Failed> {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.server]).args(args).stdin(Stdio::null());
        let output = command.output()?;
        check(output.status.success(), format!("{args:?}: {}", text(&output.stderr)))?;
        Ok(text(&output.stdout))
    }

    fn press(&self, keys: &str) -> Result<(), Failed> {
        self.tmux(&["send-keys", keys]).map(drop)
    }

    fn lines(&self) -> Result<Vec<String>, Failed> {
        Ok(self.tmux(&["capture-pane", "-p"])?.lines().map(str::to_owned).collect())
    }

    fn wait_for(&self, text: &str) -> Result<(), Failed> {
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
    fn is_given_back(&self, code: i32) -> Result<(), Failed> {
        self.wait_for(&format!("ended: {code}"))?;
        check(self.is_as_it_was()?, "the terminal is as it was")
    }

    /// The screen is the shell's, the cursor is seen, and the terminal shows what is typed.
    fn is_as_it_was(&self) -> Result<bool, Failed> {
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
