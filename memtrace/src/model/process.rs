//! The traced processes. A process is its `tgid` *and* its start time.

use serde::{Deserialize, Serialize};

use super::SpaceId;

/// A traced process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// What users call its PID.
    pub tgid: u32,
    /// When it started, `CLOCK_BOOTTIME`.
    pub start_ns: u64,
    /// Its name.
    pub comm: String,
    /// Its executable.
    pub exe: Option<String>,
    /// How it ended, `None` while it runs: as in `wait(2)`'s status.
    pub exit_status: Option<u32>,
    /// The address spaces that it had, in order: exec gives it another.
    pub spaces: Vec<SpaceId>,
    /// Faults that it had before tracing began, and as last read.
    pub faults: FaultCounts,
}

/// Page faults of a process, as the kernel counts them over its whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCounts {
    /// Minor and major faults when tracing began.
    pub before: (u64, u64),
    /// Minor and major faults as last read, `None` before the first reading.
    pub now: Option<(u64, u64)>,
}

impl FaultCounts {
    /// Returns the minor and major faults in the window.
    pub fn in_window(&self) -> Option<(u64, u64)> {
        let ((minor, major), (minor_before, major_before)) = (self.now?, self.before);
        Some((minor.saturating_sub(minor_before), major.saturating_sub(major_before)))
    }
}

impl Process {
    /// Returns the address space that it has now, or had last.
    pub fn space(&self) -> Option<SpaceId> {
        self.spaces.last().copied()
    }

    /// Returns its exit code, or 128 and the signal that ended it.
    pub fn exit_code(&self) -> Option<i32> {
        self.exit_status.map(exit_code)
    }
}

/// Returns the exit code that a wait status stands for, or 128 and the signal.
pub fn exit_code(status: u32) -> i32 {
    let signal = status & 0x7f;
    let code = if signal == 0 { status >> 8 & 0xff } else { 128 + signal };
    code as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_from_an_exit_code() {
        assert_eq!(exit_code(3 << 8), 3);
        assert_eq!(exit_code(9), 137);
        assert_eq!(exit_code(11 | 0x80), 139);
    }
}
