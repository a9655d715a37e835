//! What a report says of this machine, and when it is; what left every process of it.

use anyhow::{Context as _, Result};
use memtrace_common::ProbeStats;
use nix::{
    sys::utsname::uname,
    time::{ClockId, clock_gettime},
};

use crate::{
    model::{
        build::Surroundings,
        machine::{
            MachineReport, MachineSurroundings, MachineWindow, Reading, Settled, Top,
            machine_report,
        },
        region_map::PAGE,
        report::{Evidence, Host},
    },
    probe::attach::Probes,
    source::{
        cgroups::Cgroups,
        settings::{INIT_ON_ALLOC, INIT_ON_FREE, Kernel},
    },
};

/// Returns what a report says of this machine.
pub(super) fn host() -> Result<Host> {
    let system = uname().context("cannot ask for the kernel's name")?;
    let settings = Kernel::read();
    Ok(Host {
        kernel: system.release().to_string_lossy().into_owned(),
        arch: system.machine().to_string_lossy().into_owned(),
        page_size: PAGE,
        init_on_alloc: settings.is_on(INIT_ON_ALLOC),
        init_on_free: settings.is_on(INIT_ON_FREE),
    })
}

/// Returns what a report without probes says beside the model.
pub(super) fn surroundings(start_ns: u64) -> Result<Surroundings> {
    Ok(Surroundings {
        host: host()?,
        start_ns,
        end_ns: now_ns()?,
        stats: ProbeStats::default(),
        missed: 0,
        probes: Vec::new(),
    })
}

/// Returns the time on `CLOCK_BOOTTIME`.
pub(super) fn now_ns() -> Result<u64> {
    clock_ns(ClockId::CLOCK_BOOTTIME)
}

/// Returns the CPU time of this thread.
pub(super) fn cpu_ns() -> Result<u64> {
    clock_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn clock_ns(clock: ClockId) -> Result<u64> {
    let now = clock_gettime(clock).context("cannot read the clock")?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Reports on every process of the machine.
pub(super) struct Machine {
    host: Host,
    cgroups: Cgroups,
    settled: Settled,
    start_ns: u64,
}

impl Machine {
    /// Counting begins now.
    pub(super) fn new() -> Result<Self> {
        let (cgroups, settled) = (Cgroups::default(), Settled::default());
        Ok(Self { host: host()?, cgroups, settled, start_ns: now_ns()? })
    }

    /// Reads the books, and makes room for those of the programs that end next.
    pub(super) fn read(&mut self, probes: &mut Probes) -> Result<Reading> {
        let mut reading = probes.machine()?;
        let due = self.settled.due(&reading.ended, probes.sums_room()?);
        self.settled.add_to(&mut reading);
        for owner in due {
            if let Some(sum) = probes.take_sum(owner)? {
                self.settled.take(owner, &sum);
            }
        }
        if self.settled.is_full() {
            let there = self.cgroups.still_there(self.settled.cgroups());
            self.settled.make_room(|cgroup| there.contains(&cgroup));
        }
        Ok(reading)
    }

    /// Returns when counting began.
    pub(super) const fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// Reports on a reading of the books and the one before, which were made at these times, with so
    /// many rows at most.
    pub(super) fn report(
        &mut self,
        reading: &Reading,
        before: &Reading,
        evidence: Evidence,
        (interval_ns, end_ns): (u64, u64),
        top: Top,
    ) -> MachineReport {
        let owners = reading.spaces.iter().map(|space| space.owner.cgroup);
        let wanted = owners.chain(reading.ended.keys().map(|owner| owner.cgroup));
        let cgroups = self.cgroups.paths(&wanted.collect());
        let window = MachineWindow {
            evidence,
            start_ns: self.start_ns,
            interval_ns,
            end_ns,
            untracked: reading.untracked,
            complete: reading.untracked == 0,
        };
        let host = self.host.clone();
        machine_report(reading, before, MachineSurroundings { host, window, top, cgroups })
    }
}
