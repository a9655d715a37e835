//! The regions of a process as its core file tells them: segments say where and how, notes say which
//! file. What the file leaves out (whether a mapping is shared) is filled in as it mostly is.

use std::collections::HashMap;

use super::{
    elf::{EXEC, READ, WRITE},
    memory::Segment,
    notes::{Auxiliary, MappedFile, Notes},
};
use crate::{model::region_map::flag, source::procfs::Mapping};

/// Returns the regions, ascending.
pub(super) fn mappings(segments: &[Segment], notes: &Notes) -> Vec<Mapping> {
    let mut mappings = Vec::new();
    let mut numbers = HashMap::new();
    let mut files = notes.files.iter().peekable();
    for segment in segments {
        let mut start = segment.pages.start;
        while start < segment.pages.end {
            // `gcore` leaves out what is in files anyway (gdb/linux-tdep.c, 13).
            while let Some(file) = files.next_if(|file| file.range.end <= start) {
                mappings.extend(left_out(file, &mappings, &mut numbers));
            }
            let end = segment.pages.end;
            let (end, file) = match files.peek() {
                Some(file) if file.range.start <= start => (end.min(file.range.end), Some(*file)),
                Some(file) => (end.min(file.range.start), None),
                None => (end, None),
            };
            let mut mapping =
                Mapping { start, end, flags: flags(segment.flags), ..Mapping::default() };
            if let Some(file) = file {
                name(&mut mapping, file, &mut numbers);
            } else {
                mapping.name = special(&mapping, &notes.auxiliary).to_owned();
            }
            mappings.push(mapping);
            start = end;
        }
    }
    for file in files {
        mappings.extend(left_out(file, &mappings, &mut numbers));
    }
    mappings
}

/// Returns what of a mapped file no segment holds, given the regions below its end.
fn left_out<'a>(
    file: &'a MappedFile,
    mappings: &[Mapping],
    numbers: &mut HashMap<&'a str, u64>,
) -> Option<Mapping> {
    let below = mappings.last().map_or(0, |mapping| mapping.end);
    let (start, end) = (file.range.start.max(below), file.range.end);
    let mut mapping = Mapping { start, end, flags: flag::READ, ..Mapping::default() };
    name(&mut mapping, file, numbers);
    (start < end).then_some(mapping)
}

/// Says which file is behind a region. A core has no inode numbers: files are counted instead.
fn name<'a>(mapping: &mut Mapping, file: &'a MappedFile, numbers: &mut HashMap<&'a str, u64>) {
    let next = numbers.len() as u64 + 1;
    mapping.inode = *numbers.entry(&file.name).or_insert(next);
    mapping.offset = file.offset.saturating_add(mapping.start.saturating_sub(file.range.start));
    mapping.name.clone_from(&file.name);
    // Nobody maps these but to share them (mm/shmem.c, ipc/shm.c).
    if file.name == "/dev/zero (deleted)" || file.name.starts_with("/SYSV") {
        mapping.flags |= flag::MAYSHARE;
    }
}

/// Returns what the kernel calls a region that is no file's.
fn special(mapping: &Mapping, auxiliary: &Auxiliary) -> &'static str {
    let &Auxiliary { vdso, random, .. } = auxiliary;
    let holds = |address: u64| (mapping.start..mapping.end).contains(&address);
    match () {
        () if holds(vdso) => "[vdso]",
        () if holds(random) => "[stack]",
        () => "",
    }
}

fn flags(bits: u32) -> u64 {
    let kinds = [(READ, flag::READ), (WRITE, flag::WRITE), (EXEC, flag::EXEC)];
    kinds.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, flag)| flag).sum()
}
