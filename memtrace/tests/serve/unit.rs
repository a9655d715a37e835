//! The unit of systemd, as systemd reads it.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    daemon::{Daemon, Heap, MEMTRACE},
    privileges::counting,
    recordings,
};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd/memtrace.service");

/// What docs/INSTALL.md says of its exposure, in tenths.
const EXPOSURE: u32 = 23;

/// The unit, with the program that is tested in place of what is installed.
fn unit() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("memtrace.service");
    let text = fs::read_to_string(UNIT).expect("it is there");
    assert!(text.contains("ExecStart=/usr/bin/memtrace "), "{text}");
    fs::write(&file, text.replace("/usr/bin/memtrace", MEMTRACE)).expect("it can be written");
    (folder, file)
}

/// Returns what systemd says of it, and whether that is well.
fn analyze(arguments: &[&str], file: &Path) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).arg(file).output();
    let output = output.expect("it is there");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

pub(crate) fn verify() {
    let (_folder, file) = unit();
    let (is_well, said) = analyze(&["verify", "--man=no"], &file);
    assert!(is_well && said.is_empty(), "{said}");
}

pub(crate) fn exposure() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/INSTALL.md");
    let docs = fs::read_to_string(docs).expect("it is there");
    let said = format!("exposure level of {}.{}", EXPOSURE / 10, EXPOSURE % 10);
    assert!(docs.contains(&said), "the docs do not say: {said}");
    let (_folder, file) = unit();
    let threshold = format!("--threshold={EXPOSURE}");
    let (is_well, said) = analyze(&["security", "--offline=true", "--no-pager", &threshold], &file);
    assert!(is_well, "{said}");
}

/// Under the filter that systemd makes of it, a call that is not in it would fail.
pub(crate) fn filter() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let mut command = Command::new("strace");
    // It stays in the background: the child is the daemon.
    command.args(["-D", "-f", "-o"]).arg(&trace).arg(MEMTRACE);
    let heap = Heap::start();
    let daemon = Daemon::start_by(command, &recordings::config(""), folder);
    daemon.report_of(&heap);
    assert_eq!(counting(&daemon), "on");
    daemon.get("/metrics");
    recordings::record(&daemon, &heap);
    let trace = fs::read_to_string(&trace).expect("it is there");
    let calls: HashSet<&str> = trace.lines().filter_map(call).collect();
    assert!(calls.contains("bpf") && calls.contains("process_vm_readv"), "{calls:?}");
    let allowed = allowed();
    let refused: Vec<&&str> = calls.iter().filter(|&&call| !allowed.contains(call)).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
    // MemoryDenyWriteExecute=yes
    let both = trace.lines().find(|line| line.contains("PROT_WRITE|PROT_EXEC"));
    assert_eq!(both, None);
}

/// Returns the name of the call in a line such as `42 read(3, …` or `42 <... read resumed>…`.
fn call(line: &str) -> Option<&str> {
    let (_, said) = line.split_once(' ')?;
    let said = said.trim_start().trim_start_matches("<... ");
    let end = said.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?;
    let (name, rest) = said.split_at(end);
    (rest.starts_with('(') || rest.starts_with(" resumed")).then_some(name)
}

/// Returns the calls that the unit lets through.
fn allowed() -> HashSet<String> {
    let unit = fs::read_to_string(UNIT).expect("it is there");
    let mut allowed = HashSet::new();
    for list in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (is_allowed, list) = match list.strip_prefix('~') {
            Some(list) => (false, list),
            None => (true, list),
        };
        for name in list.split(' ') {
            let calls = expand(name);
            if is_allowed {
                allowed.extend(calls);
            } else {
                allowed.retain(|call| !calls.contains(call));
            }
        }
    }
    allowed
}

/// Returns the calls of a set, or the one that it is.
fn expand(name: &str) -> HashSet<String> {
    if !name.starts_with('@') {
        return HashSet::from([name.to_owned()]);
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output();
    let text = String::from_utf8_lossy(&output.expect("it is there").stdout).into_owned();
    let names = text.lines().skip(1).map(str::trim);
    let names = names.filter(|name| !name.is_empty() && !name.starts_with('#'));
    names.flat_map(expand).collect()
}
