//! Who allocated and who freed, by sampled call stacks (`--stacks`).

use serde::{Deserialize, Serialize};

/// What was sampled. Every figure in bytes is an estimate: a sampled allocation stands for those
/// around it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stacks {
    /// One byte of so many that were allocated was sampled, about.
    pub sample_bytes: u64,
    /// Calls that allocate, of all sampled processes.
    pub allocations: u64,
    /// Calls that free.
    pub frees: u64,
    /// Allocations that were sampled.
    pub samples: u64,
    /// Sampled allocations and frees for which there was no room: the figures are too small.
    pub lost: u64,
    /// Call stacks that could not be kept: their bytes have no frames.
    pub lost_stacks: u64,
    /// What a call costs, as measured before.
    pub cost: SamplingCost,
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

/// What one process allocated and freed since it was sampled and since its last exec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessStacks {
    /// What users call its PID.
    pub tgid: u32,
    /// Allocated in the window and not freed.
    pub retained: u64,
    /// Allocated in the window and freed in it.
    pub freed: u64,
    /// Of what was freed: not given out again, and on pages that are resident. An upper bound of what
    /// the allocator keeps of it: it may have given out a part. `None` when it exited.
    pub freed_resident_estimate: Option<u64>,
    /// What is retained by the call stack that allocated it, the most bytes first.
    pub retained_by: Vec<RetainedBy>,
    /// What was freed by the call stack that freed it: first where most may still be resident, then
    /// where most was freed.
    pub freed_by: Vec<FreedBy>,
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
