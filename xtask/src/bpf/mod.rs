//! `cargo xtask bpf`: the BPF object that memtrace embeds.
//!
//! The object is committed, so that stable Rust is enough to build memtrace. What is beside it says
//! which sources and which toolchain made it; `--check` holds one against the other.

mod build;
mod source;
mod toolchain;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use self::toolchain::Toolchain;
use crate::workspace::Workspace;

const OBJECT: &str = "memtrace/bpf/memtrace.bpf.o";
const RECORD: &str = "memtrace/bpf/memtrace.bpf.json";
const HOW: &str = "run `cargo xtask bpf` and commit memtrace/bpf";

/// The options of `cargo xtask bpf`.
#[derive(Args)]
pub(crate) struct Options {
    /// Write nothing; fail when the committed object is not what its sources give
    #[arg(long)]
    check: bool,
}

/// What is known about a built object; lies beside it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The compiler, its LLVM and the linker: with the same three the bytes are the same.
    toolchain: String,
    /// See [`source::hash`].
    source_sha256: String,
    object_sha256: String,
}

/// Builds the object and writes it, or checks the one that is there.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let Options { check } = *options;
    if check {
        return check_committed(workspace);
    }
    let (record, object) = make(workspace)?;
    let path = workspace.root.join(OBJECT);
    let folder = path.parent().expect("OBJECT has a folder");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut json = serde_json::to_string_pretty(&record).context("cannot write the record")?;
    json.push('\n');
    write(&path, &object)?;
    write(&workspace.root.join(RECORD), json.as_bytes())?;
    println!("{OBJECT}: {} bytes, by {}", object.len(), record.toolchain);
    Ok(())
}

fn check_committed(workspace: &Workspace) -> Result<()> {
    let json = read(&workspace.root.join(RECORD))?;
    let committed: Record =
        serde_json::from_slice(&json).with_context(|| format!("cannot read {RECORD}: {HOW}"))?;
    let source = source::hash(&workspace.root)?;
    if source != committed.source_sha256 {
        bail!(
            "{OBJECT} is stale: its sources or their dependencies have changed since it was built \
             (sources now {source}, then {}): {HOW}",
            committed.source_sha256
        );
    }
    let object = source::sha256(&read(&workspace.root.join(OBJECT))?);
    if object != committed.object_sha256 {
        bail!(
            "{OBJECT} is not the object that {RECORD} describes (file {object}, record {}): {HOW}",
            committed.object_sha256
        );
    }
    let (rebuilt, _) = make(workspace)?;
    if rebuilt.toolchain != committed.toolchain {
        println!(
            "{OBJECT}: its sources are unchanged and build here; bytes NOT compared, since the \
             toolchain differs\n  committed: {}\n  here:      {}",
            committed.toolchain, rebuilt.toolchain
        );
        return Ok(());
    }
    if rebuilt.object_sha256 != committed.object_sha256 {
        bail!(
            "{OBJECT} is not what its sources give with the same toolchain, {} (rebuilt {}, \
             committed {}): {HOW}",
            rebuilt.toolchain,
            rebuilt.object_sha256,
            committed.object_sha256
        );
    }
    println!("{OBJECT}: rebuilt here to the byte, by {}", rebuilt.toolchain);
    Ok(())
}

fn make(workspace: &Workspace) -> Result<(Record, Vec<u8>)> {
    let toolchain = Toolchain::find(workspace)?;
    let object = build::object(workspace, &toolchain)?;
    let record = Record {
        toolchain: toolchain.description,
        source_sha256: source::hash(&workspace.root)?,
        object_sha256: source::sha256(&object),
    };
    Ok((record, object))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}: {HOW}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
