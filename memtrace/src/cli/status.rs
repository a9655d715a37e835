//! What the line of a long trace, and of other long work, says.

use std::{
    fs::{self, Metadata},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use memtrace_common::ProbeStats;

use super::line::Line;
use crate::{
    sink::{known, printable, size},
    source::progress::{Counter, Progress},
};

/// Work that may take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Reads a trace.
    Replaying,
    /// Reads the heaps of processes.
    Looking,
}

impl Work {
    /// Shows how far it is while the returned line lives.
    pub(super) fn show(self, counter: &Counter) -> Line {
        let counter = counter.clone();
        Line::start(move |elapsed| Some(self.line(&counter.progress(), elapsed)))
    }

    /// The name comes last: it may be cut.
    fn line(self, progress: &Progress, elapsed: Duration) -> String {
        let Progress { what, at, total, .. } = progress;
        let verb = match self {
            Self::Replaying => "replaying",
            Self::Looking => "looking",
        };
        let done = match *total {
            Some(total) => {
                let at = total.min(*at);
                let percent = u128::from(at) * 100 / u128::from(total.max(1));
                format!("{percent:2} %  {} of {}", size(at), size(total))
            }
            None => size(*at),
        };
        let pace = match self {
            Self::Replaying => pace(progress, elapsed),
            // Allocators differ in how much of their memory has to be read.
            Self::Looking => String::new(),
        };
        format!("memtrace: {verb}  {done}{pace}  {}", printable(what))
    }
}

/// Returns who counts what is read of a file.
pub(super) fn count_file(path: &Path) -> Counter {
    let file = fs::metadata(path).ok().filter(Metadata::is_file);
    let counter = Counter::new(file.map(|file| file.len()));
    let name = path.file_name().unwrap_or(path.as_os_str());
    counter.begin(name.to_string_lossy().into_owned(), u64::MAX);
    counter
}

/// Returns how fast it goes and how long it will take, as soon as that is worth saying.
fn pace(progress: &Progress, elapsed: Duration) -> String {
    let read = progress.at.saturating_sub(progress.from);
    let seconds = elapsed.as_secs_f64();
    if read == 0 || seconds < 1.0 {
        return String::new();
    }
    let each_second = read as f64 / seconds;
    let left = progress.total.map(|total| total.saturating_sub(progress.at) as f64 / each_second);
    let left = left.map_or_else(String::new, |left| format!("  {} left", clock(left as u64)));
    format!("  {}/s{left}", size(each_second as u64))
}

fn clock(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// What the line of a long trace says.
pub(super) struct Status {
    figures: Arc<Mutex<Option<Figures>>>,
    last: Instant,
    line: Line,
}

#[derive(Clone, Copy)]
struct Figures {
    stats: ProbeStats,
    resident: Option<u64>,
    reclaimed: Option<u64>,
}

impl Status {
    /// How often the figures change: they cost more than the line.
    const INTERVAL: Duration = Duration::from_secs(1);

    /// Shows no figures.
    pub(super) fn none() -> Self {
        Self { figures: Arc::default(), last: Instant::now(), line: Line::none() }
    }

    /// Shows figures from the first that it gets.
    pub(super) fn start() -> Self {
        let figures: Arc<Mutex<Option<Figures>>> = Arc::default();
        let shown = Arc::clone(&figures);
        let line = Line::start(move |elapsed| {
            let figures = *shown.lock().unwrap_or_else(PoisonError::into_inner);
            Some(figures?.line(elapsed))
        });
        Self { figures, last: Instant::now(), line }
    }

    /// Tells whether it wants new figures.
    pub(super) fn is_due(&self) -> bool {
        self.line.is_shown() && self.last.elapsed() >= Self::INTERVAL
    }

    /// Takes new figures.
    pub(super) fn take(
        &mut self,
        stats: ProbeStats,
        resident: Option<u64>,
        reclaimed: Option<u64>,
    ) {
        self.last = Instant::now();
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        *figures = Some(Figures { stats, resident, reclaimed });
    }
}

impl Figures {
    fn line(self, elapsed: Duration) -> String {
        let Self { stats, resident, reclaimed } = self;
        format!(
            "memtrace: {}  {} events, {} dropped  RSS {}  given back {}",
            clock(elapsed.as_secs()),
            stats.emitted,
            stats.dropped,
            known(resident),
            known(reclaimed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bytes: u64, total: Option<u64>, what: &str) -> Progress {
        Progress { what: what.to_owned(), at: bytes, total, ..Progress::default() }
    }

    #[test]
    fn a_replay_says_how_far_it_is_how_fast_and_how_long_it_will_take() {
        let progress = at(25 << 20, Some(100 << 20), "a.trace");
        let line = |ms| Work::Replaying.line(&progress, Duration::from_millis(ms));
        assert_eq!(line(500), "memtrace: replaying  25 %  25.0 MiB of 100.0 MiB  a.trace");
        let expected =
            "memtrace: replaying  25 %  25.0 MiB of 100.0 MiB  1.0 MiB/s  1:15 left  a.trace";
        assert_eq!(line(25_000), expected);
        let progress = Progress { from: 20 << 20, ..progress };
        let line = Work::Replaying.line(&progress, Duration::from_secs(5));
        assert_eq!(line, expected, "what was passed over took no time");
    }

    #[test]
    fn a_replay_whose_end_is_not_known_says_no_part_of_it() {
        let line = Work::Replaying.line(&at(25 << 20, None, "pipe"), Duration::from_secs(5));
        assert_eq!(line, "memtrace: replaying  25.0 MiB  5.0 MiB/s  pipe");
    }

    #[test]
    fn a_look_says_how_far_it_is_and_promises_nothing() {
        let line = |progress| Work::Looking.line(&progress, Duration::from_secs(5));
        let half = at(1 << 30, Some(2 << 30), "2 of 9: a\u{1b}b (pid 7)");
        let expected = "memtrace: looking  50 %  1.0 GiB of 2.0 GiB  2 of 9: a\\u{1b}b (pid 7)";
        assert_eq!(line(half), expected);
        assert_eq!(line(at(3, Some(2), "a")), "memtrace: looking  100 %  2 B of 2 B  a");
        assert_eq!(line(at(0, Some(0), "a")), "memtrace: looking   0 %  0 B of 0 B  a");
    }

    #[test]
    fn a_trace_says_what_it_counted() {
        let stats = ProbeStats { emitted: 12, dropped: 3, ..ProbeStats::default() };
        let figures = Figures { stats, resident: Some(1 << 20), reclaimed: None };
        let expected = "memtrace: 1:05  12 events, 3 dropped  RSS 1.0 MiB  given back –";
        assert_eq!(figures.line(Duration::from_secs(65)), expected);
    }
}
