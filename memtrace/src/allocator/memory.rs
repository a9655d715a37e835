//! How a walk reads: what is behind each page first, then only pages that are there.

use std::{io, ops::Range};

use crate::model::region_map::PAGE;

/// What is behind a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageState {
    /// Nothing: never touched, or given back. Reads as zeros, and is not read.
    #[default]
    Absent,
    /// In swap: not read, since that would bring it in.
    Swapped,
    /// A frame that only this process has mapped.
    Own,
    /// A frame that others have mapped too: of a file, or shared since a fork.
    Shared,
    /// The kernel's zero page, which is no frame of the process.
    Zero,
    /// There, as far as anyone knows: a core file does not tell what was resident.
    Unknown,
}

impl PageState {
    /// Tells whether its contents may be read without changing anything.
    pub const fn is_readable(self) -> bool {
        matches!(self, Self::Own | Self::Shared | Self::Unknown)
    }

    /// Tells whether it counts as resident memory of the process.
    pub const fn is_resident(self) -> bool {
        matches!(self, Self::Own | Self::Shared)
    }
}

/// Bytes of a huge page.
pub const HUGE_PAGE: u64 = 512 * PAGE;

/// A piece of memory to be read.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Its first byte.
    pub address: u64,
    /// Where it goes.
    pub into: &'a mut [u8],
}

/// The memory of a process, or of what is left of one.
pub trait ReadMemory {
    /// Tells whether it knows what is resident. If not, pages are [`PageState::Unknown`] or absent.
    fn knows_residency(&self) -> bool {
        true
    }

    /// Says what is behind each page from `start` on.
    ///
    /// Errors: the process is gone, or may not be looked at.
    fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()>;

    /// Reads pieces. What is not there, or in swap, becomes zeros: a read changes nothing.
    ///
    /// Errors: the process is gone, or may not be looked at.
    fn read(&self, pieces: &mut [Piece<'_>]) -> io::Result<()>;

    /// Tells whether a page is part of a huge page that is mapped as a whole; false where nobody knows.
    fn is_huge(&self, _page: u64) -> bool {
        false
    }

    /// Reads words; `None` when not every page of them is there to be read.
    ///
    /// Errors: as for [`Self::read`].
    fn words(&self, address: u64, count: usize) -> io::Result<Option<Vec<u64>>> {
        let Some(end) = address.checked_add(count as u64 * 8) else { return Ok(None) };
        let pages = pages_of(address..end);
        let mut states = vec![PageState::Absent; ((pages.end - pages.start) / PAGE) as usize];
        self.pages(pages.start, &mut states)?;
        if !states.iter().all(|state| state.is_readable()) {
            return Ok(None);
        }
        let mut bytes = vec![0; count * 8];
        self.read(&mut [Piece { address, into: &mut bytes }])?;
        Ok(Some(bytes.chunks_exact(8).map(word).collect()))
    }

    /// Reads one word; `None` when its page is not there to be read.
    ///
    /// Errors: as for [`Self::read`].
    fn word(&self, address: u64) -> io::Result<Option<u64>> {
        Ok(self.words(address, 1)?.map(|words| words[0]))
    }
}

/// Returns the whole pages that a range of bytes touches.
pub fn pages_of(bytes: Range<u64>) -> Range<u64> {
    bytes.start & !(PAGE - 1)..bytes.end.saturating_add(PAGE - 1) & !(PAGE - 1)
}

/// Returns a little-endian word of eight bytes.
pub fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
