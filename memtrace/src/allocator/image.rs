//! A made-up memory: what tests and fuzzers walk.

use std::{io, ops::Range};

use super::{
    mappings::Mappings,
    memory::{PageState, Piece, ReadMemory},
};
use crate::{
    model::region_map::{PAGE, flag},
    source::procfs::Mapping,
};

/// Pieces of memory, each a region of whole pages that are all resident.
#[derive(Clone, Debug, Default)]
pub struct Image {
    regions: Vec<Region>,
}

#[derive(Clone, Debug)]
struct Region {
    start: u64,
    name: &'static str,
    bytes: Vec<u8>,
}

impl Image {
    /// Adds a region of zeros. `range` is of whole pages, above those that are there.
    pub fn add(&mut self, range: Range<u64>, name: &'static str) {
        let bytes = vec![0; (range.end - range.start) as usize];
        self.regions.push(Region { start: range.start, name, bytes });
    }

    /// Writes words; what lies outside of the regions is left out.
    pub fn write(&mut self, address: u64, words: &[u64]) {
        for (at, word) in (0..).map(|n: u64| address.wrapping_add(n * 8)).zip(words) {
            if let Some(bytes) = self.at(at).and_then(|bytes| bytes.get_mut(..8)) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// Writes bytes over what is there, from an address to the end of its region at most.
    pub fn overwrite(&mut self, address: u64, bytes: &[u8]) {
        if let Some(into) = self.at(address) {
            let len = into.len().min(bytes.len());
            into[..len].copy_from_slice(&bytes[..len]);
        }
    }

    fn at(&mut self, address: u64) -> Option<&mut [u8]> {
        self.regions.iter_mut().find_map(|region| {
            let offset = usize::try_from(address.checked_sub(region.start)?).ok()?;
            region.bytes.get_mut(offset..).filter(|bytes| !bytes.is_empty())
        })
    }

    /// Returns its regions as `/proc/PID/maps` would.
    pub fn mappings(&self) -> Mappings {
        let mapping = |region: &Region| Mapping {
            start: region.start,
            end: region.start + region.bytes.len() as u64,
            flags: flag::READ | flag::WRITE,
            inode: u64::from(region.name.starts_with('/')),
            name: region.name.to_owned(),
            ..Mapping::default()
        };
        Mappings::new(self.regions.iter().map(mapping).collect())
    }

    fn byte(&self, address: u64) -> Option<u8> {
        self.regions.iter().find_map(|region| {
            let offset = usize::try_from(address.checked_sub(region.start)?).ok()?;
            region.bytes.get(offset).copied()
        })
    }
}

impl ReadMemory for Image {
    fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()> {
        for (page, state) in (start..).step_by(PAGE as usize).zip(states) {
            *state = self.byte(page).map_or(PageState::Absent, |_| PageState::Own);
        }
        Ok(())
    }

    fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
        for piece in pieces {
            piece.into.fill(0);
            let end = piece.address.saturating_add(piece.into.len() as u64);
            for region in &self.regions {
                let region_end = region.start + region.bytes.len() as u64;
                let (from, to) = (piece.address.max(region.start), end.min(region_end));
                if from < to {
                    let source =
                        &region.bytes[(from - region.start) as usize..(to - region.start) as usize];
                    let at = (from - piece.address) as usize;
                    piece.into[at..at + source.len()].copy_from_slice(source);
                }
            }
        }
        Ok(())
    }
}
