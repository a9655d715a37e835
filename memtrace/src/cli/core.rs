//! A core file as a report sees it: one process, of which is known what it had mapped and what its
//! allocators held.

use std::{io, path::Path};

use anyhow::anyhow;

use super::{
    failure::Failure,
    look::Look,
    status::{Work, count_file},
};
use crate::{
    sink::size,
    source::{
        allocators::Allocators,
        core::{self, Core, CoreError, Lacks},
        procfs::{self, Found, Stat},
    },
};

/// Looks at the process of which a core file is left.
pub(super) fn look(path: &Path) -> Result<Look, Failure> {
    let counter = count_file(path);
    let _line = Work::Looking.show(&counter);
    let core = core::open(path, &counter).map_err(|error| failure(path, error))?;
    let Allocators { walked, unwalked } = core.walk(core::read_library);
    let Core { mappings, tgid, comm, exe, lacks, .. } = core;
    let tgid = tgid.unwrap_or(0);
    let mut regions = procfs::regions_of(tgid, mappings.iter());
    let residency = &mut regions.residency;
    residency.of_core = true;
    residency.allocators = walked;
    residency.unwalked = said_of(lacks);
    residency.unwalked.extend(unwalked.iter().map(ToString::to_string));
    let name = exe.as_deref().map(procfs::last_component).unwrap_or_default();
    let comm = comm.unwrap_or_else(|| name.to_owned());
    let stat = Stat { comm, ..Stat::default() };
    Ok(Look::of(tgid, Found { stat, exe }, regions))
}

/// Returns what to know about what a core file does not hold, in sentences.
fn said_of(lacks: Lacks) -> Vec<String> {
    let Lacks { bytes, headers, files, data } = lacks;
    let mut said = Vec::new();
    if headers {
        said.push("the core file is cut short: it ends in its headers".to_owned());
    } else if bytes > 0 {
        said.push(format!("the core file is cut short: {} of memory are not in it, nor what allocators held there", size(bytes)));
    } else if data {
        said.push("the core file leaves out what the program wrote (coredump_filter): allocators are not found".to_owned());
    }
    if files {
        let sentence =
            "the core file does not say which files were mapped: allocators are not found";
        said.push(sentence.to_owned());
    }
    said
}

/// Returns why a file is not walked, and what to do.
fn failure(path: &Path, error: CoreError) -> Failure {
    let hint = match &error {
        CoreError::Unreadable(error) => match error.kind() {
            io::ErrorKind::NotFound => {
                "`cat /proc/sys/kernel/core_pattern` says where the kernel puts them"
            }
            io::ErrorKind::PermissionDenied => "run it with sudo: only its owner may read it",
            _ => "copy it to another place first",
        },
        CoreError::Compressed => {
            "decompress it first (`zstd -d`, `lz4 -d`, `xz -d`), or `coredumpctl dump PID -o FILE`"
        }
        CoreError::Empty | CoreError::CutShort => {
            "was the disk full, or `ulimit -c` too small? `gcore PID` writes one of a running process"
        }
        CoreError::NotRegular | CoreError::NotElf | CoreError::NotCore => {
            "name a core file: `gcore PID` writes one, and `ulimit -c unlimited` lets the kernel"
        }
        CoreError::Is32Bit | CoreError::OtherMachine => {
            "memtrace knows the heaps of 64-bit x86 programs only"
        }
        CoreError::Damaged | CoreError::NoMemory => "`readelf -hl FILE` shows what is in it",
    };
    let error = anyhow!(error).context(format!("cannot look at {}", path.display()));
    Failure::new(Failure::FAILED, error, hint)
}
