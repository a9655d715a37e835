//! Finds a compiler, a linker and an objcopy for BPF.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::build::TARGET;
use crate::{
    command::{on_path, read},
    workspace::Workspace,
};

const VARIABLE: &str = "MEMTRACE_BPF_TOOLCHAIN";
const HELP: &str = "nothing here can compile for BPF: install Debian's rustc-web, cargo-web and \
    libstd-rust-web-dev-bpf, or `rustup toolchain install nightly --component rust-src,llvm-tools`, \
    or name a sysroot in MEMTRACE_BPF_TOOLCHAIN";

/// What builds the object.
pub(super) struct Toolchain {
    /// The folder with bin/cargo and bin/rustc.
    pub(super) sysroot: PathBuf,
    /// Where the core library for BPF comes from.
    pub(super) core: Core,
    pub(super) linker: PathBuf,
    pub(super) objcopy: PathBuf,
    /// All that decides the object's bytes, besides its sources.
    pub(super) description: String,
}

/// Where the core library for BPF comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Core {
    /// It comes with the toolchain.
    Prebuilt,
    /// Cargo builds it from rust-src (nightly only).
    Built,
}

impl Toolchain {
    /// Takes the toolchain that is named in the environment, or else the first that can do it.
    pub(super) fn find(workspace: &Workspace) -> Result<Self> {
        let (sysroot, core) = compiler()?;
        let version = read(Command::new(sysroot.join("bin/rustc")).arg("-vV"))?;
        let llvm = field(&version, "LLVM version: ").context("rustc -vV names no LLVM version")?;
        let rustc = version.lines().next().unwrap_or_default();
        let linker = linker(workspace)?;
        let linker_version = read(Command::new(&linker).arg("--version"))?;
        let objcopy = objcopy(&sysroot, llvm, field(&version, "host: ").unwrap_or_default())?;
        let description = format!("{rustc}, LLVM {llvm}, {}", linker_version.trim());
        Ok(Self { sysroot, core, linker, objcopy, description })
    }
}

fn compiler() -> Result<(PathBuf, Core)> {
    if let Some(sysroot) = env::var_os(VARIABLE).map(PathBuf::from) {
        let core = core_of(&sysroot).with_context(|| {
            format!("{VARIABLE}={} has no core library for {TARGET}", sysroot.display())
        })?;
        return Ok((sysroot, core));
    }
    let mut sysroots = vec![PathBuf::from("/usr")];
    sysroots.extend(on_path("rustc").iter().filter_map(|rustc| sysroot(&mut Command::new(rustc))));
    let prebuilt = |sysroot: &PathBuf| core_of(sysroot) == Some(Core::Prebuilt);
    if let Some(found) = sysroots.into_iter().find(prebuilt) {
        return Ok((found, Core::Prebuilt));
    }
    sysroot(Command::new("rustup").args(["run", "nightly", "rustc"]))
        .and_then(|sysroot| core_of(&sysroot).map(|core| (sysroot, core)))
        .ok_or_else(|| anyhow!(HELP))
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let printed = read(rustc.args(["--print", "sysroot"])).ok()?;
    Some(PathBuf::from(printed.trim_end()))
}

fn core_of(sysroot: &Path) -> Option<Core> {
    let has = |file: &str| sysroot.join(file).is_file();
    if !has("bin/cargo") || !has("bin/rustc") {
        return None;
    }
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let prebuilt = libraries.read_dir().is_ok_and(|files| {
        files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
    });
    if prebuilt {
        return Some(Core::Prebuilt);
    }
    has("lib/rustlib/src/rust/library/core/Cargo.toml").then_some(Core::Built)
}

fn linker(workspace: &Workspace) -> Result<PathBuf> {
    let own = workspace.root.join("target/tools/bin/bpf-linker");
    on_path("bpf-linker").into_iter().chain([own]).find(|file| file.is_file()).context(
        "bpf-linker is neither on PATH nor in target/tools/bin: docs/CONTRIBUTING.md says how to \
         install it",
    )
}

/// Finds the objcopy of the compiler's own LLVM: another one may write other bytes.
fn objcopy(sysroot: &Path, llvm: &str, host: &str) -> Result<PathBuf> {
    let major = llvm.split('.').next().unwrap_or(llvm);
    let places = [
        PathBuf::from(format!("/usr/lib/llvm-{major}/bin/llvm-objcopy")),
        sysroot.join(format!("lib/rustlib/{host}/bin/rust-objcopy")),
        sysroot.join(format!("lib/rustlib/{host}/bin/llvm-objcopy")),
    ];
    if let Some(found) = places
        .into_iter()
        .chain(on_path(&format!("llvm-objcopy-{major}")))
        .find(|file| file.is_file())
    {
        return Ok(found);
    }
    bail!("no llvm-objcopy of LLVM {major}: install Debian's llvm-{major} or rustup's llvm-tools")
}

fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    version.lines().find_map(|line| line.strip_prefix(name))
}
