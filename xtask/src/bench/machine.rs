//! What a table says of the machine that it was made on.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command::read;

/// A machine, as far as the figures depend on it.
pub(super) struct Machine {
    /// The kernel's version.
    pub(super) kernel: String,
    /// The hook that memory calls take: with fexit only those who call pay, otherwise everybody.
    pub(super) calls: String,
}

impl Machine {
    /// Asks the kernel for its version and memtrace for its hooks.
    pub(super) fn read(memtrace: &str) -> Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        // What a vendor adds to the version says nothing to others.
        let kernel = release.trim().split('-').next().unwrap_or_default().to_owned();
        let doctor = read(Command::new(memtrace).args(["doctor", "--format", "json"]))?;
        let calls = calls(&doctor).context("memtrace doctor names no hook for memory calls")?;
        Ok(Self { kernel, calls })
    }
}

/// Returns the hook of the memory calls in what `memtrace doctor --format json` said.
fn calls(doctor: &str) -> Option<String> {
    let report: Value = serde_json::from_str(doctor).ok()?;
    let probe =
        report["probes"].as_array()?.iter().find(|probe| probe["name"] == "memory calls")?;
    let hook = probe["hook"].as_str()?;
    // One hook for each call: their names say nothing more.
    let short = match hook.split_once('/') {
        Some((kind @ ("fexit" | "tracepoint"), _)) => kind,
        _ => hook,
    };
    Some(short.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_of_memory_calls_is_found_in_what_doctor_says() {
        let doctor = r#"{"probes": [{"name": "fork", "hook": "x"},
                                    {"name": "memory calls", "hook": "tp_btf/sys_exit"}]}"#;
        assert_eq!(calls(doctor).as_deref(), Some("tp_btf/sys_exit"));
        let fexit = doctor.replace("tp_btf/sys_exit", "fexit/__x64_sys_mmap, fexit/__x64_sys_brk");
        assert_eq!(calls(&fexit).as_deref(), Some("fexit"));
        let event = doctor.replace("tp_btf/sys_exit", "tracepoint/syscalls/sys_exit_mmap");
        assert_eq!(calls(&event).as_deref(), Some("tracepoint"));
        assert_eq!(calls("{}"), None);
    }
}
