//! A made-up memory: what tests and fuzzers walk.

use std::{collections::BTreeMap, io, ops::Range};

use super::{
    mappings::Mappings,
    memory::{PageState, Piece, ReadMemory},
};
use crate::{
    model::region_map::{PAGE, flag},
    source::procfs::Mapping,
};

/// Pages that are there, each resident, and the regions that were named; all else reads as zeros.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pages: BTreeMap<u64, Vec<u64>>,
    regions: Vec<(Range<u64>, &'static str)>,
}

impl Image {
    /// Adds a region of whole pages that are all there.
    pub fn add(&mut self, range: Range<u64>, name: &'static str) {
        self.touch(range.clone());
        self.regions.push((range, name));
    }

    /// Makes pages be there.
    pub fn touch(&mut self, range: Range<u64>) {
        for page in range.step_by(PAGE as usize) {
            self.page(page);
        }
    }

    /// Writes words, whose pages are there from then on. `address` is that of a word.
    pub fn write(&mut self, address: u64, words: &[u64]) {
        for (at, word) in (address..).step_by(8).zip(words) {
            self.page(at)[(at % PAGE / 8) as usize] = *word;
        }
    }

    /// Writes bytes over what is there.
    pub fn overwrite(&mut self, address: u64, bytes: &[u8]) {
        for (at, byte) in (address..).zip(bytes) {
            if let Some(page) = self.pages.get_mut(&(at & !(PAGE - 1))) {
                let word = &mut page[(at % PAGE / 8) as usize];
                let shift = at % 8 * 8;
                *word = *word & !(0xff << shift) | u64::from(*byte) << shift;
            }
        }
    }

    /// Returns a word.
    pub fn word(&self, address: u64) -> u64 {
        let page = self.pages.get(&(address & !(PAGE - 1)));
        page.map_or(0, |page| page[(address % PAGE / 8) as usize])
    }

    /// Returns the addresses of the words that are not 0.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        let of_page = |(&page, words)| (page..).step_by(8).zip(words);
        self.pages.iter().flat_map(of_page).filter(|(_, word)| **word != 0).map(|(at, _)| at)
    }

    fn page(&mut self, address: u64) -> &mut Vec<u64> {
        self.pages.entry(address & !(PAGE - 1)).or_insert_with(|| vec![0; (PAGE / 8) as usize])
    }

    /// Returns the regions that were named, as `/proc/PID/maps` would.
    pub fn mappings(&self) -> Mappings {
        let mapping = |(range, name): &(Range<u64>, &str)| Mapping {
            start: range.start,
            end: range.end,
            flags: flag::READ | flag::WRITE,
            inode: u64::from(name.starts_with('/')),
            name: (*name).to_owned(),
            ..Mapping::default()
        };
        Mappings::new(self.regions.iter().map(mapping).collect())
    }
}

impl ReadMemory for Image {
    fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()> {
        states.fill(PageState::Absent);
        let end = start.saturating_add(states.len() as u64 * PAGE);
        for (page, _) in self.pages.range(start..end) {
            states[((page - start) / PAGE) as usize] = PageState::Own;
        }
        Ok(())
    }

    fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()> {
        for Piece { address, into } in pieces {
            into.fill(0);
            let end = address.saturating_add(into.len() as u64);
            for (&page, words) in self.pages.range(*address & !(PAGE - 1)..end) {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                let (from, to) = (page.max(*address), (page + PAGE).min(end));
                into[(from - *address) as usize..(to - *address) as usize]
                    .copy_from_slice(&bytes[(from - page) as usize..(to - page) as usize]);
            }
        }
        Ok(())
    }
}

/// Returns numbers that look random, the same for the same seed (xorshift).
pub fn random(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}
