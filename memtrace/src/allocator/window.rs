//! A piece of the walked memory, moved along as the walk goes: nothing of it is kept.

use std::{io, ops::Range};

use super::memory::{Piece, ReadMemory, word as memory_word};
use crate::model::region_map::PAGE;

/// Bytes that are read at once.
const WINDOW: u64 = 1 << 18;
/// Bytes behind an address that [`Window::reaches`] makes readable.
pub const AHEAD: u64 = 32;

/// A window on the memory of a process.
#[derive(Debug)]
pub struct Window {
    /// Nothing outside of it is read: whole pages.
    limits: Range<u64>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Nothing is read yet.
    pub fn new(limits: Range<u64>) -> Self {
        Self { limits, start: 0, bytes: Vec::new() }
    }

    /// Makes `address` and the next [`AHEAD`] bytes readable, what is not there as zeros; false when
    /// they lie outside the limits.
    #[inline]
    pub fn reaches<M: ReadMemory>(&mut self, memory: &M, address: u64) -> io::Result<bool> {
        if self.holds(address) {
            return Ok(true);
        }
        if address < self.limits.start || address.saturating_add(AHEAD) > self.limits.end {
            return Ok(false);
        }
        self.load(memory, address)?;
        Ok(true)
    }

    /// Tells whether an address and the next [`AHEAD`] bytes are in the window as it stands.
    #[inline]
    pub fn holds(&self, address: u64) -> bool {
        address >= self.start && address + AHEAD <= self.start + self.bytes.len() as u64
    }

    /// Returns the [`AHEAD`] bytes from an address on, as words; zeros outside of the window.
    #[inline]
    pub fn words(&self, address: u64) -> [u64; (AHEAD / 8) as usize] {
        let at = address.wrapping_sub(self.start) as usize;
        let bytes = self.bytes.get(at..).and_then(<[u8]>::first_chunk::<{ AHEAD as usize }>);
        let (words, _) = bytes.map_or(&[][..], |bytes| bytes).as_chunks::<8>();
        std::array::from_fn(|index| words.get(index).map_or(0, |word| u64::from_le_bytes(*word)))
    }

    /// Returns a word in the window; 0 outside of it.
    #[inline]
    pub fn word(&self, address: u64) -> u64 {
        let at = address.wrapping_sub(self.start) as usize;
        self.bytes.get(at..at.saturating_add(8)).map_or(0, memory_word)
    }

    #[cold]
    fn load<M: ReadMemory>(&mut self, memory: &M, address: u64) -> io::Result<()> {
        self.start = address & !(PAGE - 1);
        let end = (self.start + WINDOW + PAGE).min(self.limits.end);
        self.bytes.resize((end - self.start) as usize, 0);
        memory.read(&mut [Piece { address: self.start, into: &mut self.bytes }])
    }
}
