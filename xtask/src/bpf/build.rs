//! Compiles memtrace-ebpf so that the bytes depend on nothing but sources and toolchain.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    source,
    toolchain::{Core, Toolchain},
};
use crate::{command::run, workspace::Workspace};

/// The target that the probes are compiled for.
pub(super) const TARGET: &str = "bpfel-unknown-none";

/// What the compiler is told, besides which paths to hide: v3 is the first BPF that has atomics
/// with a result, and the debug information becomes BTF.
///
/// Memory is set by plain stores: a program that calls another function, such as `memset`, keeps the
/// verifier several times as long up to 6.2, where it then tells all values apart (`__mark_reg_unknown`,
/// kernel/bpf/verifier.c).
pub(super) const FLAGS: [&str; 4] = [
    "-Ctarget-cpu=v3",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Clink-arg=--disable-expand-memcpy-in-order",
];

/// Builds the object and returns its bytes.
pub(super) fn object(workspace: &Workspace, toolchain: &Toolchain) -> Result<Vec<u8>> {
    let Toolchain { sysroot, core, linker, objcopy, description } = toolchain;
    // cargo does not know that the linker's version matters, so each toolchain has its own folder
    let target = workspace.target.join("bpf").join(&source::sha256(description.as_bytes())[..12]);
    let mut cargo = Command::new(sysroot.join("bin/cargo"));
    for (name, _) in env::vars_os() {
        if belongs_to_outer_cargo(&name) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(workspace.root.join("memtrace-ebpf"))
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env("RUSTC", sysroot.join("bin/rustc"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(workspace)?);
    match core {
        // these two use unstable features, which a stable compiler has to be told to accept
        Core::Prebuilt => cargo.env("RUSTC_BOOTSTRAP", "aya_ebpf,memtrace_bpf"),
        Core::Built => cargo.arg("-Zbuild-std=core"),
    };
    run(&mut cargo).context("cannot build memtrace-ebpf")?;

    let linked = target.join(TARGET).join("release/memtrace-bpf");
    let stripped = target.join("memtrace.bpf.o");
    run(Command::new(objcopy).arg("--strip-debug").args([&linked, &stripped]))?;
    fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
}

fn flags(workspace: &Workspace) -> Result<OsString> {
    let remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flag
    };
    let mut flags: Vec<OsString> = FLAGS.iter().map(OsString::from).collect();
    flags.extend([remap(&workspace.root, "/src"), remap(&cargo_home()?, "/cargo")]);
    Ok(flags.join(OsStr::new("\x1f")))
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    Ok(env::home_dir().context("cannot find the home folder")?.join(".cargo"))
}

/// Tells the variables that would carry the workspace's stable toolchain or its flags over.
fn belongs_to_outer_cargo(name: &OsStr) -> bool {
    const NAMES: [&str; 7] = [
        "CARGO",
        "CARGO_TARGET_DIR",
        "LD_LIBRARY_PATH",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ];
    const PREFIXES: [&str; 5] =
        ["CARGO_BUILD_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PROFILE_", "CARGO_TARGET_"];
    let name = name.to_string_lossy();
    NAMES.contains(&name.as_ref()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
