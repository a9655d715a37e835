//! The tracers that are compared.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A way to run a command.
pub(super) struct Tracer {
    /// As it stands in the table.
    pub(super) name: &'static str,
    /// What comes before the command; `MEMTRACE` stands for memtrace's path.
    pub(super) prefix: &'static [&'static str],
    /// What it looks at.
    pub(super) sees: Sees,
}

/// What a tracer looks at: only those that look at the same can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sees {
    /// Nothing.
    Nothing,
    /// Calls and their arguments.
    Calls,
    /// Each page that comes.
    Pages,
}

impl Tracer {
    /// Not traced.
    pub(super) const BARE: Self = Self { name: "bare", prefix: &[], sees: Sees::Nothing };
}

/// Not traced, while memtrace traces somebody else.
pub(super) const UNTRACED: Tracer = Tracer { name: "untraced, memtrace elsewhere", ..Tracer::BARE };

/// All that are compared; the first is what the others are compared with.
pub(super) const TRACERS: &[Tracer] = &[
    Tracer::BARE,
    Tracer {
        name: "memtrace run",
        prefix: &["MEMTRACE", "run", "-o", "/dev/null", "--"],
        sees: Sees::Pages,
    },
    Tracer {
        name: "memtrace run --evidence rss",
        prefix: &["MEMTRACE", "run", "--evidence", "rss", "-o", "/dev/null", "--"],
        sees: Sees::Pages,
    },
    Tracer {
        name: "memtrace run --evidence args",
        prefix: &["MEMTRACE", "run", "--evidence", "args", "-o", "/dev/null", "--"],
        sees: Sees::Calls,
    },
    Tracer {
        name: "strace -f -e trace=%memory",
        prefix: &["strace", "-f", "-qq", "-e", "trace=%memory", "-o", "/dev/null"],
        sees: Sees::Calls,
    },
    Tracer {
        name: "perf trace (memory calls)",
        prefix: &[
            "perf",
            "trace",
            "-o",
            "/dev/null",
            "-e",
            "mmap,munmap,brk,mremap,madvise,mprotect",
        ],
        sees: Sees::Calls,
    },
    Tracer {
        name: "perf trace -F all (faults only)",
        prefix: &["perf", "trace", "-o", "/dev/null", "-F", "all", "--no-syscalls"],
        sees: Sees::Pages,
    },
];

impl Tracer {
    /// Runs a command and returns the time that it took, as it says itself.
    pub(super) fn run(&self, memtrace: &str, command: &[String]) -> Result<u64> {
        elapsed_ns(&mut self.command(memtrace, command))
    }

    /// Returns the command line of a traced command.
    pub(super) fn command(&self, memtrace: &str, command: &[String]) -> Command {
        let prefix =
            self.prefix.iter().map(|&word| if word == "MEMTRACE" { memtrace } else { word });
        let mut words = prefix.chain(command.iter().map(String::as_str));
        let mut traced = Command::new(words.next().unwrap_or_default());
        traced.args(words);
        traced
    }
}

/// Runs a workload and returns the time that it prints.
pub(super) fn elapsed_ns(command: &mut Command) -> Result<u64> {
    let output = command.stdin(Stdio::null()).output().context("not installed")?;
    parse(&String::from_utf8_lossy(&output.stdout)).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("does not work here: {}", said.lines().next().unwrap_or("it says nothing"))
    })
}

fn parse(text: &str) -> Result<u64> {
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("elapsed_ns ") {
            return number.trim().parse().context("no number");
        }
    }
    bail!("no time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_between_other_lines() -> Result<()> {
        assert_eq!(parse("x\nelapsed_ns 12\ny\n")?, 12);
        assert!(parse("elapsed 12").is_err());
        Ok(())
    }

    #[test]
    fn a_command_stands_behind_its_tracer() {
        let command = TRACERS[1].command("/m", &["true".to_owned()]);
        assert_eq!(command.get_program(), "/m");
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args, ["run", "-o", "/dev/null", "--", "true"]);
    }
}
