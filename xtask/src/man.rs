//! `cargo xtask man`: the man pages, as memtrace writes them of its own command line.

use anyhow::Result;

use crate::{command::run, workspace::Workspace};

/// Writes a page for memtrace and one for each command to `target/man`.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join("man");
    run(workspace
        .cargo()
        .args(["run", "--quiet", "--package", "memtrace", "--", "man"])
        .arg(&folder))?;
    println!("{}", folder.display());
    Ok(())
}
