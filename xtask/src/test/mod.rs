//! `cargo xtask test`: everything that this machine can check, and an account of what it cannot.

mod step;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use self::step::Steps;
use crate::{
    command::read,
    workspace::{Workspace, in_ci},
};

/// The test target that needs root and a kernel to trace.
const KERNEL_TESTS: &str = "kernel";
/// Never built for the machine itself.
const PROBES: &str = "memtrace-ebpf";

/// Runs every step, says what became of each, and fails when one failed.
///
/// Where the environment has `CI=true`, what could not run counts as failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let targets = test_targets(workspace)?;
    let mut steps = Steps::new(workspace);
    steps.check("format", &["fmt", "--all", "--check"], &[]);
    steps.check(
        "clippy",
        &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"],
        &[],
    );
    let mut tests = vec!["test", "--workspace", "--exclude", PROBES, "--no-fail-fast"];
    tests.extend(["--lib", "--bins"]);
    for target in targets.iter().filter(|target| *target != KERNEL_TESTS) {
        tests.extend(["--test", target]);
    }
    steps.tests("tests", &tests);
    steps.check(
        "examples in the docs",
        &["test", "--workspace", "--exclude", PROBES, "--doc"],
        &[],
    );
    steps.check(
        "docs",
        &["doc", "--workspace", "--no-deps", "--quiet"],
        &[("RUSTDOCFLAGS", "-Dwarnings")],
    );
    let why_not = if targets.iter().any(|target| target == KERNEL_TESTS) {
        cannot_trace()
    } else {
        Some(format!("memtrace has no test target `{KERNEL_TESTS}`"))
    };
    match why_not {
        None => steps.tests(
            "kernel tests",
            &[
                "test",
                "--release",
                "--package",
                "memtrace",
                "--test",
                KERNEL_TESTS,
                "--",
                "--test-threads=1",
                "--color",
                "never",
            ],
        ),
        Some(why) => steps.could_not("kernel tests", &why),
    }
    let bad = steps.finish(in_ci());
    if bad > 0 {
        bail!("{bad} of the steps above did not pass");
    }
    Ok(())
}

/// Says why the kernel tests cannot run here, if they cannot.
fn cannot_trace() -> Option<String> {
    // SAFETY: geteuid cannot fail and touches no memory
    if unsafe { libc::geteuid() } != 0 {
        return Some("they need root".into());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF (/sys/kernel/btf/vmlinux)".into());
    }
    let tracefs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    if !tracefs.iter().any(|folder| fs::exists(format!("{folder}/events")).unwrap_or(false)) {
        let how = "mount -t tracefs tracefs /sys/kernel/tracing";
        return Some(format!("tracefs is not mounted: run `{how}`"));
    }
    None
}

/// Returns the names of the workspace's integration tests, without memtrace-ebpf's.
fn test_targets(workspace: &Workspace) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        targets: Vec<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let json = read(workspace.cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&json).context("cannot read cargo's metadata")?;
    let mut names: Vec<String> = metadata
        .packages
        .into_iter()
        .filter(|package| package.name != PROBES)
        .flat_map(|package| package.targets)
        .filter(|target| target.kind == ["test"])
        .map(|target| target.name)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}
