//! `memtrace top` in a real terminal, which tmux plays: what is seen, what keys do, and that the terminal
//! is given back whatever ends it. Shows only processes that the test started.

use std::{fs, process::Command};

use libtest_mimic::{Completion, Failed};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{program::*, terminal::Terminal};

/// Runs a test in a terminal, with a process to show.
pub(crate) fn in_terminal(
    test: fn(&Terminal, u32) -> Result<(), Failed>,
) -> Result<Completion, Failed> {
    let Some(terminal) = Terminal::start()? else { return Terminal::missing() };
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let sleep = Running::start(sleep)?;
    test(&terminal, sleep.child.id())?;
    Ok(Completion::Completed)
}

pub(crate) fn keys_do_what_they_say(terminal: &Terminal, pid: u32) -> Result<(), Failed> {
    show(terminal, pid)?;
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
    terminal.resize(100, 30)?;
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
        let top = show(terminal, pid)?;
        kill(top, signal)?;
        terminal.is_given_back(0)?;
    }
    Ok(())
}

pub(crate) fn it_goes_to_the_background_and_comes_back(
    terminal: &Terminal,
    pid: u32,
) -> Result<(), Failed> {
    show(terminal, pid)?;
    terminal.press("C-z")?;
    until("the terminal is given back", || terminal.is_as_it_was())?;
    terminal.press("fg")?;
    terminal.press("Enter")?;
    terminal.wait_for("1 process,")?;
    terminal.press("C-c")?;
    until("the terminal is given back again", || terminal.is_as_it_was())
}

/// Has a process shown, and returns who shows it.
fn show(terminal: &Terminal, pid: u32) -> Result<Pid, Failed> {
    let file = terminal.file("pid");
    terminal.run(&format!("sh -c 'echo $$ >{file}; exec {MEMTRACE} top --no-probes {pid}'"))?;
    terminal.wait_for("1 process,")?;
    Ok(Pid::from_raw(fs::read_to_string(file)?.trim().parse()?))
}
