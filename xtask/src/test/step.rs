//! Runs steps one after the other, counts their tests and keeps account of all.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{run, shown},
    libtest::{Outcome, Tests, Total},
    workspace::Workspace,
};

/// The steps so far.
pub(super) struct Steps<'a> {
    workspace: &'a Workspace,
    steps: Vec<Step>,
    total: Total,
}

struct Step {
    name: String,
    state: State,
    elapsed: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Passed(String),
    Failed(String),
    CouldNot(String),
}

impl<'a> Steps<'a> {
    /// Starts with none.
    pub(super) fn new(workspace: &'a Workspace) -> Self {
        Self { workspace, steps: Vec::new(), total: Total::default() }
    }

    /// Runs a cargo command that passes or fails as a whole.
    pub(super) fn check(&mut self, name: &str, args: &[&str], environment: &[(&str, &str)]) {
        let mut cargo = self.workspace.cargo();
        cargo.args(args).envs(environment.iter().copied());
        self.step(name, |_| {
            run(&mut cargo)?;
            Ok(State::Passed(String::new()))
        });
    }

    /// Runs a cargo command that runs tests, and counts them. One that was ignored although it is
    /// required could not run.
    pub(super) fn tests(&mut self, name: &str, args: &[&str]) {
        let mut ignored = Vec::new();
        self.step(name, |steps| {
            let (tests, success) = steps.run_tests(args)?;
            ignored.extend(
                tests
                    .required_but_ignored()
                    .iter()
                    .map(|(test, why)| (format!("{name}: {test}"), (*why).to_owned())),
            );
            if success && tests.total.passed + tests.total.ignored == 0 {
                bail!("no test ran");
            }
            Ok(state_of(&tests, success))
        });
        for (test, why) in ignored {
            self.could_not(&test, &why);
        }
    }

    /// Takes down a step that could not run.
    pub(super) fn could_not(&mut self, name: &str, why: &str) {
        let state = State::CouldNot(why.to_owned());
        self.steps.push(Step { name: name.to_owned(), state, elapsed: Duration::ZERO });
    }

    /// Prints the account and returns how many steps count as failed.
    pub(super) fn finish(self, all_must_run: bool) -> usize {
        println!("\n==== what ran");
        let mut bad = 0;
        for Step { name, state, elapsed } in &self.steps {
            let (word, detail, is_bad) = match state {
                State::Passed(detail) => ("passed", detail, false),
                State::Failed(detail) => ("FAILED", detail, true),
                State::CouldNot(detail) => ("could not run", detail, all_must_run),
            };
            bad += usize::from(is_bad);
            let seconds = elapsed.as_secs_f64();
            println!("{name:22} {word:13} {seconds:6.1} s  {detail}");
        }
        let Total { passed, failed, ignored } = self.total;
        println!("\ntests: {passed} passed, {failed} failed, {ignored} skipped");
        bad
    }

    fn step(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<State>) {
        println!("\n==== {name}");
        let started = Instant::now();
        let state = work(self).unwrap_or_else(|error| State::Failed(format!("{error:#}")));
        self.steps.push(Step { name: name.to_owned(), state, elapsed: started.elapsed() });
    }

    fn run_tests(&mut self, args: &[&str]) -> Result<(Tests, bool)> {
        let mut cargo = self.workspace.cargo();
        cargo.args(args);
        let (output, success) = show_and_keep(&mut cargo)?;
        let tests = Tests::parse(&output);
        self.total.add(tests.total);
        Ok((tests, success))
    }
}

fn state_of(tests: &Tests, success: bool) -> State {
    let Total { passed, failed, ignored } = tests.total;
    let mut detail = format!("{passed} passed, {failed} failed, {ignored} ignored");
    for test in tests.tests.iter().filter(|test| test.outcome == Outcome::Failed) {
        detail.push_str("\n    - ");
        detail.push_str(&test.name);
    }
    if success && failed == 0 { State::Passed(detail) } else { State::Failed(detail) }
}

/// Runs a command, shows its standard output as it comes and keeps it.
fn show_and_keep(command: &mut Command) -> Result<(String, bool)> {
    let cannot = format!("cannot run {}", shown(command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| cannot.clone())?;
    let stdout = child.stdout.take().context("it has no output")?;
    let mut output = String::new();
    let mut line = Vec::new();
    let mut reader = BufReader::new(stdout);
    while reader.read_until(b'\n', &mut line).with_context(|| cannot.clone())? > 0 {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        output.push_str(&text);
        line.clear();
    }
    let status = child.wait().with_context(|| cannot)?;
    Ok((output, status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_do_not_compile_are_a_failure() {
        let tests = Tests::default();
        assert_eq!(state_of(&tests, false), State::Failed("0 passed, 0 failed, 0 ignored".into()));
    }

    #[test]
    fn what_could_not_run_is_bad_only_where_all_must_run() {
        let workspace = Workspace::find();
        let steps = || {
            let mut steps = Steps::new(&workspace);
            steps.could_not("kernel tests", "they need root");
            steps
        };
        assert_eq!(steps().finish(false), 0);
        assert_eq!(steps().finish(true), 1);
    }

    #[test]
    fn output_is_kept_whole() {
        let mut command = Command::new("printf");
        command.arg("one\ntwo");
        let (output, success) = show_and_keep(&mut command).expect("printf runs");
        assert_eq!((output.as_str(), success), ("one\ntwo", true));
    }
}
