//! The line that says how far long work is: seen on a terminal only, gone at the end, never with `-q`.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use libtest_mimic::{Completion, Failed};
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{program::*, terminal::Terminal};

const TRACE: &[u8] = include_bytes!("../data/python.trace");
/// The line is shown by then.
const LONG: Duration = Duration::from_millis(1500);
/// What the report begins with.
const REPORT: &str = "python3 (pid 28267) is running: ";

pub(crate) fn a_long_replay_says_so_and_leaves_the_terminal_clean() -> Result<Completion, Failed> {
    let Some(terminal) = Terminal::start()? else { return Terminal::missing() };
    terminal.resize(100, 100)?;
    let mut pipe = Pipe::new(terminal.folder.path())?;
    terminal.run(&format!("{MEMTRACE} replay {}", pipe.path.display()))?;
    pipe.open()?;
    terminal.wait_for("memtrace: replaying  2.0 KiB")?;
    pipe.finish()?;
    terminal.wait_for("ended: 0")?;
    let lines = terminal.lines()?;
    check(lines[0].starts_with(REPORT), format!("the report comes first: {lines:#?}"))?;
    check(!lines.concat().contains("replaying"), format!("the line is gone: {lines:#?}"))?;
    Ok(Completion::Completed)
}

pub(crate) fn a_quiet_replay_does_not() -> Result<Completion, Failed> {
    let Some(terminal) = Terminal::start()? else { return Terminal::missing() };
    terminal.resize(100, 100)?;
    let mut pipe = Pipe::new(terminal.folder.path())?;
    terminal.run(&format!("{MEMTRACE} replay -q {}", pipe.path.display()))?;
    pipe.open()?;
    thread::sleep(LONG);
    let lines = terminal.lines()?;
    check(lines.concat().is_empty(), format!("nothing is shown: {lines:#?}"))?;
    pipe.finish()?;
    terminal.wait_for(REPORT)?;
    Ok(Completion::Completed)
}

pub(crate) fn no_progress_goes_into_a_pipe() -> Result<Completion, Failed> {
    let folder = tempfile::tempdir()?;
    let mut pipe = Pipe::new(folder.path())?;
    let replay = Running::start(memtrace(["replay".as_ref(), pipe.path.as_os_str()]))?;
    pipe.open()?;
    thread::sleep(LONG);
    pipe.finish()?;
    let output = replay.finish()?;
    is(text(&output.stderr), String::new())?;
    check(text(&output.stdout).starts_with(REPORT), text(&output.stdout))?;
    Ok(Completion::Completed)
}

/// The line would be in the midst of what the command writes.
pub(crate) fn a_command_has_the_terminal_for_itself() -> Result<Completion, Failed> {
    let Some(terminal) = Terminal::start()? else { return Terminal::missing() };
    terminal.resize(100, 100)?;
    let script = "printf begun; sleep 2.5; echo -done";
    terminal.run(&format!("{MEMTRACE} run -- sh -c '{script}'"))?;
    terminal.wait_for("begun-done")?;
    terminal.wait_for("ended: 0")?;
    terminal.run(&format!("{MEMTRACE} run -- sh -c '{script}' >{}", terminal.file("out")))?;
    terminal.wait_for("memtrace: 0:0")?;
    terminal.wait_for("ended: 0")?;
    let lines = terminal.lines()?;
    check(lines[0].starts_with("sh (pid "), format!("the report comes first: {lines:#?}"))?;
    Ok(Completion::Completed)
}

pub(crate) fn a_large_heap_is_walked_by_parts_that_are_told() -> Result<Completion, Failed> {
    if !cfg!(debug_assertions) {
        return Ok(Completion::ignored_with("optional: with optimization nothing takes long"));
    }
    let Some(terminal) = Terminal::start()? else { return Terminal::missing() };
    let mut heap = Command::new(std::env::current_exe()?);
    heap.env(WORKLOAD, HEAP);
    let mut heap = Running::start(heap)?;
    heap.stdout.wait_for(HEAP)?;
    terminal.run(&format!("{MEMTRACE} report {}", heap.child.id()))?;
    let end = format!("(pid {})", heap.child.id());
    until("it says how far it is", || {
        let lines = terminal.lines()?;
        let line = lines.first().and_then(|line| line.strip_prefix("memtrace: looking  "));
        let line = line.filter(|line| line.ends_with(&end)).unwrap_or_default();
        let percent = line.split_once(" %  ").and_then(|(percent, _)| percent.trim().parse().ok());
        Ok(percent.is_some_and(|percent: u8| percent > 0))
    })?;
    terminal.wait_for("ended: 0")?;
    let lines = terminal.lines()?;
    check(!lines.concat().contains("looking"), format!("the line is gone: {lines:#?}"))?;
    Ok(Completion::Completed)
}

/// A trace of which first a part can be read, then the rest.
struct Pipe {
    path: PathBuf,
    file: Option<File>,
}

impl Pipe {
    const PART: usize = 2048;

    fn new(folder: &Path) -> Result<Self, Failed> {
        let path = folder.join("trace");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(Self { path, file: None })
    }

    /// Waits for the reader, and writes the first part.
    fn open(&mut self) -> Result<(), Failed> {
        let file = self.file.insert(File::create(&self.path)?);
        Ok(file.write_all(&TRACE[..Self::PART])?)
    }

    fn finish(&mut self) -> Result<(), Failed> {
        let mut file = self.file.take().ok_or("it was not opened")?;
        Ok(file.write_all(&TRACE[Self::PART..])?)
    }
}
