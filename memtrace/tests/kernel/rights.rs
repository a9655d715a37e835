//! As few rights as memtrace takes, where a kernel refuses what it can do without.

use std::{collections::HashSet, fs, os::unix::process::CommandExt as _, process::Command};

use caps::{CapSet, Capability};
use libtest_mimic::{Failed, Trial};
use nix::sys::resource::{Resource, setrlimit};

use super::{
    driver::{Attached, Started, memtrace, trial},
    paths::N,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("rights::four_capabilities_are_enough_where_events_are_refused", few)]
}

/// The kernel's own setting, for as long as this lives at another value.
struct Paranoid(String);

impl Paranoid {
    const FILE: &str = "/proc/sys/kernel/perf_event_paranoid";

    fn at(level: &str) -> Result<Self, Failed> {
        let before = fs::read_to_string(Self::FILE)?;
        fs::write(Self::FILE, level)?;
        Ok(Self(before))
    }
}

impl Drop for Paranoid {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, &self.0);
    }
}

fn few() -> Result<(), Failed> {
    // Where Debian refuses events to all but `CAP_SYS_ADMIN`; elsewhere it is as 2.
    let _paranoid = Paranoid::at("3")?;
    let mut target = Started::new(&["hold_then_unmap"])?;
    let mut command = Command::new(memtrace());
    let kept = HashSet::from([
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_DAC_READ_SEARCH,
    ]);
    let rest = &caps::runtime::thread_all_supported() - &kept;
    let restrict = move || {
        // Kernels before 5.11 charge maps to it; elsewhere failing is harmless.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, u64::MAX, u64::MAX);
        for capability in &rest {
            // What it does not have here, it does not get when it is executed.
            caps::drop(None, CapSet::Bounding, *capability).map_err(std::io::Error::other)?;
        }
        Ok(())
    };
    // SAFETY: system calls alone, unless one fails.
    unsafe { command.pre_exec(restrict) };
    let attached = Attached::with(command, &[], &[target.pid()])?;
    target.go()?;
    target.expect("stopped")?;
    let report = attached.stop()?;
    report.check_complete()?;
    let gone = report.gone(report.process(), "munmap");
    if gone < N { Err(format!("{gone} pages by munmap, not {N}").into()) } else { Ok(()) }
}
