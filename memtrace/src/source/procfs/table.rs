//! Every process, again and again, at little cost: one file of each stays open, and reading it is one
//! system call (1 µs, 6.18).

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use super::{parse_cgroup, parse_stat, pids};
use crate::model::top::{Id, Reading};

/// The processes of the machine, or some of them.
#[derive(Debug)]
pub struct Table {
    /// Those that were asked for; empty for all.
    only: Vec<u32>,
    /// `/proc/PID/stat` of each, and when it was read last, by [`Self::times`]. When the process ends,
    /// reading fails, whoever has its PID then.
    files: HashMap<u32, (File, u64)>,
    /// PIDs that are threads of the kernel.
    of_kernel: HashSet<u32>,
    /// Paths of their cgroups, where they are asked for.
    cgroups: Option<HashMap<Id, (u64, Arc<str>)>>,
    /// Times that it was read.
    times: u64,
    buffer: Vec<u8>,
}

/// Bytes of `/proc/PID/stat` at most: 52 numbers and a name.
const STAT_BYTES: usize = 2048;
/// How often the cgroup of a process is looked at again; of one that is new each time, so many times.
const CGROUP_AFTER: u64 = 16;
const CGROUP_SETTLES: u64 = 2;
/// How often what was a thread of the kernel is looked at again: its PID may be given out anew.
const FORGET_AFTER: u64 = 64;

impl Table {
    /// Makes a table of some processes, or of all where none is named.
    pub fn new(only: Vec<u32>) -> Self {
        let (files, of_kernel) = (HashMap::new(), HashSet::new());
        Self { only, files, of_kernel, cgroups: None, times: 0, buffer: vec![0; STAT_BYTES] }
    }

    /// Tells in which cgroup each is, too.
    pub fn with_cgroups(self) -> Self {
        Self { cgroups: Some(HashMap::new()), ..self }
    }

    /// Reads all that live but this one. Those that end meanwhile are left out.
    ///
    /// Errors: `/proc` cannot be listed.
    pub fn read(&mut self) -> io::Result<Vec<Reading>> {
        if self.times.is_multiple_of(FORGET_AFTER) {
            self.of_kernel.clear();
        }
        self.times += 1;
        let pids = if self.only.is_empty() { pids()? } else { self.only.clone() };
        let this = std::process::id();
        let mut readings = Vec::with_capacity(pids.len());
        for pid in pids {
            if pid != this && !self.of_kernel.contains(&pid) {
                readings.extend(self.read_one(pid));
            }
        }
        let times = self.times;
        self.files.retain(|_, (_, read)| *read == times);
        self.forget(&readings);
        Ok(readings)
    }

    /// Forgets the cgroups of processes that are not there any more.
    fn forget(&mut self, readings: &[Reading]) {
        if let Some(cgroups) = &mut self.cgroups
            && cgroups.len() > readings.len() * 2
        {
            let there: HashSet<Id> = readings.iter().map(|reading| reading.id).collect();
            cgroups.retain(|id, _| there.contains(id));
        }
    }

    /// Returns the cgroup of a process, as it was last looked at.
    fn cgroup(&mut self, id: Id) -> Option<Arc<str>> {
        let times = self.times;
        let cgroups = self.cgroups.as_mut()?;
        if let Some((first, path)) = cgroups.get(&id) {
            let age = times - first;
            if age > CGROUP_SETTLES && !(times + u64::from(id.tgid)).is_multiple_of(CGROUP_AFTER) {
                return Some(path.clone());
            }
        }
        let text = fs::read_to_string(format!("/proc/{}/cgroup", id.tgid)).ok()?;
        let path: Arc<str> = parse_cgroup(&text)?.into();
        let (_, known) = cgroups.entry(id).or_insert_with(|| (times, path.clone()));
        known.clone_from(&path);
        Some(path)
    }

    /// Reads one process, and keeps its file where it will be read again.
    fn read_one(&mut self, pid: u32) -> Option<Reading> {
        let len = self.read_file(pid)?;
        let stat = parse_stat(&String::from_utf8_lossy(&self.buffer[..len]))?;
        if stat.is_kernel_thread {
            self.of_kernel.insert(pid);
            self.files.remove(&pid);
            return None;
        }
        if stat.is_dead() {
            return None;
        }
        let id = Id { tgid: pid, start_ns: stat.start_ns };
        Some(Reading {
            id,
            cgroup: self.cgroup(id),
            comm: stat.comm,
            resident: stat.resident,
            cpu_ns: stat.cpu_ns,
            faults: stat.faults.0.saturating_add(stat.faults.1),
        })
    }

    /// Reads the file of a process into the buffer.
    fn read_file(&mut self, pid: u32) -> Option<usize> {
        if let Some((file, read)) = self.files.get_mut(&pid)
            && let Ok(len) = file.read_at(&mut self.buffer, 0)
        {
            *read = self.times;
            return Some(len);
        }
        // A process may have the PID of one that ended.
        let file = File::open(format!("/proc/{pid}/stat")).ok()?;
        let len = file.read_at(&mut self.buffer, 0).ok()?;
        self.files.insert(pid, (file, self.times));
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeper() -> io::Result<Child> {
        Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()
    }

    #[test]
    fn a_process_is_read_until_it_ends() -> io::Result<()> {
        let (mut first, mut second) = (sleeper()?, sleeper()?);
        let mut table = Table::new(vec![first.id(), second.id()]);
        for _ in 0..2 {
            let read = table.read()?;
            let pids: Vec<u32> = read.iter().map(|reading| reading.id.tgid).collect();
            assert_eq!(pids, [first.id(), second.id()]);
            assert!(read.iter().all(|reading| reading.resident.is_some()), "{read:?}");
            assert!(read.iter().all(|reading| reading.id.start_ns > 0), "{read:?}");
        }
        first.kill()?;
        first.wait()?;
        let read = table.read()?;
        second.kill()?;
        second.wait()?;
        assert_eq!(read.len(), 1, "{read:?}");
        assert_eq!(read[0].id.tgid, second.id());
        assert_eq!(table.read()?, []);
        Ok(())
    }

    #[test]
    fn neither_this_process_nor_a_thread_of_the_kernel_is_among_all() -> io::Result<()> {
        let mut child = sleeper()?;
        let read = Table::new(Vec::new()).read()?;
        child.kill()?;
        child.wait()?;
        let has = |pid| read.iter().any(|reading| reading.id.tgid == pid);
        assert!(has(child.id()));
        assert!(!has(std::process::id()));
        assert!(!has(2) || !fs::read_to_string("/proc/2/comm")?.starts_with("kthreadd"));
        Ok(())
    }
}
