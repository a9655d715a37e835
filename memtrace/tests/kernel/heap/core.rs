//! A core file of a workload that stands as it was asked for, written as `gcore` would: what is walked
//! in it is what is walked in the process.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    process::Command,
};

use libtest_mimic::Failed;
use serde_json::Value;

use super::{Heap, glibc};
use crate::driver::{memtrace, scratch};

/// What a core holds is what the process does, but for what is resident.
pub(super) fn same(name: &str) -> Result<(), Failed> {
    let heap = Heap::new(name)?;
    let live = heap.report(&["--exact"])?;
    let path = scratch(&format!("core-{name}"));
    fs::write(&path, core(heap.0.pid())?)?;
    let output =
        Command::new(memtrace()).args(["report", "--format", "json", "--core"]).arg(&path).output();
    fs::remove_file(&path)?;
    let output = output?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let mut report: Value = serde_json::from_slice(&output.stdout)?;
    let dead = report["processes"][0].take();

    for field in ["tgid", "comm", "exe"] {
        equal(field, &dead[field], &live[field])?;
    }
    equal("cold", &dead["memory"]["cold"], &Value::Null)?;
    let (dead, live) = (glibc(&dead)?, glibc(&live)?);
    for field in ["version", "evidence", "system", "in_use", "free", "unknown", "settings"] {
        equal(field, &dead[field], &live[field])?;
    }
    for field in ["free_resident", "trimmable", "remains"] {
        equal(field, &dead[field], &Value::Null)?;
    }
    Ok(())
}

fn equal(field: &str, dead: &Value, live: &Value) -> Result<(), Failed> {
    match dead == live {
        true => Ok(()),
        false => Err(format!("{field} is {dead} in the core, not {live}").into()),
    }
}

/// Returns a core file of a process that waits: every region of private memory, as it is.
fn core(pid: u32) -> Result<Vec<u8>, Failed> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut files = (Vec::new(), Vec::new());
    let mut segments = Vec::new();
    for line in maps.lines() {
        let fields: Vec<&str> = line.splitn(6, ' ').collect();
        let &[range, permissions, offset, _, inode, name] = fields.as_slice() else { continue };
        let (start, end) = range.split_once('-').ok_or("a range has two ends")?;
        let [start, end, offset] = [start, end, offset].map(|hex| u64::from_str_radix(hex, 16));
        let (start, end, offset) = (start?, end?, offset?);
        if inode != "0" {
            files.0.extend([start, end, offset / 4096]);
            files.1.extend([name.trim().as_bytes(), &[0]].concat());
        }
        let is_private = permissions.ends_with('p') && !name.trim().starts_with("[v");
        let mut bytes = vec![0; (end - start) as usize];
        if !is_private || memory.read_exact_at(&mut bytes, start).is_err() {
            bytes.clear();
        }
        let bit = |letter, bit| if permissions.contains(letter) { bit } else { 0 };
        segments.push((start, end, bit('r', 4) | bit('w', 2) | bit('x', 1), bytes));
    }
    let mut process = vec![0; 136];
    process[24..28].copy_from_slice(&pid.to_le_bytes());
    let comm = fs::read(format!("/proc/{pid}/comm"))?;
    process[40..40 + comm.len() - 1].copy_from_slice(&comm[..comm.len() - 1]);
    let heads = [files.0.len() as u64 / 3, 4096].into_iter().chain(files.0);
    let named = [heads.flat_map(u64::to_le_bytes).collect(), files.1].concat();
    let auxiliary = fs::read(format!("/proc/{pid}/auxv"))?;
    let notes = [(3, process), (6, auxiliary), (0x4649_4c45, named)];
    let notes = notes.map(|(kind, contents)| note(kind, contents)).concat();

    let mut at = (64 + 56 * (1 + segments.len())) as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
    file.extend([0, 64, 0].map(u64::to_le_bytes).concat());
    for half in [0, 0, 64, 56, 1 + segments.len() as u16, 64, 0, 0] {
        file.write_all(&half.to_le_bytes())?;
    }
    file.extend(program((4, 4), at, (0, 0), notes.len() as u64));
    at += notes.len() as u64;
    for (start, end, flags, bytes) in &segments {
        file.extend(program((1, *flags), at, (*start, end - start), bytes.len() as u64));
        at += bytes.len() as u64;
    }
    file.extend(notes);
    for (.., bytes) in segments {
        file.extend(bytes);
    }
    Ok(file)
}

fn program((kind, flags): (u32, u32), at: u64, (start, len): (u64, u64), in_file: u64) -> Vec<u8> {
    let halves = [kind, flags].map(u32::to_le_bytes).concat();
    [halves, [at, start, 0, in_file, len, 4096].map(u64::to_le_bytes).concat()].concat()
}

fn note(kind: u32, mut contents: Vec<u8>) -> Vec<u8> {
    let mut note = [5, contents.len() as u32, kind].map(u32::to_le_bytes).concat();
    note.extend(b"CORE\0\0\0\0");
    contents.resize(contents.len().next_multiple_of(4), 0);
    note.extend(contents);
    note
}
