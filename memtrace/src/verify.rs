//! The model against the kernel, difference by difference. Pure: both sides are given.
//!
//! Neighbours with the same attributes count as one region on both sides: whether the kernel merges
//! two VMAs also depends on what no system call shows (`anon_vma`, mm/vma.c), and nothing that
//! `/proc/PID/maps` says of a byte depends on it.

use std::{fmt, ops::Range};

use memtrace_common::{Counter, Ledger};
use serde::Serialize;

use crate::{
    model::{
        Model, SpaceId,
        region_map::{Backing, Vma, flag},
    },
    source::procfs::{Mapping, last_component, pagemap::ResidentPages},
};

/// The bits of the flags that `/proc/PID/maps` shows.
const SHOWN: u64 = flag::PROTECTION | flag::MAYSHARE;

/// Returns a region as `/proc/PID/maps` would show it, its name as both sides know it: the last
/// component of the file's path, or what the kernel calls the region.
fn of_model(model: &Model, space: SpaceId, vma: &Vma) -> Mapping {
    let kind = model.space(space).kind(vma);
    let (offset, dev, inode) = match vma.backing {
        Backing::File { dev, inode, offset, .. } => (offset, dev, inode),
        Backing::Anon { .. } => (0, 0, 0),
    };
    Mapping {
        start: vma.range.start,
        end: vma.range.end,
        flags: vma.flags & SHOWN,
        offset,
        dev,
        inode,
        name: last_component(model.region_name(vma, kind).unwrap_or_default()).to_owned(),
        ..Mapping::default()
    }
}

/// Returns a region of the kernel with its name as both sides know it.
fn of_kernel(mapping: &Mapping) -> Mapping {
    let path = mapping.path();
    // `[vvar]` is one region or two (`[vvar_vclock]`, 6.13). Names that a process gives itself
    // (`PR_SET_VMA_ANON_NAME`) are not followed.
    let name = match path {
        _ if path.starts_with("[anon:") || path.starts_with("[anon_shmem:") => "",
        _ if !mapping.is_anonymous() => last_component(path),
        "[vvar_vclock]" => "[vvar]",
        name => name,
    };
    let offset = if mapping.is_anonymous() { 0 } else { mapping.offset };
    let &Mapping { start, end, flags, dev, inode, .. } = mapping;
    let name = name.to_owned();
    // What is resident is compared in all, not by region.
    Mapping { start, end, flags, offset, dev, inode, name, ..Mapping::default() }
}

/// Tells whether `next` goes on where `mapping` ends, with the same attributes.
fn goes_on(mapping: &Mapping, next: &Mapping) -> bool {
    let len = mapping.end - mapping.start;
    let offset = if mapping.is_anonymous() { 0 } else { mapping.offset + len };
    let Mapping { flags, dev, inode, ref name, .. } = *mapping;
    mapping.end == next.start
        && next.offset == offset
        && (flags, dev, inode, name) == (next.flags, next.dev, next.inode, &next.name)
}

/// A region that one side has and the other has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// memtrace has it, the kernel has not.
    OnlyModel(Mapping),
    /// The kernel has it, memtrace has not.
    OnlyKernel(Mapping),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyModel(line) => write!(f, "only memtrace   {line}"),
            Self::OnlyKernel(line) => write!(f, "only the kernel {line}"),
        }
    }
}

/// Resident pages: by memtrace's books, and by the page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pages {
    /// Anonymous pages.
    pub anon: i64,
    /// Pages of files and tmpfs.
    pub file: i64,
}

impl Pages {
    /// Returns what a ledger says.
    pub fn of_ledger(ledger: &Ledger) -> Self {
        let present = ledger.present_pages();
        let [file, anon, shmem] =
            [Counter::File, Counter::Anon, Counter::Shmem].map(|counter| present[counter as usize]);
        Self { anon, file: file + shmem }
    }
}

impl From<ResidentPages> for Pages {
    fn from(pages: ResidentPages) -> Self {
        Self { anon: pages.anon as i64, file: pages.file as i64 }
    }
}

/// Returns the regions whose resident pages the kernel counts in an mm's RSS: not those of devices,
/// of which it has no `struct page`, and not huge ones, which it counts elsewhere.
pub fn counted(model: &Model, space: SpaceId) -> Vec<Range<u64>> {
    // `VM_PFNMAP` and `VM_IO` (include/linux/mm.h, 5.10 to 7.3).
    const NOT_COUNTED: u64 = 0x400 | 0x4000 | flag::HUGETLB;
    let vmas = model.space(space).regions.iter();
    vmas.filter(|vma| vma.flags & NOT_COUNTED == 0).map(|vma| vma.range.clone()).collect()
}

/// Holds the regions of an address space against those of the kernel, in ascending order.
pub fn regions(model: &Model, space: SpaceId, kernel: &[Mapping]) -> Vec<Difference> {
    let vmas = model.space(space).regions.iter();
    let ours = merged(vmas.map(|vma| of_model(model, space, vma)));
    let theirs = merged(kernel.iter().map(of_kernel));
    let mut differences = Vec::new();
    let (mut our_lines, mut their_lines) = (ours.iter().peekable(), theirs.iter().peekable());
    loop {
        match (our_lines.peek(), their_lines.peek()) {
            (Some(our), Some(their)) if our == their => {
                our_lines.next();
                their_lines.next();
            }
            (Some(our), their) if their.is_none_or(|their| our.start <= their.start) => {
                differences.push(Difference::OnlyModel((*our).clone()));
                our_lines.next();
            }
            (_, Some(their)) => {
                differences.push(Difference::OnlyKernel((*their).clone()));
                their_lines.next();
            }
            (Some(_) | None, None) => return differences,
        }
    }
}

/// Joins neighbours with the same attributes.
fn merged(lines: impl Iterator<Item = Mapping>) -> Vec<Mapping> {
    let mut merged: Vec<Mapping> = Vec::new();
    for line in lines {
        match merged.last_mut() {
            Some(last) if goes_on(last, &line) => last.end = line.end,
            _ => merged.push(line),
        }
    }
    merged
}

/// What came of all looks.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// `memtrace.verify/1`.
    pub schema: &'static str,
    /// The process.
    pub tgid: u32,
    /// Its name.
    pub comm: String,
    /// Looks at which both sides were still and could be compared.
    pub looks: u64,
    /// Looks at which the process changed its memory meanwhile.
    pub busy: u64,
    /// It exited.
    pub exited: bool,
    /// Times that memtrace knew that it had lost track, and read the regions again.
    pub resyncs: u64,
    /// Regions, at the last look that counted.
    pub regions: u64,
    /// Resident pages by memtrace's books and by the page tables, at the last look that counted.
    pub pages: Option<[Pages; 2]>,
    /// What differed, at the first look at which something did.
    pub differences: Vec<String>,
}

impl Verdict {
    /// Nothing was compared yet.
    pub const fn new(tgid: u32, comm: String) -> Self {
        Self {
            schema: "memtrace.verify/1",
            tgid,
            comm,
            looks: 0,
            busy: 0,
            exited: false,
            resyncs: 0,
            regions: 0,
            pages: None,
            differences: Vec::new(),
        }
    }

    /// Tells whether something was compared and nothing differed.
    pub const fn is_proof(&self) -> bool {
        self.differences.is_empty() && self.looks > 0
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
