//! One trace of all rows in one mode: each in a process of its own, one after the other, so that
//! it is known whose figures are whose.

use std::{collections::BTreeMap, fs};

use libtest_mimic::Failed;
use serde_json::Value;

use super::{
    mode::Setting,
    table::{End, ROWS, Row, Whose},
};
use crate::{
    driver::{Attached, PAGE, Report, Started, kernel, size},
    settle::settle,
};

/// What came of all rows in one mode.
pub(super) struct Trace {
    pub(super) report: Report,
    programs: BTreeMap<&'static str, Result<Done, Failed>>,
    started: Vec<u32>,
}

/// A program that did its work.
#[derive(Clone, Copy)]
pub(super) struct Done {
    pid: u32,
    pub(super) own: Own,
}

/// Pages that a process has at its end besides those that the row is about.
#[derive(Clone, Copy, Default)]
pub(super) struct Own {
    pub(super) anon: u64,
    pub(super) file: u64,
}

/// A row's program, and another one where it takes two.
struct Running {
    program: Started,
    releaser: Option<Started>,
}

/// Tells whether the kernel has what a row needs: `process_mrelease` is of 5.15.
pub(super) fn is_known(row: &Row) -> Result<bool, Failed> {
    Ok(row.end != End::Released || kernel()? >= (5, 15))
}

impl Trace {
    pub(super) fn of_all(setting: &Setting) -> Result<Self, Failed> {
        let mut running = Vec::new();
        for row in ROWS {
            if is_known(row)? {
                running.push((row, Running::start(row, setting)?));
            }
        }
        let started: Vec<u32> = running.iter().flat_map(|(_, running)| running.pids()).collect();
        let attached = Attached::new(&["--follow"], &started)?;
        let mut programs = BTreeMap::new();
        // They stay until the trace ends: what a program still does at its end is not the row's.
        for (row, running) in &mut running {
            settle();
            programs.insert(row.name, running.work(row));
            settle();
        }
        Ok(Self { report: attached.stop()?, programs, started })
    }

    pub(super) fn program(&self, row: &Row) -> Result<Done, Failed> {
        match &self.programs[row.name] {
            Ok(done) => Ok(*done),
            Err(failed) => Err(failed.message().unwrap_or("it failed").into()),
        }
    }

    /// Returns a program's process, or the only one that none of us started: there is one fork.
    pub(super) fn process(&self, done: Done, whose: Whose) -> Result<&Value, Failed> {
        let is_it = |process: &&Value| match whose {
            Whose::Program => process["tgid"] == done.pid,
            Whose::Child => !self.started.iter().any(|pid| process["tgid"] == *pid),
        };
        Ok(self.report.processes().iter().find(is_it).ok_or("it is not in the report")?)
    }
}

impl Running {
    fn start(row: &Row, setting: &Setting) -> Result<Self, Failed> {
        let count = row.pages.to_string();
        let cpus: Vec<String> = setting.cpus.iter().map(usize::to_string).collect();
        let start = |program: &str| {
            Started::new(&["case", program, &count, setting.huge.name(), &cpus.join(",")])
        };
        let releaser = (row.end == End::Released).then(|| start("kill_and_release")).transpose()?;
        Ok(Self { program: start(row.program)?, releaser })
    }

    fn pids(&self) -> impl Iterator<Item = u32> {
        [Some(&self.program), self.releaser.as_ref()].into_iter().flatten().map(Started::pid)
    }

    fn work(&mut self, row: &Row) -> Result<Done, Failed> {
        let Self { program, releaser } = self;
        let pid = program.pid();
        program.go()?;
        if row.end == End::Said {
            program.expect("stopped")?;
            return Ok(Done { pid, own: Own::default() });
        }
        program.expect("held")?;
        let own = Own::of(pid, row.pages)?;
        match releaser {
            Some(releaser) => {
                releaser.tell(&format!("go\n{pid}"))?;
                releaser.expect("stopped")?;
            }
            None if row.end == End::Killed => program.kill()?,
            None => program.go()?,
        }
        program.wait()?;
        Ok(Done { pid, own })
    }
}

impl Own {
    /// Asks the kernel's page tables, not its counters.
    fn of(pid: u32, besides: u64) -> Result<Self, Failed> {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&file)?;
        let pages = |key: &str| {
            let bytes = size(&text, key).ok_or(format!("no {key} in {file}"))?;
            Ok::<u64, Failed>(bytes / PAGE)
        };
        let (all, anon) = (pages("Rss:")?, pages("Anonymous:")?);
        let own =
            anon.checked_sub(besides).ok_or(format!("{anon} of {besides} anonymous pages"))?;
        Ok(Self { anon: own, file: all - anon })
    }
}
