//! Reads the output of libtest and of libtest-mimic in their default format.
//!
//! A test that prints while it runs tears its own line apart, so an outcome is looked for up to
//! the next test's line.

/// What a test runner said of its tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tests {
    /// Each test that was announced, in order.
    pub(crate) tests: Vec<Test>,
    /// The sum of the closing `test result:` lines.
    pub(crate) total: Total,
    /// How many closing lines there were: one for each test binary that came to its end.
    pub(crate) results: usize,
}

/// One test and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// Did not run, and why (empty where no reason was printed).
    Ignored(String),
    /// Was running when the output ended.
    Unfinished,
}

/// The counts of one or more closing lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
}

impl Tests {
    /// Reads the whole output of one or more test binaries.
    pub(crate) fn parse(output: &str) -> Self {
        let mut all = Self::default();
        let mut running = false;
        for line in output.lines() {
            let line = line.trim_end_matches('\r');
            if let Some((name, rest)) = announced(line) {
                let outcome = outcome_at_end(rest).unwrap_or(Outcome::Unfinished);
                all.tests.push(Test { name: name.to_owned(), outcome });
                running = true;
            } else if let Some(total) = closing(line) {
                all.total.add(total);
                all.results += 1;
                running = false;
            } else if line == "failures:" {
                running = false;
            } else if running
                && let Some(outcome) = outcome_at_end(line)
                && let Some(test) = all.tests.last_mut()
            {
                test.outcome = outcome;
            }
        }
        all
    }

    /// Counts the tests whose outcome the given function accepts.
    pub(crate) fn count(&self, accept: impl Fn(&Outcome) -> bool) -> usize {
        self.tests.iter().filter(|test| accept(&test.outcome)).count()
    }

    /// Returns each test that did not run although it should have, and why.
    ///
    /// Only a reason that starts with `optional:` excuses a test.
    pub(crate) fn required_but_ignored(&self) -> Vec<(&str, &str)> {
        self.tests
            .iter()
            .filter_map(|test| match &test.outcome {
                Outcome::Ignored(why) if !why.starts_with("optional:") => {
                    Some((test.name.as_str(), if why.is_empty() { "no reason given" } else { why }))
                }
                Outcome::Ignored(_) | Outcome::Passed | Outcome::Failed | Outcome::Unfinished => {
                    None
                }
            })
            .collect()
    }
}

impl Total {
    /// Adds another count to this one.
    pub(crate) fn add(&mut self, other: Self) {
        let Self { passed, failed, ignored } = other;
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
    }
}

/// Splits `test NAME ... REST`; libtest-mimic pads the name with blanks.
fn announced(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ...")?;
    let name = name.trim_end();
    (!name.is_empty()).then_some((name, rest.trim()))
}

fn outcome_at_end(text: &str) -> Option<Outcome> {
    let last = text.rsplit(' ').next()?;
    if last.ends_with("FAILED") {
        return Some(Outcome::Failed);
    }
    if last == "ok" {
        return Some(Outcome::Passed);
    }
    // libtest writes `ignored, reason`, libtest-mimic `ignored (reason)`
    if let Some((_, why)) = text.split_once("ignored (") {
        return why.strip_suffix(')').map(|why| Outcome::Ignored(why.to_owned()));
    }
    if let Some(why) = text.strip_prefix("ignored, ") {
        return Some(Outcome::Ignored(why.to_owned()));
    }
    (last == "ignored").then(|| Outcome::Ignored(String::new()))
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
pub(crate) fn closing(line: &str) -> Option<Total> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| {
        counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
    };
    Some(Total { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIMIC: &str = "
running 5 tests
test maps_match         ... ok
test faults_are_counted ... a stray line
and one without an end FAILED
test fexit_attaches     ... ignored (optional: this kernel refuses trampolines)
test damon_is_read      ... ignored (no DAMON)
test old                ... ignored

failures:

---- faults_are_counted ----
expected 4 ok

failures:
    faults_are_counted

test result: FAILED. 1 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.1s
";

    #[test]
    fn each_outcome_is_read_even_behind_stray_output() {
        let all = Tests::parse(MIMIC);
        let outcomes: Vec<_> = all.tests.iter().map(|test| test.outcome.clone()).collect();
        assert_eq!(
            outcomes,
            [
                Outcome::Passed,
                Outcome::Failed,
                Outcome::Ignored("optional: this kernel refuses trampolines".into()),
                Outcome::Ignored("no DAMON".into()),
                Outcome::Ignored(String::new()),
            ]
        );
        assert_eq!(all.tests[0].name, "maps_match");
        assert_eq!(all.total, Total { passed: 1, failed: 1, ignored: 3 });
        assert_eq!(all.results, 1);
    }

    #[test]
    fn only_an_optional_test_may_be_ignored() {
        let all = Tests::parse(MIMIC);
        assert_eq!(
            all.required_but_ignored(),
            [("damon_is_read", "no DAMON"), ("old", "no reason given")]
        );
    }

    #[test]
    fn a_test_cut_off_is_unfinished() {
        let all = Tests::parse("running 2 tests\ntest first ... ok\r\ntest second ... some out");
        assert_eq!(all.tests[0].outcome, Outcome::Passed);
        assert_eq!(all.tests[1].outcome, Outcome::Unfinished);
        assert_eq!(all.results, 0);
    }

    #[test]
    fn libtests_own_reason_is_read() {
        let all = Tests::parse("test a::b ... ignored, needs root\n");
        assert_eq!(all.tests[0].outcome, Outcome::Ignored("needs root".into()));
    }

    #[test]
    fn closing_lines_add_up() {
        let line = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        let all = Tests::parse(&line.repeat(3));
        assert_eq!(all.total, Total { passed: 6, failed: 0, ignored: 3 });
        assert_eq!(all.results, 3);
    }
}
