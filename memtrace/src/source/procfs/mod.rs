//! What `/proc` says of a process, at one moment.

pub mod pagemap;
mod parse;
mod table;

use std::{collections::HashMap, fs, io};

use memtrace_common::{Backing, FileName, Header, Kind, Region, TaskSeed};

use crate::model::{
    build::{RegionResidency, Residency},
    region_map::{PAGE, flag},
};
pub use parse::{Mapping, Stat, as_last_seen, parse_cgroup, parse_smaps, parse_stat};
pub use table::Table;

/// A process in `/proc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What `/proc/PID/stat` says.
    pub stat: Stat,
    /// Its executable.
    pub exe: Option<String>,
}

/// Reads what a process is; `None` when there is none of this number, or it is a thread's.
pub fn find(tgid: u32) -> io::Result<Option<Found>> {
    let text = match fs::read(format!("/proc/{tgid}/stat")) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let stat = parse_stat(&String::from_utf8_lossy(&text));
    let exe = fs::read_link(memory_dir(tgid) + "/exe").ok();
    let exe = exe.map(|path| path.to_string_lossy().into_owned());
    Ok(stat.map(|stat| Found { stat, exe }))
}

/// Returns a thread of a process that has not exited: the leader may, and leave the others. `None`
/// when all have.
pub fn living_thread(tgid: u32) -> Option<u32> {
    let lives = |tid: u32| {
        let text = fs::read(format!("/proc/{tgid}/task/{tid}/stat")).ok()?;
        parse_stat(&String::from_utf8_lossy(&text)).filter(|stat| !stat.is_dead())
    };
    if lives(tgid).is_some() {
        return Some(tgid);
    }
    tids(tgid).ok()?.into_iter().find(|&tid| lives(tid).is_some())
}

/// Returns every process.
pub fn pids() -> io::Result<Vec<u32>> {
    numbers_in("/proc")
}

/// Returns the threads of a process.
pub fn tids(tgid: u32) -> io::Result<Vec<u32>> {
    numbers_in(&format!("/proc/{tgid}/task"))
}

/// Returns the names in a folder that are numbers.
fn numbers_in(folder: &str) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(folder)?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Returns where `/proc` shows a process's address space. (That of a leader that exited is empty.)
pub fn memory_dir(tgid: u32) -> String {
    format!("/proc/{tgid}/task/{}", living_thread(tgid).unwrap_or(tgid))
}

/// Returns the process to which thread `tid` belongs.
pub fn tgid_of(tid: u32) -> Option<u32> {
    status_field(&format!("/proc/{tid}/status"), "Tgid:").ok()??.parse().ok()
}

/// Reads a field of a `status` file.
fn status_field(file: &str, name: &str) -> io::Result<Option<String>> {
    let status = fs::read_to_string(file)?;
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    Ok(value.map(|value| value.trim().to_owned()))
}

/// Returns the bytes that a process has pinned for devices (`VmPin` of `/proc/PID/status`).
pub fn pinned(tgid: u32) -> io::Result<u64> {
    let value = status_field(&(memory_dir(tgid) + "/status"), "VmPin:")?;
    let kib = value.and_then(|value| value.strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.unwrap_or(0).saturating_mul(1024))
}

/// Tells whether an error means that the process exited.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The regions of a process and what is resident in each.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    /// As if the probes had seen them.
    pub regions: Vec<Region>,
    /// What is resident.
    pub residency: Residency,
}

/// Reads `/proc/PID/smaps`: exact, since the kernel walks the page tables (14 ms per GiB).
pub fn regions(tgid: u32) -> io::Result<Regions> {
    Ok(regions_of(tgid, &mappings(tgid, "smaps")?))
}

/// The same, and what was not touched since [`forget_references`].
pub fn regions_and_cold(tgid: u32) -> io::Result<Regions> {
    let mappings = mappings(tgid, "smaps")?;
    let mut found = regions_of(tgid, &mappings);
    let mut total = 0;
    for mapping in &mappings {
        let cold = mapping.resident.saturating_sub(mapping.referenced);
        total += cold;
        if let Some(region) = found.residency.regions.get_mut(&mapping.start) {
            region.cold = Some(cold);
        }
    }
    found.residency.total.cold = Some(total);
    Ok(found)
}

impl Regions {
    /// Says where in its regions the pages of the process are, in no more than `most` cells.
    ///
    /// Errors: it is gone. Without the right to know it is not said.
    pub fn locate(&mut self, tgid: u32, most: u64) -> io::Result<()> {
        let regions = self.residency.regions.iter_mut().map(|(&start, region)| (start, region));
        match pagemap::locate(tgid, regions, most) {
            Err(error) if !is_gone(&error) => {
                log::info!("where the pages of process {tgid} are cannot be read: {error}");
                Ok(())
            }
            located => located,
        }
    }
}

/// Returns what mappings of a process say.
pub fn regions_of<'a>(tgid: u32, mappings: impl IntoIterator<Item = &'a Mapping>) -> Regions {
    let mut found = Regions::default();
    for mapping in mappings {
        let known = RegionResidency {
            end: mapping.end,
            resident: mapping.resident,
            anon: mapping.anon,
            swapped: mapping.swapped,
            lazy_free: mapping.lazy_free,
            cold: None,
            cells: None,
            name: (!mapping.name.is_empty()).then(|| mapping.name.clone()),
        };
        let total = &mut found.residency.total;
        total.resident += known.resident;
        total.anon += known.anon;
        total.swapped += known.swapped;
        total.lazy_free += known.lazy_free;
        found.residency.regions.insert(mapping.start, known);
        found.regions.push(region(tgid, mapping));
    }
    found
}

/// Forgets which pages a process has touched (`clear_refs`, proc_pid_clear_refs(5)): its page tables
/// say anew.
pub fn forget_references(tgid: u32) -> io::Result<()> {
    fs::write(memory_dir(tgid) + "/clear_refs", "1")
}

/// Reads `/proc/PID/maps`, which says nothing about residency and costs little.
pub fn maps(tgid: u32) -> io::Result<Vec<Mapping>> {
    mappings(tgid, "maps")
}

fn mappings(tgid: u32, file: &str) -> io::Result<Vec<Mapping>> {
    let text = fs::read(memory_dir(tgid) + "/" + file)?;
    let mut mappings = as_last_seen(parse_smaps(&String::from_utf8_lossy(&text)));
    // `[vsyscall]` is listed but is no VMA.
    mappings.retain(|mapping| mapping.name != "[vsyscall]");
    Ok(mappings)
}

/// Returns a mapping as if the probes had seen it.
pub fn region(tgid: u32, mapping: &Mapping) -> Region {
    // What tmpfs mappings are called (mm/memfd.c, mm/shmem.c, ipc/shm.c).
    let on_tmpfs = ["/memfd:", "/dev/zero", "/dev/shm/", "/SYSV"];
    let backing = if mapping.is_anonymous() {
        Backing::Anon
    } else if on_tmpfs.iter().any(|prefix| mapping.name.starts_with(prefix)) {
        Backing::Shmem
    } else {
        Backing::File
    };
    let pgoff = match backing {
        Backing::Anon => mapping.start / PAGE,
        Backing::File | Backing::Shmem => mapping.offset / PAGE,
    };
    let kind = Kind::MapRegion as u16;
    let header =
        Header { tgid, tid: tgid, kind, len: size_of::<Region>() as u16, ..Header::default() };
    let &Mapping { start, end, inode, dev, .. } = mapping;
    // What it may be protected to is not shown: as if everything.
    let flags = mapping.flags | flag::PROTECTION << 4;
    Region {
        header,
        seq: 0,
        start,
        end,
        pgoff,
        flags,
        inode,
        dev,
        backing: backing as u16,
        name_tag: name_tag(last_component(mapping.path())),
    }
}

/// Returns the name of a mapped file as if the probes had sent it; `None` for anonymous memory.
pub fn file_name(mapping: &Mapping) -> Option<FileName> {
    if mapping.is_anonymous() {
        return None;
    }
    let last = last_component(mapping.path());
    let (kind, len) = (Kind::FileName as u16, size_of::<FileName>() as u16);
    let header = Header { kind, len, ..Header::default() };
    let mut name = [0; 64];
    let bytes = &last.as_bytes()[..last.len().min(name.len() - 1)];
    name[..bytes.len()].copy_from_slice(bytes);
    let &Mapping { inode, dev, .. } = mapping;
    Some(FileName { header, inode, dev, name_tag: name_tag(last), reserved: 0, name })
}

/// Returns what the probes know of a file's path. (A dentry may be called `dev/zero`, with the slash.)
pub fn last_component(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Returns a number that goes with a name: files of different names may share an inode number.
fn name_tag(name: &str) -> u16 {
    name.bytes().fold(0, |tag: u16, byte| tag.wrapping_mul(31).wrapping_add(byte.into()))
}

/// Returns where heap, stack and vdso are, as the names of the regions tell.
pub fn seed(tgid: u32, stat: &Stat, residency: &Residency) -> TaskSeed {
    let by_name: HashMap<&str, (u64, u64)> = residency
        .regions
        .iter()
        .filter_map(|(&start, region)| Some((region.name.as_deref()?, (start, region.end))))
        .collect();
    let (start_brk, brk) = by_name.get("[heap]").copied().unwrap_or_default();
    let kind = Kind::TaskSeed as u16;
    let len = size_of::<TaskSeed>() as u16;
    TaskSeed {
        header: Header { tgid, tid: tgid, kind, len, ..Header::default() },
        start_ns: stat.start_ns,
        start_brk,
        brk,
        start_stack: by_name.get("[stack]").map_or(0, |&(_, end)| end - 1),
        vdso: by_name.get("[vdso]").map_or(0, |&(start, _)| start),
        rss_pages: [0; 4],
        tracked: 0,
    }
}
