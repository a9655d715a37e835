//! What a guest holds: vm-init, and memtrace with its kernel tests or one program. All static.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{Options, cpio::Archive};
use crate::{
    command::{run, shown},
    workspace::Workspace,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A root file system and what to expect of it.
pub(super) struct Guest {
    pub(super) initrd: Vec<u8>,
    /// Does it run tests, whose lines count, or some program?
    pub(super) has_tests: bool,
}

impl Guest {
    /// Builds the programs and packs them.
    pub(super) fn build(workspace: &Workspace, options: &Options) -> Result<Self> {
        println!("vm: building the guest's programs");
        let mut archive = Archive::default();
        for folder in ["dev", "proc", "sys", "run", "tmp", "root", "etc"] {
            archive.folder(folder);
        }
        let mut arguments = Vec::new();
        if let Some(program) = &options.program {
            build(workspace, &["--package", "xtask", "--bin", "vm-init"])?;
            put(&mut archive, "/bin/program", program)?;
            arguments.push("/bin/program".to_owned());
        } else {
            // one build, so that both are made from the same dependencies
            let packages = ["--package", "xtask", "--package", "memtrace"];
            build(
                workspace,
                &[&packages[..], &["--bin", "vm-init", "--bin", "memtrace"]].concat(),
            )?;
            put(&mut archive, "/bin/memtrace", &built(workspace, "memtrace"))?;
            put(&mut archive, "/bin/kernel-tests", &kernel_tests(workspace)?)?;
            arguments.extend(["/bin/kernel-tests", "--test-threads=1"].map(str::to_owned));
            arguments.extend(["--color", "never"].map(str::to_owned));
            arguments.extend(options.test.clone());
        }
        arguments.extend(options.args.iter().cloned());
        put(&mut archive, "/init", &built(workspace, "vm-init"))?;
        for file in &options.files {
            let (host, guest) =
                file.split_once(':').with_context(|| format!("--file {file}: write HOST:GUEST"))?;
            put(&mut archive, guest, Path::new(host))?;
        }
        if arguments.iter().any(|argument| argument.contains('\n')) {
            bail!("an argument has a line break");
        }
        archive.file("/vm/arguments", 0o644, arguments.join("\n").as_bytes());
        // a guest is ours: its tests may set the machine as they need it, and make a swap of its disk
        let environment = "MEMTRACE_BIN=/bin/memtrace\nMEMTRACE_GUEST=1\n\
                           MEMTRACE_SWAP=/dev/nvme0n1\nRUST_BACKTRACE=1\n";
        archive.file("/vm/environment", 0o644, environment.as_bytes());
        Ok(Self { initrd: archive.finish(), has_tests: options.program.is_none() })
    }
}

fn put(archive: &mut Archive, guest: &str, host: &Path) -> Result<()> {
    let bytes = fs::read(host).with_context(|| format!("cannot read {}", host.display()))?;
    archive.file(guest, 0o755, &bytes);
    Ok(())
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("vm")
}

fn built(workspace: &Workspace, name: &str) -> PathBuf {
    folder(workspace).join(TARGET).join("release").join(name)
}

fn build(workspace: &Workspace, what: &[&str]) -> Result<()> {
    run(cargo(workspace, "build").arg("--quiet").args(what))
}

/// Returns a cargo that builds as what we ship is built: optimised and static.
fn cargo(workspace: &Workspace, command: &str) -> Command {
    let mut cargo = workspace.cargo();
    // the target has to be named, or else procedural macros would be built static too
    cargo
        .args([command, "--release", "--target", TARGET, "--target-dir"])
        .arg(folder(workspace))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}

fn kernel_tests(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = cargo(workspace, "test");
    cargo
        .args(["--quiet", "--no-run", "--package", "memtrace", "--test", "kernel"])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = cargo.output().with_context(|| format!("cannot run {}", shown(&cargo)))?;
    if !output.status.success() {
        bail!("cannot build the kernel tests");
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .context("cargo named no executable of the kernel tests")
}

/// Finds the kernel tests in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    messages.lines().find_map(|line| {
        let Message { executable, target } = serde_json::from_str(line).ok()?;
        let Target { name, kind } = target?;
        if name == "kernel" && kind == ["test"] { executable } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tests_are_found_among_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"kernel"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"memtrace"},"executable":"/t/memtrace"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel"},"executable":"/t/kernel-1"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/t/kernel-1")));
        assert_eq!(executable(""), None);
    }
}
