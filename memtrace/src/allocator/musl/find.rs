//! Finds `__malloc_context` in the data of musl, or of a static program, by what it looks like.

use std::{io, ops::Range};

use crate::{
    allocator::{
        mappings::{Mappings, is_private_writable},
        memory::ReadMemory,
        search::{at_most, search},
    },
    model::region_map::PAGE,
};

/// Offsets in `struct malloc_context` (src/malloc/mallocng/meta.h, 1.2.1 to 1.2.5), 64 bits, in words.
const INIT_DONE: usize = 1;
const AREA_HEAD: usize = 7;
const AREA_TAIL: usize = 8;
/// How much two pieces that are searched overlap.
const OVERLAP: u64 = 4096;
/// Data of a program that is searched at most: a static one may have any amount of it.
const MOST: u64 = 256 << 20;

/// What the walk needs of `struct malloc_context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// The random number that every `meta_area` carries.
    pub(super) secret: u64,
    /// The first `meta_area`.
    pub(super) areas: u64,
}

/// Returns the context of the first range that has one.
pub(super) fn context<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    data: &[Range<u64>],
) -> io::Result<Option<Context>> {
    search(memory, at_most(data, MOST), OVERLAP, |_, words| {
        for words in words.windows(AREA_TAIL + 1) {
            if let Some(context) = candidate(mappings, words)
                && are_areas(memory, context, words[AREA_TAIL])?
            {
                return Ok(Some(context));
            }
        }
        Ok(None)
    })
}

fn candidate(mappings: &Mappings, words: &[u64]) -> Option<Context> {
    let (secret, areas) = (words[0], words[AREA_HEAD]);
    let is_area = |area: u64| {
        area != 0 && area.is_multiple_of(PAGE) && mappings.at(area).is_some_and(is_private_writable)
    };
    let is_one =
        secret != 0 && words[INIT_DONE] as u32 == 1 && is_area(areas) && is_area(words[AREA_TAIL]);
    is_one.then_some(Context { secret, areas })
}

/// Tells whether the first and the last area carry the secret, and no other follows the last.
fn are_areas<M: ReadMemory>(memory: &M, context: Context, tail: u64) -> io::Result<bool> {
    let Some(head) = memory.word(context.areas)? else { return Ok(false) };
    let tail = memory.words(tail, 2)?;
    Ok(head == context.secret && tail.is_some_and(|words| words == [context.secret, 0]))
}

/// Tells whether a mapped file is musl.
pub fn is_musl(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with("ld-musl-") || name.starts_with("libc.musl-") || name == "libc.so"
}

/// Returns the third part of musl's version 1.2 out of the contents of its file: the dynamic linker
/// tells it (src/internal/version.c).
pub fn patch_version(file: &[u8]) -> Option<u32> {
    const BEFORE: &[u8] = b"\x001.2.";
    let places = file.windows(BEFORE.len() + 2).filter(|bytes| bytes.starts_with(BEFORE));
    let mut digits = places.map(|bytes| (bytes[BEFORE.len()], bytes[BEFORE.len() + 1]));
    let (digit, _) = digits
        .find(|&(digit, behind)| digit.is_ascii_digit() && (behind == 0 || behind == b'-'))?;
    Some(u32::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_tells_its_version() {
        assert_eq!(patch_version(b"x\x001.2.3\0musl libc"), Some(3));
        assert_eq!(patch_version(b"\x001.2.x\0\x001.2.5-git-7-gabc\0"), Some(5));
        assert_eq!(patch_version(b"\x001.1.24\0"), None);
        assert_eq!(patch_version(b"\x001.2.3"), None);
        assert_eq!(patch_version(b""), None);
    }

    #[test]
    fn musl_is_told_by_its_name() {
        assert!(is_musl("/lib/ld-musl-x86_64.so.1"));
        assert!(is_musl("/usr/lib/x86_64-linux-musl/libc.so"));
        assert!(!is_musl("/usr/lib/x86_64-linux-gnu/libc.so.6"));
    }
}
