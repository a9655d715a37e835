//! What the kernels said, for people.

use std::time::Duration;

use super::{fetch::Kernel, kernels::Line, outcome::Outcome, qemu::Run};
use crate::libtest::{self, Tests};

/// How many lines of a dead guest's kernel log are shown.
const LOG_LINES: usize = 60;

/// One kernel's result.
#[derive(Clone)]
pub(super) struct Verdict {
    pub(super) line: Line,
    pub(super) release: String,
    counts: Counts,
    elapsed: Duration,
    /// Why this is a failure; empty if it is none.
    pub(super) complaints: Vec<String>,
    /// Did the machine itself end badly, so that its log is worth a look?
    machine_failed: bool,
    run: Run,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Verdict {
    /// Judges a run by its outcome and, where it ran tests, by what each of them said.
    pub(super) fn new(
        kernel: &Kernel,
        outcome: Outcome,
        run: Run,
        elapsed: Duration,
        has_tests: bool,
    ) -> Self {
        let machine_failed = matches!(outcome, Outcome::TimedOut | Outcome::Died { .. });
        let mut complaints = Vec::new();
        let passed = match outcome {
            Outcome::Passed => true,
            Outcome::Failed(status) => {
                complaints.push(format!("the guest's program ended with {status}"));
                false
            }
            Outcome::TimedOut => {
                complaints.push("it did not end in time".into());
                false
            }
            Outcome::Died { ready, why } => {
                let when = if ready { "while it ran the program" } else { "before it was ready" };
                complaints.push(format!("the machine died {when}: {why}"));
                false
            }
        };
        let counts = if has_tests {
            let tests = Tests::parse(&run.output);
            complaints.extend(complaints_about(&tests, passed));
            Counts {
                passed: tests.count(|outcome| *outcome == libtest::Outcome::Passed),
                failed: tests.count(|outcome| {
                    matches!(outcome, libtest::Outcome::Failed | libtest::Outcome::Unfinished)
                }),
                ignored: tests.count(|outcome| matches!(outcome, libtest::Outcome::Ignored(_))),
            }
        } else {
            Counts { passed: usize::from(passed), failed: usize::from(!passed), ignored: 0 }
        };
        let (line, release) = (kernel.line.clone(), kernel.release.clone());
        Self { line, release, counts, elapsed, complaints, machine_failed, run }
    }

    /// Returns what the guest printed.
    pub(super) fn output(&self) -> &str {
        &self.run.output
    }

    /// Returns the verdict as one line of the table.
    pub(super) fn line(&self) -> String {
        let Counts { passed, failed, ignored } = self.counts;
        format!(
            "{:8} {:32} {passed:4} passed {failed:4} failed {ignored:4} ignored {:6.1} s  {}",
            self.line.to_string(),
            self.release,
            self.elapsed.as_secs_f64(),
            if self.complaints.is_empty() { "ok" } else { "FAILED" }
        )
    }
}

/// Prints what went wrong, then a line for each kernel, then the sum.
pub(super) fn print(verdicts: &[Verdict], missing: &[Line]) {
    for verdict in verdicts.iter().filter(|verdict| !verdict.complaints.is_empty()) {
        let Run { output, kernel_log, complaints, .. } = &verdict.run;
        println!("\n==== {} ({}): its output", verdict.line, verdict.release);
        print!("{output}");
        if !verdict.machine_failed {
            continue;
        }
        println!("\n==== {}: the end of its kernel log", verdict.line);
        let lines: Vec<_> = kernel_log.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
        if !complaints.is_empty() {
            println!("==== {}: QEMU's own words\n{complaints}", verdict.line);
        }
    }
    println!();
    let mut sum = Counts::default();
    for verdict in verdicts {
        let Counts { passed, failed, ignored } = verdict.counts;
        sum.passed += passed;
        sum.ignored += ignored;
        // a kernel may fail without a failed test: that must not read as 0 failed
        sum.failed += failed.max(usize::from(!verdict.complaints.is_empty()));
        println!("{}", verdict.line());
        for complaint in &verdict.complaints {
            println!("         - {complaint}");
        }
    }
    for line in missing {
        println!(
            "{:8} NOT RUN: apt no longer has this kernel (it is not required)",
            line.to_string()
        );
    }
    let Counts { passed, failed, ignored } = sum;
    println!("\nkernels: {passed} passed, {failed} failed, {ignored} skipped");
}

fn complaints_about(tests: &Tests, passed: bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for test in &tests.tests {
        match test.outcome {
            libtest::Outcome::Failed => complaints.push(format!("{} failed", test.name)),
            libtest::Outcome::Unfinished => complaints.push(format!("{} did not end", test.name)),
            libtest::Outcome::Passed | libtest::Outcome::Ignored(_) => {}
        }
    }
    for (name, why) in tests.required_but_ignored() {
        complaints.push(format!("{name} is required and was ignored: {why}"));
    }
    if !passed {
        return complaints;
    }
    let read = [
        tests.count(|outcome| *outcome == libtest::Outcome::Passed),
        tests.count(|outcome| *outcome == libtest::Outcome::Failed),
        tests.count(|outcome| matches!(outcome, libtest::Outcome::Ignored(_))),
    ];
    let libtest::Total { passed, failed, ignored } = tests.total;
    if tests.results != 1 {
        complaints.push("the tests printed no closing line".into());
    } else if read != [passed, failed, ignored] {
        complaints.push(format!(
            "the closing line says {passed} passed, {failed} failed, {ignored} ignored, but the \
             lines before it {}, {}, {}",
            read[0], read[1], read[2]
        ));
    } else if passed == 0 {
        complaints.push("no test ran".into());
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(output: &str) -> Vec<String> {
        complaints_about(&Tests::parse(output), true)
    }

    #[test]
    fn a_clean_run_gives_no_complaint() {
        let output = "test a ... ok\ntest b ... ignored (optional: no fexit)\n\
                      test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(complaints(output), Vec::<String>::new());
    }

    #[test]
    fn each_way_to_miss_a_test_is_a_complaint() {
        for (output, expected) in [
            ("test a ... ok\n", "the tests printed no closing line"),
            ("test result: ok. 0 passed; 0 failed; 0 ignored; 0 m", "no test ran"),
            (
                "test a ... ok\ntest b ... ignored (no DAMON)\n\
                 test result: ok. 1 passed; 0 failed; 1 ignored; 0 m",
                "b is required and was ignored: no DAMON",
            ),
            (
                "test a ... ok\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 m",
                "the closing line says 2 passed, 0 failed, 0 ignored, but the lines before it 1, 0, 0",
            ),
        ] {
            assert_eq!(complaints(output), [expected]);
        }
    }

    #[test]
    fn a_test_that_died_with_its_machine_is_named() {
        let tests = Tests::parse("test a ... ok\ntest b ... ");
        assert_eq!(complaints_about(&tests, false), ["b did not end"]);
    }
}
