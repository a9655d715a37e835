//! Packages of Python that tests have use for.

use std::{env, process::Command};

/// Returns `python3`, with what pip installed into the folder that an environment variable names, if it does.
pub(crate) fn python(variable: &str) -> Command {
    let mut command = Command::new("python3");
    if let Some(folder) = env::var_os(variable) {
        command.env("PYTHONPATH", folder);
    }
    command
}
