//! Where things lie, and the cargo that builds them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The folders of this clone.
pub(crate) struct Workspace {
    /// The folder with the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// Cargo's target folder; what xtask builds apart goes into folders below it.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds the clone that `cargo xtask` was called in.
    pub(crate) fn find() -> Self {
        // not only as it was when this was built: clones that share a target folder share xtask
        let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
        let root =
            Path::new(&xtask).parent().expect("xtask is a folder of the workspace").to_path_buf();
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(PathBuf::from(dir)));
        Self { root, target }
    }

    /// Returns the workspace's own cargo, to be run in its root.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        cargo
    }
}

/// Is this a run where nothing may be left out?
pub(crate) fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}
