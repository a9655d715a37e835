//! docs/KERNELS.md: what each kernel said of itself in its run.
//!
//! The kernel tests print `@@HOOK`, the command, the probe and its hook, and `@@FUZZ` and what the
//! fuzzer looked at.

use std::fmt::Write as _;

use super::report::Verdict;

/// Returns the tables of the document.
pub(super) fn render(verdicts: &[Verdict]) -> String {
    let mut text = String::from("| kernel | release | random operations |\n|---|---|---|\n");
    for verdict in verdicts {
        let fuzzed = said(verdict, "@@FUZZ").next().unwrap_or("none");
        let _ = writeln!(text, "| {} | {} | {fuzzed} |", verdict.line, verdict.release);
    }
    for (command, heading) in [
        ("run", "Hooks that `memtrace run --events=faults` takes"),
        ("attach", "Hooks that `memtrace attach` takes where they differ from those of `run`"),
    ] {
        let _ = writeln!(text, "\n### {heading}\n");
        let _ =
            writeln!(text, "| probe |{}", columns(verdicts, |verdict| verdict.line.to_string()));
        let _ = writeln!(text, "|---|{}", columns(verdicts, |_| "---".to_owned()));
        for probe in probes(verdicts, command) {
            let hooks = |verdict: &Verdict| hook(verdict, command, &probe).unwrap_or_default();
            let differs = command == "run"
                || verdicts.iter().any(|verdict| {
                    let [run, attach] =
                        ["run", "attach"].map(|command| hook(verdict, command, &probe));
                    run != attach && attach.as_deref() != Some("skipped")
                });
            if differs {
                let _ = writeln!(text, "| {probe} |{}", columns(verdicts, hooks));
            }
        }
    }
    text
}

fn columns(verdicts: &[Verdict], cell: impl Fn(&Verdict) -> String) -> String {
    verdicts.iter().fold(String::new(), |row, verdict| row + " " + &cell(verdict) + " |")
}

/// Returns what follows a marker in the lines of a run's output.
fn said<'a>(verdict: &'a Verdict, marker: &'a str) -> impl Iterator<Item = &'a str> {
    verdict.output().lines().filter_map(move |line| Some(line.strip_prefix(marker)?.trim()))
}

/// Returns the probes that any of the kernels named, in their order.
fn probes(verdicts: &[Verdict], command: &str) -> Vec<String> {
    let mut probes = Vec::new();
    for line in verdicts.iter().flat_map(|verdict| said(verdict, "@@HOOK")) {
        let mut words = line.split('\t');
        if words.next() == Some(command)
            && let Some(probe) = words.next()
            && !probes.iter().any(|known| known == probe)
        {
            probes.push(probe.to_owned());
        }
    }
    probes
}

fn hook(verdict: &Verdict, command: &str, probe: &str) -> Option<String> {
    said(verdict, "@@HOOK").find_map(|line| {
        let mut words = line.split('\t');
        let found = words.next() == Some(command) && words.next() == Some(probe);
        words.next().filter(|_| found).map(short)
    })
}

/// Names many hooks of one kind by their kind.
fn short(hooks: &str) -> String {
    const CALLS: [&str; 2] = ["fexit/__x64_sys_", "tracepoint/syscalls/sys_exit_"];
    let word = hooks.starts_with(char::is_lowercase) && hooks.contains('/');
    match CALLS.into_iter().find(|calls| hooks.starts_with(calls)) {
        Some(calls) => format!("`{calls}*` ({})", hooks.split(", ").count()),
        None if word => format!("`{hooks}`"),
        None => hooks.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn many_calls_are_one_word_and_sentences_stay() {
        let calls = "fexit/__x64_sys_mmap, fexit/__x64_sys_munmap";
        assert_eq!(short(calls), "`fexit/__x64_sys_*` (2)");
        let event = "tracepoint/syscalls/sys_exit_brk";
        assert_eq!(short(event), "`tracepoint/syscalls/sys_exit_*` (1)");
        assert_eq!(short("iter/task, iter/task_vma"), "`iter/task, iter/task_vma`");
        assert_eq!(short("does not run: no folio.index"), "does not run: no folio.index");
    }
}
