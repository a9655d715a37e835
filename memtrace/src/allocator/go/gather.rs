//! Reads many small pieces of memory at once: those that lie close together become one.

use std::io;

use crate::allocator::memory::{Piece, ReadMemory};

/// Bytes between two pieces that are read along.
const GAP: u64 = 128;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// First address of each run, and where its bytes are, ascending.
    runs: Vec<(u64, usize)>,
    bytes: Vec<u8>,
}

impl Gathered {
    /// Reads pieces, by their address and their length. Their sum is the caller's to bound.
    pub(super) fn read<M: ReadMemory>(memory: &M, pieces: &mut [(u64, usize)]) -> io::Result<Self> {
        pieces.sort_unstable();
        let mut found = Self::default();
        let (mut len, mut end) = (0, 0);
        for &(address, piece) in &*pieces {
            let piece_end = address.saturating_add(piece as u64);
            match address.checked_sub(end) {
                Some(gap) if gap > GAP || found.runs.is_empty() => {
                    found.runs.push((address, len));
                    len += (piece_end - address) as usize;
                }
                _ => len += piece_end.saturating_sub(end) as usize,
            }
            end = end.max(piece_end);
        }
        found.bytes.resize(len, 0);
        let mut rest = &mut *found.bytes;
        let mut into = Vec::with_capacity(found.runs.len());
        let ends = found.runs.iter().skip(1).map(|&(_, at)| at).chain([len]);
        for (&(address, at), end) in found.runs.iter().zip(ends) {
            let (piece, behind) = rest.split_at_mut(end - at);
            into.push(Piece { address, into: piece });
            rest = behind;
        }
        memory.read(&mut into)?;
        Ok(found)
    }

    /// Returns the bytes of a piece that was read.
    pub(super) fn at(&self, address: u64, len: usize) -> Option<&[u8]> {
        let run = self.runs.partition_point(|&(start, _)| start <= address).checked_sub(1)?;
        let (start, at) = self.runs[run];
        let end = self.runs.get(run + 1).map_or(self.bytes.len(), |&(_, at)| at);
        let from = usize::try_from(address - start).ok()?.checked_add(at)?;
        self.bytes.get(..end)?.get(from..from.checked_add(len)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::image::Image;

    #[test]
    fn pieces_are_found_whether_they_were_read_together_or_not() {
        let mut image = Image::default();
        image.add(0x1000..0x3000, "");
        for at in (0x1000..0x3000).step_by(8) {
            image.write(at, &[at]);
        }
        let mut pieces = [(0x2ff0, 16), (0x1010, 24), (0x1018, 8), (0x1040, 8), (u64::MAX - 3, 8)];
        let gathered = Gathered::read(&image, &mut pieces).unwrap();
        assert_eq!(gathered.runs.len(), 3);
        for (address, len) in [(0x2ff0, 16), (0x1010, 24), (0x1018, 8), (0x1040, 8)] {
            let bytes = gathered.at(address, len).unwrap();
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes[..8], address.to_le_bytes());
        }
        assert_eq!(gathered.at(0x1000, 8), None);
        assert_eq!(gathered.at(0x2000, 8), None);
        assert_eq!(gathered.at(0x2ff8, 16), None);
    }
}
