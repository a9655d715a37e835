//! What memtrace reads beside the records of the probes: of `/proc`, of the kernel's books, of
//! allocators. Records and facts, in their order, are all that a report is made of; a trace file keeps
//! both.

use memtrace_common::{Ledger, Region};
use serde::{Deserialize, Serialize};

use super::{
    Model, SpaceId,
    build::Residency,
    change::{Change, What},
    process::FaultCounts,
    report::{Host, ProbeReport, Stacks},
    space::Afterlife,
};

/// Something that was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// A process will execute a command: only its `tgid` is known.
    Expected {
        /// What users call its PID.
        tgid: u32,
    },
    /// What `/proc` says of a process that ran before it was followed.
    Found {
        /// What users call its PID.
        tgid: u32,
        /// Its name.
        comm: String,
        /// Its executable.
        exe: Option<String>,
        /// Minor and major faults until then.
        faults: (u64, u64),
    },
    /// Minor and major faults of a process, as last read.
    Faults {
        /// What users call its PID.
        tgid: u32,
        /// How many.
        faults: (u64, u64),
    },
    /// Records were lost: every region map is in doubt.
    Lost,
    /// The regions of an address space, before which so many write sections had begun.
    #[serde(skip)]
    Regions {
        /// Address of its `mm_struct`.
        mm: u64,
        /// In ascending order.
        regions: Vec<Region>,
        /// Write sections.
        sections: u64,
    },
    /// The kernel's books of an address space that lives, or that ended not long ago.
    #[serde(skip)]
    Books {
        /// Which.
        space: SpaceId,
        /// What was counted.
        ledger: Box<Ledger>,
        /// What became of its frames.
        afterlife: Box<Afterlife>,
    },
    /// What a process has resident, and what its allocators hold.
    Resident {
        /// What users call its PID.
        tgid: u32,
        /// What was read.
        residency: Box<Residency>,
    },
    /// What a process held at a time; regions are not kept.
    Memory {
        /// When.
        time_ns: u64,
        /// What users call its PID.
        tgid: u32,
        /// As in [`What::Memory`].
        resident: Option<u64>,
        /// Of it.
        live: Option<u64>,
        /// Of it.
        free_resident: Option<u64>,
        /// Of it.
        lazy_free: Option<u64>,
        /// What a trim would give back.
        trimmable: Option<u64>,
    },
    /// Who allocated and who freed.
    Stacks(Stacks),
    /// Where was measured, and by what.
    Machine {
        /// The machine.
        host: Host,
        /// The probes and what became of them.
        probes: Vec<ProbeReport>,
    },
}

impl Fact {
    /// Returns what is kept of a line of the live stream that no record makes.
    pub fn of(change: &Change) -> Option<Self> {
        let &What::Memory { resident, live, free_resident, lazy_free, trimmable, .. } =
            &change.what
        else {
            return None;
        };
        let &Change { time_ns, tgid, .. } = change;
        Some(Self::Memory { time_ns, tgid, resident, live, free_resident, lazy_free, trimmable })
    }

    /// Returns the line again.
    pub fn change(&self) -> Option<Change> {
        let &Self::Memory { time_ns, tgid, resident, live, free_resident, lazy_free, trimmable } =
            self
        else {
            return None;
        };
        let regions = Vec::new();
        let what = What::Memory { resident, live, free_resident, lazy_free, trimmable, regions };
        Some(Change { time_ns, tgid, tid: tgid, what })
    }
}

impl Model {
    /// Takes in a fact. What is about the report alone (residency, stacks, the machine) changes
    /// nothing here.
    pub fn learn(&mut self, fact: &Fact) {
        match fact {
            &Fact::Expected { tgid } => {
                self.add_process(tgid, 0, Vec::new());
            }
            Fact::Found { tgid, comm, exe, faults } => {
                if let Some(process) = self.process_mut(*tgid) {
                    process.faults = FaultCounts { before: *faults, ..process.faults };
                    process.comm.clone_from(comm);
                    process.exe.clone_from(exe);
                }
            }
            &Fact::Faults { tgid, faults } => {
                if let Some(process) = self.process_mut(tgid) {
                    process.faults.now = Some(faults);
                }
            }
            Fact::Lost => self.lost_records(),
            Fact::Regions { mm, regions, sections } => {
                self.replace_regions(*mm, regions, *sections);
            }
            Fact::Books { space: SpaceId(at), ledger, afterlife } => {
                if let Some(space) = self.spaces.get_mut(*at) {
                    space.ledger = **ledger;
                    space.afterlife = **afterlife;
                }
            }
            Fact::Resident { .. }
            | Fact::Memory { .. }
            | Fact::Stacks(_)
            | Fact::Machine { .. } => {}
        }
    }
}
