//! One line on stderr that is rewritten in place while work takes long: on a terminal only, not with
//! `-q`, and gone before anything else stands there.
//!
//! A thread of its own writes it: no work, and no process that stands still meanwhile, waits for a
//! terminal. Not here: what the line says (`status`).

use std::{
    io::{self, IsTerminal as _, StderrLock, Write, stderr},
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::unistd::{getpgrp, tcgetpgrp};
use ratatui::text::Span;

use super::output::terminal_width;

/// Work takes so long before anybody is told.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the line changes at most.
const INTERVAL: Duration = Duration::from_millis(200);
/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// Nobody wants to know how it goes (`-q`).
static QUIET: AtomicBool = AtomicBool::new(false);
/// The line stands on the terminal. Changed while stderr is locked.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Shows no line and writes no note from now on.
pub(super) fn be_quiet() {
    QUIET.store(true, Relaxed);
}

/// Writes to stderr what is nice to know, unless nobody wants to.
pub(super) fn note(text: &str) {
    if !QUIET.load(Relaxed) {
        let _ = Beside.write_all(format!("{text}\n").as_bytes());
    }
}

/// The line, for as long as this lives.
pub(super) struct Line(Option<Shower>);

struct Shower {
    ends: Sender<()>,
    thread: JoinHandle<()>,
}

impl Line {
    /// Shows what `text` returns after so much time, while there is something to say.
    pub(super) fn start(text: impl FnMut(Duration) -> Option<String> + Send + 'static) -> Self {
        if QUIET.load(Relaxed) || !stderr().is_terminal() {
            return Self::none();
        }
        let (ends, ended) = channel();
        let thread = thread::Builder::new().name("line".to_owned());
        // Without a thread there is no line: the work is what matters.
        let thread = thread.spawn(move || show(&ended, text)).ok();
        Self(thread.map(|thread| Shower { ends, thread }))
    }

    /// Shows nothing.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Tells whether anybody sees it.
    pub(super) const fn is_shown(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(Shower { ends, thread }) = self.0.take() {
            drop(ends);
            let _ = thread.join();
        }
    }
}

/// Rewrites the line until the other end is dropped.
fn show(ended: &Receiver<()>, mut text: impl FnMut(Duration) -> Option<String>) {
    let started = Instant::now();
    let mut pause = PATIENCE;
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        pause = INTERVAL;
        let Some(text) = text(started.elapsed()).filter(|_| is_in_foreground()) else { continue };
        let text = fitted(text, terminal_width(2).unwrap_or(COLUMNS));
        let mut stderr = stderr().lock();
        SHOWN.store(true, Relaxed);
        let _ = stderr.write_all(format!("\r{text}\x1b[K").as_bytes());
    }
    erase(&mut stderr().lock());
}

/// Takes the line away, if it is there.
fn erase(stderr: &mut StderrLock<'_>) {
    if SHOWN.swap(false, Relaxed) && is_in_foreground() {
        let _ = stderr.write_all(b"\r\x1b[K");
    }
}

/// Tells whether the terminal is ours to write on. In the background a shell's prompt stands there.
fn is_in_foreground() -> bool {
    tcgetpgrp(stderr()).map_or(true, |group| group == getpgrp())
}

/// Returns what of `line` fits a terminal and leaves its last column free, so that nothing wraps.
fn fitted(mut line: String, columns: usize) -> String {
    while !line.is_empty() && Span::raw(line.as_str()).width() >= columns {
        line.pop();
    }
    line
}

/// Stderr for all others: what they write takes the place of the line, which comes again below.
pub(super) struct Beside;

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = stderr().lock();
        erase(&mut stderr);
        stderr.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_leaves_the_last_column_free_also_where_glyphs_take_two() {
        assert_eq!(fitted("abcdef".to_owned(), 80), "abcdef");
        assert_eq!(fitted("abcdef".to_owned(), 7), "abcdef");
        assert_eq!(fitted("abcdef".to_owned(), 6), "abcde");
        assert_eq!(fitted("日本語".to_owned(), 6), "日本");
        assert_eq!(fitted("abcdef".to_owned(), 0), "");
    }
}
