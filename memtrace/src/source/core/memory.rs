//! The memory that a core file holds, read in place: of a file of any size only what is asked for.

use std::{io, ops::Range};

use super::elf::{ProgramHeader, ReadAt};
use crate::{
    allocator::memory::{PageState, Piece, ReadMemory, pages_of},
    model::region_map::PAGE,
};

/// First address of the kernel's half: `[vsyscall]` is listed there and is no memory of the process.
const KERNEL: u64 = 1 << 63;

/// The memory of a process as a core file holds it.
#[derive(Debug)]
pub struct CoreMemory<F> {
    file: F,
    /// Ascending, without overlaps.
    segments: Vec<Segment>,
}

/// A part of the address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its pages.
    pub(super) pages: Range<u64>,
    /// Its `PF_` bits.
    pub(super) flags: u32,
    /// The addresses whose contents are in the file: from its start, perhaps not to its end.
    pub(super) data: Range<u64>,
    /// Where they are there.
    offset: u64,
    /// Bytes that should be in the file and are not, since it was cut short.
    pub(super) missing: u64,
}

impl Segment {
    /// Takes a program header of a file of some size; `None` for what is no memory of a process.
    pub(super) fn new(header: &ProgramHeader, file_size: u64) -> Option<Self> {
        let (start, len) = (header.address.get(), header.in_memory.get());
        let end = start.checked_add(len).filter(|&end| end <= KERNEL && start < end)?;
        let in_file = header.file_range();
        let wanted = header.in_file.get().min(len);
        let there = file_size.min(in_file.end).saturating_sub(in_file.start).min(wanted);
        Some(Self {
            pages: pages_of(start..end),
            flags: header.flags.get(),
            data: start..start + there,
            offset: in_file.start,
            missing: wanted - there,
        })
    }
}

impl<F: ReadAt> CoreMemory<F> {
    /// Takes segments in any order.
    pub(super) fn new(file: F, mut segments: Vec<Segment>) -> Self {
        segments.sort_by_key(|segment| segment.pages.start);
        // What overlaps was damaged.
        segments.dedup_by(|next, segment| next.pages.start < segment.pages.end);
        Self { file, segments }
    }

    /// Returns its segments, ascending.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the segments that touch a range.
    fn touching(&self, range: Range<u64>) -> impl Iterator<Item = &Segment> {
        let first = self.segments.partition_point(|segment| segment.pages.end <= range.start);
        self.segments[first..].iter().take_while(move |segment| segment.pages.start < range.end)
    }
}

impl<F: ReadAt> ReadMemory for CoreMemory<F> {
    fn knows_residency(&self) -> bool {
        false
    }

    fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()> {
        states.fill(PageState::Absent);
        let end = start.saturating_add((states.len() as u64).saturating_mul(PAGE));
        for segment in self.touching(start..end) {
            let there = pages_of(segment.data.clone());
            if segment.data.is_empty() {
                continue;
            }
            let index = |address: u64| ((address.clamp(start, end) - start) / PAGE) as usize;
            states[index(there.start)..index(there.end)].fill(PageState::Unknown);
        }
        Ok(())
    }

    fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
        for Piece { address, into } in pieces {
            into.fill(0);
            let wanted = *address..address.saturating_add(into.len() as u64);
            for segment in self.touching(wanted.clone()) {
                let from = wanted.start.max(segment.data.start);
                let to = wanted.end.min(segment.data.end);
                if from < to {
                    let at = segment.offset.saturating_add(from - segment.data.start);
                    let inside = (from - wanted.start) as usize..(to - wanted.start) as usize;
                    self.file.fill(&mut into[inside], at)?;
                }
            }
        }
        Ok(())
    }
}
