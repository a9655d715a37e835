//! Goes through the data of a program or library, in pieces, for what an allocator's books look like.

use std::{io, ops::Range};

use super::memory::{PageState, Piece, ReadMemory, word};
use crate::model::region_map::PAGE;

/// Bytes that are searched at once.
const PIECE: u64 = 1 << 20;

/// Returns the beginnings of data, so much of each at most: a static program may have any amount of it.
pub fn at_most(data: &[Range<u64>], most: u64) -> impl Iterator<Item = Range<u64>> {
    data.iter().map(move |range| range.start..range.end.min(range.start.saturating_add(most)))
}

/// Calls `each` with the pieces of ranges of whole pages that are there, as words, and where they start.
/// Each piece has `overlap` bytes of the next one: more than what is looked for. Stops at the first
/// result.
pub fn search<M: ReadMemory, T>(
    memory: &M,
    ranges: impl IntoIterator<Item = Range<u64>>,
    overlap: u64,
    mut each: impl FnMut(u64, &[u64]) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let (mut states, mut bytes) = (Vec::new(), Vec::new());
    let starts = |Range { start, end }| {
        (start..end).step_by(PIECE as usize).map(move |start| (start, end - start))
    };
    for (start, rest) in ranges.into_iter().flat_map(starts) {
        let len = rest.min(PIECE + overlap);
        states.clear();
        states.resize(len.div_ceil(PAGE) as usize, PageState::Absent);
        memory.pages(start, &mut states)?;
        if !states.iter().any(|state| state.is_readable()) {
            continue;
        }
        bytes.resize(len as usize, 0);
        memory.read(&mut [Piece { address: start, into: &mut bytes }])?;
        let words: Vec<u64> = bytes.chunks_exact(8).map(word).collect();
        if let Some(found) = each(start, &words)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Returns where some bytes are in a file.
pub fn position(file: &[u8], bytes: &[u8]) -> Option<usize> {
    file.windows(bytes.len()).position(|window| window == bytes)
}

#[cfg(test)]
mod tests {
    use super::{super::image::Image, *};

    #[test]
    fn what_lies_across_two_pieces_is_seen_whole_and_what_is_not_there_is_passed_over() {
        let mut image = Image::default();
        image.add(PIECE - PAGE..PIECE + PAGE, "");
        image.write(PIECE - 8, &[7, 8]);
        let starts = |overlap| {
            let mut starts = Vec::new();
            let found = search(&image, std::iter::once(0..4 * PIECE), overlap, |start, words| {
                starts.push(start);
                let at = words.windows(2).position(|pair| pair == [7, 8]);
                Ok(at.map(|at| start + at as u64 * 8))
            });
            (found.expect("an image can be read"), starts)
        };
        assert_eq!(starts(PAGE), (Some(PIECE - 8), vec![0]));
        assert_eq!(starts(0), (None, vec![0, PIECE]));
    }
}
