//! The program in a folder where others than who built it may execute it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Copies a program into a folder. Another process writes it: what a thread has open for writing while
/// another one forks, the child has open as well, and then it cannot be executed (`ETXTBSY`, execve(2)).
pub(crate) fn copied(program: &str, folder: &Path) -> PathBuf {
    let status = Command::new("cp").arg(program).arg(folder).status().expect("cp is there");
    assert!(status.success(), "there is room");
    folder.join(Path::new(program).file_name().expect("a name"))
}
