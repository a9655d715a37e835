//! A way to run a workload, and the time that this takes.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::{idle::Idle, workload::Workload};

/// A way to run a command.
pub(super) struct Tracer {
    /// As it stands in the table.
    pub(super) name: &'static str,
    /// What comes before the command; `MEMTRACE` stands for memtrace's path.
    pub(super) prefix: &'static [&'static str],
    /// Whether it takes the command as one word.
    pub(super) one_word: bool,
    /// What it looks at.
    pub(super) sees: Sees,
    /// The level at which memtrace traces an idle process meanwhile.
    pub(super) elsewhere: Option<&'static str>,
}

/// What a tracer looks at: only those that look at the same can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sees {
    /// Nothing.
    Nothing,
    /// Calls and their arguments.
    Calls,
    /// Each page that comes by a fault; no call.
    Faults,
    /// Calls, and each page that comes and goes.
    Pages,
    /// All that, and each frame that is freed.
    Frames,
}

impl Sees {
    /// Returns what one that sees this lacks beside one that sees `all`, to stand behind its name.
    pub(super) fn lacks_beside(self, all: Self) -> &'static str {
        if self == all {
            return "";
        }
        match self {
            Self::Nothing => ", which looks at nothing,",
            Self::Calls => ", which looks at no page,",
            Self::Faults => ", which looks at faults alone,",
            Self::Pages => ", which looks at no freed frame,",
            Self::Frames => "",
        }
    }
}

impl Tracer {
    /// Not traced.
    pub(super) const BARE: Self =
        Self { name: "bare", prefix: &[], one_word: false, sees: Sees::Nothing, elsewhere: None };

    /// Runs a workload and returns the time that it took, as it says itself.
    pub(super) fn run(&self, memtrace: &str, workload: &Workload) -> Result<u64> {
        let _idle = self.elsewhere.map(|level| Idle::traced(memtrace, level)).transpose()?;
        elapsed_ns(&mut self.command(memtrace, workload))
    }

    /// Returns the command line of a workload: its driver, this tracer, what is traced.
    fn command(&self, memtrace: &str, workload: &Workload) -> Command {
        let Workload { driver, command, .. } = workload;
        let mut words = driver.clone();
        for &word in self.prefix {
            words.push(if word == "MEMTRACE" { memtrace } else { word }.to_owned());
        }
        if self.one_word {
            words.push(command.join(" "));
        } else {
            words.extend_from_slice(command);
        }
        let mut words = words.iter();
        let mut traced = Command::new(words.next().map_or("", String::as_str));
        traced.args(words);
        traced
    }
}

/// Runs a workload and returns the time that it prints.
fn elapsed_ns(command: &mut Command) -> Result<u64> {
    let output = command.stdin(Stdio::null()).output().context("not installed")?;
    parse(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("does not work here: {}", said(&output.stderr)))
}

fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("elapsed_ns "))?.trim().parse().ok()
}

/// Returns the first lines of an error, as they fit into a table: the first alone is often but a
/// warning.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    if lines.is_empty() { "it says nothing".to_owned() } else { lines.join("; ").replace('|', "/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_between_other_lines() {
        assert_eq!(parse("x\nelapsed_ns 12\ny\n"), Some(12));
        assert_eq!(parse("elapsed 12"), None);
    }

    #[test]
    fn an_error_behind_a_warning_is_told_too() {
        assert_eq!(said(b"a warning\n\nno | here\n"), "a warning; no / here");
        assert_eq!(said(b""), "it says nothing");
    }

    fn line(tracer: &Tracer, driver: &[&str]) -> Vec<String> {
        let workload = Workload {
            name: "w",
            driver: driver.iter().map(|&word| word.to_owned()).collect(),
            command: vec!["sleep".to_owned(), "1".to_owned()],
            units: 1,
            unit: "second",
            faults: false,
        };
        let command = tracer.command("/m", &workload);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_command_stands_behind_its_tracer_and_a_driver_before_it() {
        let tracer = Tracer { prefix: &["MEMTRACE", "run", "--"], ..Tracer::BARE };
        assert_eq!(line(&tracer, &[]), ["/m", "run", "--", "sleep", "1"]);
        assert_eq!(line(&tracer, &["drive"]), ["drive", "/m", "run", "--", "sleep", "1"]);
    }

    #[test]
    fn a_tracer_that_wants_one_word_gets_one() {
        let tracer = Tracer { prefix: &["bpftrace", "-c"], one_word: true, ..Tracer::BARE };
        assert_eq!(line(&tracer, &[]), ["bpftrace", "-c", "sleep 1"]);
    }
}
