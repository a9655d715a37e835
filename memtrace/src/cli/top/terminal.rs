//! The terminal, given back as it was: at the end, after an error, and after a panic of any thread.

use std::{
    io::{self, Write as _},
    panic,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ratatui::{
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::{Position, Rect},
};

use crate::sink::tui::{self, View};

/// A terminal that shows a view. Dropped, it is as it was.
pub(super) struct Terminal {
    inner: ratatui::Terminal<CrosstermBackend<io::Stdout>>,
}

/// Exit code after a panic, as std has it.
const PANICKED: i32 = 101;

impl Terminal {
    /// Takes the terminal that is this process's standard output.
    pub(super) fn take() -> Result<Self> {
        let said = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // Whoever else draws now waits for ever.
            let _stdout = io::stdout().lock();
            give_back();
            said(panic);
            std::process::exit(PANICKED);
        }));
        let inner = ratatui::Terminal::new(CrosstermBackend::new(io::stdout()));
        let mut terminal = Self { inner: inner.context("cannot ask the terminal for its size")? };
        terminal.enter()?;
        Ok(terminal)
    }

    fn enter(&mut self) -> Result<()> {
        let entered = enable_raw_mode().and_then(|()| execute!(io::stdout(), EnterAlternateScreen));
        entered.context("cannot prepare the terminal")?;
        // It clears the screen too. (`clear` asks where the cursor is, and the answer would be a key.)
        let size = self.inner.size().context("cannot ask the terminal for its size")?;
        self.inner
            .resize(Rect::from((Position::ORIGIN, size)))
            .context("cannot write to the terminal")
    }

    /// Returns its columns and lines.
    pub(super) fn size(&self) -> Result<(u16, u16)> {
        let size = self.inner.size().context("cannot ask the terminal for its size")?;
        Ok((size.width, size.height))
    }

    /// Shows a view.
    pub(super) fn draw(&mut self, view: &View) -> Result<()> {
        let drawn = self.inner.draw(|frame| tui::draw(frame, view));
        drawn.map(drop).context("cannot write to the terminal")
    }

    /// Goes to the background; returns when the shell has it go on.
    pub(super) fn suspend(&mut self) -> Result<()> {
        give_back();
        kill(Pid::from_raw(0), Signal::SIGTSTP).context("cannot go to the background")?;
        self.enter()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// A terminal that is gone needs nothing.
fn give_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = io::stdout().flush();
    let _ = disable_raw_mode();
}
