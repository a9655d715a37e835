//! Where a report goes.

use std::{
    fs::{self, File, Metadata},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Common, Failure, Format};
use crate::{
    model::{diff::Diff, history::History, machine::MachineReport, report::Report},
    sink::{
        html, json,
        text::{self, Style},
    },
};

/// The stream that a report takes where no file was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// The traced command owns the other one.
    Stderr,
    /// The report is all that there is.
    Stdout,
}

/// Where a report goes, opened before anything is traced.
pub(super) struct Output {
    format: Format,
    place: Place,
}

enum Place {
    File(PathBuf, File),
    Stream(Stream),
}

impl Output {
    /// Opens the file, if one was named.
    pub(super) fn open(common: &Common, stream: Stream) -> Result<Self, Failure> {
        let place = match &common.output {
            None => Place::Stream(stream),
            Some(path) => Place::File(path.clone(), create(path)?),
        };
        Ok(Self { format: common.format, place })
    }

    /// Returns the format in which it writes.
    pub(super) const fn format(&self) -> Format {
        self.format
    }

    /// Writes a report. A reader that went away is no error.
    pub(super) fn write(&mut self, report: &Report) -> Result<(), Failure> {
        self.write_with(report, None)
    }

    /// Writes a report with what its processes did over time, for formats that show it.
    pub(super) fn write_with(
        &mut self,
        report: &Report,
        history: Option<&History>,
    ) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => json::render(report),
            Format::Html => html::render(report, history),
            _ => text::render(report, self.style()),
        };
        self.write_text(&text)
    }

    /// Writes a report that others follow: as JSON in one line, on a terminal in place of the last one.
    pub(super) fn write_again(&mut self, report: &Report) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => json::line(report),
            _ => {
                let clear = if self.style().color { "\x1b[H\x1b[2J" } else { "" };
                format!("{clear}{}\n", text::render(report, self.style()))
            }
        };
        self.write_text(&text)
    }

    /// Writes what left every process of the machine; as JSON in one line, since others follow.
    pub(super) fn write_machine(&mut self, report: &MachineReport) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => json::line(report),
            _ => text::render_machine(report, self.style()) + "\n",
        };
        self.write_text(&text)
    }

    /// Writes what differs between two reports.
    pub(super) fn write_diff(&mut self, diff: &Diff) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => json::render(diff),
            _ => text::render_diff(diff, self.style()),
        };
        self.write_text(&text)
    }

    /// Writes the region map of a report.
    pub(super) fn write_maps(&mut self, report: &Report) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => json::render(report),
            _ => text::render_maps(report, self.style()),
        };
        self.write_text(&text)
    }

    /// Writes text as it is. A reader that went away is no error.
    pub(super) fn write_text(&mut self, text: &str) -> Result<(), Failure> {
        let written = match &mut self.place {
            Place::File(_, file) => file.write_all(text.as_bytes()).and_then(|()| file.flush()),
            Place::Stream(Stream::Stderr) => io::stderr().lock().write_all(text.as_bytes()),
            Place::Stream(Stream::Stdout) => io::stdout().lock().write_all(text.as_bytes()),
        };
        self.check(written)
    }

    /// Returns what writes to the place of the report, as it comes.
    pub(super) fn writer(&self) -> Result<Box<dyn io::Write>, Failure> {
        match &self.place {
            Place::File(_, file) => match file.try_clone() {
                Ok(file) => Ok(Box::new(file)),
                Err(error) => Err(self.unwritten(&error)),
            },
            Place::Stream(Stream::Stdout) if !io::stdout().is_terminal() => {
                Ok(Box::new(io::stdout()))
            }
            Place::Stream(_) => Err(Failure::usage(
                "a trace for Perfetto is not for a terminal".to_owned(),
                "write it to a file with -o FILE, and open that in https://ui.perfetto.dev",
            )),
        }
    }

    /// Says what became of writing. A reader that went away is no error.
    pub(super) fn check(&self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(self.unwritten(&error)),
        }
    }

    fn unwritten(&self, error: &io::Error) -> Failure {
        let place = match &self.place {
            Place::File(path, _) => path.display().to_string(),
            Place::Stream(_) => "the report's stream".to_owned(),
        };
        let error = anyhow::anyhow!("cannot write to {place}: {error}");
        Failure::new(Failure::FAILED, error, "is the disk full?")
    }

    fn style(&self) -> Style {
        let (terminal, fd) = match self.place {
            Place::File(..) => (false, 1),
            Place::Stream(Stream::Stderr) => (io::stderr().is_terminal(), 2),
            Place::Stream(Stream::Stdout) => (io::stdout().is_terminal(), 1),
        };
        let color = terminal && std::env::var_os("NO_COLOR").is_none();
        Style { color, width: terminal_width(fd).filter(|_| terminal).unwrap_or(100) }
    }
}

/// Creates a file for what will be written.
pub(super) fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| Failure::unwritten(path, &error))
}

/// Checks that what is written would not overwrite a file that is read.
pub(super) fn check_not_over(
    common: &Common,
    input: &Metadata,
    sentence: &str,
) -> Result<(), Failure> {
    let output = common.output.as_ref().and_then(|path| fs::metadata(path).ok());
    let is_same = |output: &Metadata| (output.dev(), output.ino()) == (input.dev(), input.ino());
    if input.is_file() && output.as_ref().is_some_and(is_same) {
        return Err(Failure::usage(sentence.to_owned(), "name another file behind -o"));
    }
    Ok(())
}

/// Returns the columns of the terminal at `fd`, if it says how many it has.
pub(super) fn terminal_width(fd: i32) -> Option<usize> {
    // SAFETY: all zeros are a `winsize`.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes a `winsize` to the pointer.
    let done = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) };
    (done == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}
