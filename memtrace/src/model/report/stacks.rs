//! Who allocated and who freed, who gave pages up and who faulted, by call stacks (`--stacks`).

use serde::{Deserialize, Serialize};

/// Whose call stacks were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StackKind {
    /// Those that allocate and free, some of them.
    Allocations,
    /// Those that give pages up, in system calls.
    Reclaimed,
    /// Those that fault.
    Faults,
}

impl StackKind {
    /// What older traces have.
    fn only_allocations() -> Vec<Self> {
        vec![Self::Allocations]
    }
}

/// What was sampled and summed. What was allocated and freed is an estimate: a sampled allocation
/// stands for those around it. The others are exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stacks {
    /// Whose, in the order in which they were asked for.
    #[serde(default = "StackKind::only_allocations")]
    pub kinds: Vec<StackKind>,
    /// One byte of so many that were allocated was sampled, about; like the next three and `cost`
    /// `None` when allocations were not.
    pub sample_bytes: Option<u64>,
    /// Calls that allocate, of all sampled processes.
    pub allocations: Option<u64>,
    /// Calls that free.
    pub frees: Option<u64>,
    /// Allocations that were sampled.
    pub samples: Option<u64>,
    /// Sampled allocations and frees for which there was no room: the figures are too small.
    pub lost: u64,
    /// Calls that gave pages up, for which there was no room: they are in no row.
    pub lost_reclaims: u64,
    /// Page faults for which there was no room.
    pub lost_faults: u64,
    /// Call stacks that could not be kept: their bytes have no frames.
    pub lost_stacks: u64,
    /// What a call costs, as measured before.
    pub cost: Option<SamplingCost>,
    /// What was probed.
    pub functions: Vec<ProbedFunction>,
    /// The sampled processes, in the order in which they were seen.
    pub processes: Vec<ProcessStacks>,
}

/// What the probes add to a call, in nanoseconds, as measured on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingCost {
    /// To one that allocates.
    pub allocation_ns: u64,
    /// To one that frees.
    pub free_ns: u64,
    /// More, to a function of which no cheap instruction was found.
    pub stepped_ns: u64,
}

/// A function of an allocator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbedFunction {
    /// Its symbol.
    pub name: String,
    /// The file that has it.
    pub file: String,
    /// The probe is on an instruction that the kernel emulates; else it costs several times as much.
    pub emulated: bool,
}

/// What one process did. What it allocated and freed is counted since its last exec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessStacks {
    /// What users call its PID.
    pub tgid: u32,
    /// Allocated in the window and not freed; like the next `None` when it was not sampled.
    pub retained: Option<u64>,
    /// Allocated in the window and freed in it.
    pub freed: Option<u64>,
    /// Of what was freed: not given out again, and on pages that are resident. An upper bound of what
    /// the allocator keeps of it: it may have given out a part. `None` when it exited.
    pub freed_resident_estimate: Option<u64>,
    /// What is retained by the call stack that allocated it, the most bytes first.
    pub retained_by: Vec<RetainedBy>,
    /// What was freed by the call stack that freed it: first where most may still be resident, then
    /// where most was freed.
    pub freed_by: Vec<FreedBy>,
    /// What was given up in system calls by the call stack that did, the most bytes first; `None` when
    /// nobody summed it.
    pub reclaimed_by: Option<Vec<ReclaimedBy>>,
    /// Page faults by the call stack that had them, the most first; `None` when nobody counted them.
    pub faulted_by: Option<Vec<FaultedBy>>,
}

/// What a call stack allocated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetainedBy {
    /// Retained.
    pub bytes: u64,
    /// Sampled allocations that this rests on.
    pub samples: u64,
    /// The caller of the allocator first; empty when the stack could not be kept.
    pub frames: Vec<Frame>,
}

/// What a call stack freed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FreedBy {
    /// Freed.
    pub bytes: u64,
    /// See [`ProcessStacks::freed_resident_estimate`].
    pub resident_estimate: Option<u64>,
    /// Sampled frees that this rests on.
    pub samples: u64,
    /// The caller of the allocator first; empty when the stack could not be kept.
    pub frames: Vec<Frame>,
}

/// What a call stack gave up by one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReclaimedBy {
    /// The path, as in [`super::Reclaimed::by_path`].
    pub path: String,
    /// Calls that detached or freed something.
    pub calls: u64,
    /// Resident bytes that they detached.
    pub zapped: u64,
    /// Bytes that the page allocator got back inside of them; `None` below
    /// [`super::Evidence::Frames`].
    pub freed: Option<u64>,
    /// The function that made the system call first; empty when the stack could not be kept.
    pub frames: Vec<Frame>,
}

impl ReclaimedBy {
    /// Returns the bytes that came back, or, where nobody counted them, those that were detached.
    pub fn bytes(&self) -> u64 {
        self.freed.unwrap_or(self.zapped)
    }
}

/// The page faults of a call stack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultedBy {
    /// How many.
    pub faults: u64,
    /// The function that faulted, or made the system call that did, first; empty when the stack could
    /// not be kept.
    pub frames: Vec<Frame>,
}

/// A frame of a call stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    /// Its function, `None` when no symbol is known.
    pub function: Option<String>,
    /// The file with its code.
    pub file: Option<String>,
    /// Where in that file the call is, hexadecimal.
    pub offset: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_trace_has_of_allocations_is_read() {
        let older = r#"{"sample_bytes":4096,"allocations":3,"frees":2,"samples":1,"lost":0,
            "lost_stacks":0,"cost":{"allocation_ns":1,"free_ns":2,"stepped_ns":3},"functions":[],
            "processes":[{"tgid":7,"retained":10,"freed":5,"freed_resident_estimate":null,
            "retained_by":[],"freed_by":[]}]}"#;
        let stacks: Stacks = serde_json::from_str(older).expect("it is read");
        assert_eq!(stacks.kinds, [StackKind::Allocations]);
        assert_eq!((stacks.sample_bytes, stacks.samples), (Some(4096), Some(1)));
        let process = &stacks.processes[0];
        assert_eq!((process.retained, process.freed), (Some(10), Some(5)));
        assert_eq!((&process.reclaimed_by, &process.faulted_by), (&None, &None));
    }
}
