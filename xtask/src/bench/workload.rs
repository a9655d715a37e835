//! The programs that are traced.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::{command::on_path, workspace::Workspace};

/// A program to trace, and what one of its units is.
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// What starts the command, drives it and is not traced itself; stands before the tracer.
    pub(super) driver: Vec<String>,
    /// What is traced. No word of it has a space: `bpftrace -c` takes it as one.
    pub(super) command: Vec<String>,
    pub(super) units: u64,
    pub(super) unit: &'static str,
    /// Whether it faults pages in; otherwise one that looks at faults alone has nothing to do.
    pub(super) faults: bool,
}

/// The names that the goals are about.
pub(super) const REDIS: &str = "redis SET";
pub(super) const LARGE_STORM: &str = "fault storm, 1 GiB a round";

/// Returns all of them; `bin` is bench-workload, `scratch` a folder for a server's files, `share` by
/// how much each is less than it would be.
pub(super) fn workloads(
    workspace: &Workspace,
    bin: &Path,
    scratch: &Path,
    share: u64,
) -> Result<Vec<Workload>> {
    let own = |name, args: &[&str], units, unit| Workload {
        name,
        driver: vec![],
        command: words(&[&[&*bin.display().to_string()], args].concat()),
        units,
        unit,
        faults: true,
    };
    let pairs = 20_000 / share;
    let map_unmap = own("mmap+munmap", &["map-unmap", &pairs.to_string()], pairs, "pair");
    let storm = |name, pages: u64, rounds: u64| {
        let rounds = (rounds / share).max(1);
        let args = ["fault-storm", &pages.to_string(), &rounds.to_string()];
        own(name, &args, pages * rounds, "page")
    };
    Ok(vec![
        Workload { faults: false, ..map_unmap },
        storm("fault storm, 16 pages a round", 16, 3_000),
        storm("fault storm, 4 MiB a round", 1_024, 300),
        storm(LARGE_STORM, 262_144, 3),
        python(&workspace.root.join("xtask/src/bench/objects.py")),
        redis(bin, scratch, 300_000 / share)?,
    ])
}

fn python(script: &Path) -> Workload {
    Workload {
        name: "python3, 5 × 80 MiB of bytes",
        driver: vec![],
        command: words(&[&program("python3"), "-S", &script.display().to_string()]),
        units: 100_000,
        unit: "object",
        faults: true,
    }
}

/// A server of its own on a socket in `scratch`, which keeps nothing on disk.
fn redis(bin: &Path, scratch: &Path, requests: u64) -> Result<Workload> {
    let socket = scratch.join("redis.sock").display().to_string();
    let config = scratch.join("redis.conf");
    let folder = scratch.display();
    let lines = format!(
        "port 0\nunixsocket {socket}\ndir {folder}\nsave \"\"\nappendonly no\ndaemonize no\n"
    );
    fs::write(&config, lines).with_context(|| format!("cannot write {}", config.display()))?;
    let bin = bin.display().to_string();
    Ok(Workload {
        name: REDIS,
        driver: words(&[&bin, "redis-set", &requests.to_string(), &socket]),
        command: words(&[&program("redis-server"), &config.display().to_string()]),
        units: requests,
        unit: "request",
        faults: true,
    })
}

/// Returns the path of a program: bpftrace refuses a name that PATH has twice, and any script.
fn program(name: &str) -> String {
    let binary = on_path(name).into_iter().find(|path| is_elf(path));
    binary.map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().copied().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_no_binary() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("script");
        fs::write(&script, "#!/bin/sh\n")?;
        assert!(!is_elf(&script));
        assert!(is_elf(Path::new("/proc/self/exe")));
        Ok(())
    }

    #[test]
    fn no_word_of_a_traced_command_has_a_space() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        for workload in workloads(&Workspace::find(), Path::new("/bin/w"), scratch.path(), 1)? {
            assert!(!workload.command.join("").contains(' '), "{:?}", workload.command);
        }
        Ok(())
    }
}
