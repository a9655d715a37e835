//! V8's heaps, as Node.js has them: how much memory they have from the kernel, by the heads of their
//! chunks. No object is looked at: what of it is free is not known.

use std::{collections::BTreeMap, io};

use super::{
    mappings::{Mappings, is_private_writable},
    memory::ReadMemory,
    walked::{Arena, Unwalked, Walked},
};
use crate::{model::region_map::PAGE, source::procfs::Mapping};

/// Its name in every output.
pub const NAME: &str = "v8";

/// Chunks lie at multiples of this (`kPageSizeBits`, src/base/build_config.h, V8 11.3).
const ALIGN: u64 = 256 << 10;
/// The head of a chunk, in words: its size, flags, its heap, and where its objects begin and end
/// (`BasicMemoryChunk`, src/heap/basic-memory-chunk.h, V8 11.3).
const HEAD: usize = 5;
/// Bytes before the objects at most.
const MOST_HEAD: u64 = 64 << 10;
/// Chunks that a heap has at least: an empty one has more.
const AT_LEAST: u64 = 4;
/// Places that are looked at (32 GiB), and heaps that are told apart: each worker has one.
const MOST_PLACES: u64 = 1 << 17;
const MOST_HEAPS: usize = 1 << 10;

/// Finds the heaps of a process.
///
/// Errors: it does not use V8; its heaps are not as in V8 11.3; it cannot be read.
pub fn walk<M: ReadMemory>(memory: &M, mappings: &Mappings) -> Result<Walked, Unwalked> {
    if !mappings.iter().any(|mapping| is_v8(mapping.path())) {
        return Err(Unwalked::NotUsed(NAME));
    }
    let mut heaps = heaps(memory, mappings)?;
    heaps.retain(|_, heap| heap.chunks >= AT_LEAST);
    if heaps.is_empty() {
        let why = "its heaps are not recognised: they look unlike those of V8 11.3".to_owned();
        return Err(Unwalked::NotUnderstood { name: NAME, why });
    }
    let arena =
        |(&address, heap): (&u64, &Heap)| Arena { address, system: heap.bytes, ..Arena::default() };
    let system = heaps.values().fold(0, |sum: u64, heap| sum.saturating_add(heap.bytes));
    Ok(Walked {
        name: NAME,
        is_lower_bound: true,
        system,
        in_use: system,
        arenas: heaps.iter().map(arena).collect(),
        ..Walked::default()
    })
}

/// Tells whether a mapped file is a program with V8 in it, or V8.
fn is_v8(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    matches!(name, "node" | "nodejs") || name.starts_with("libnode.so")
}

/// The chunks of a heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Heap {
    chunks: u64,
    bytes: u64,
}

/// Returns heaps by their address.
fn heaps<M: ReadMemory>(memory: &M, mappings: &Mappings) -> io::Result<BTreeMap<u64, Heap>> {
    let mut heaps: BTreeMap<u64, Heap> = BTreeMap::new();
    let mut places = 0;
    let mut behind = 0;
    for mapping in mappings.iter().filter(|mapping| may_have_chunks(mapping)) {
        let mut next = mapping.start.max(behind).checked_next_multiple_of(ALIGN);
        while let Some(start) = next.filter(|&start| start < mapping.end && places < MOST_PLACES) {
            places += 1;
            let mut len = ALIGN;
            if let Some((heap, size)) = chunk(memory, mappings, start)?
                && (heaps.contains_key(&heap) || heaps.len() < MOST_HEAPS)
            {
                let found = heaps.entry(heap).or_default();
                found.chunks += 1;
                found.bytes = found.bytes.saturating_add(size);
                behind = start + size;
                len = size;
            }
            next = start.checked_add(len).and_then(|end| end.checked_next_multiple_of(ALIGN));
        }
    }
    Ok(heaps)
}

fn may_have_chunks(mapping: &Mapping) -> bool {
    mapping.inode == 0 && mapping.name.is_empty() && is_private_writable(mapping)
}

/// Returns the heap of a chunk, and its bytes.
fn chunk<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    start: u64,
) -> io::Result<Option<(u64, u64)>> {
    let Some(words) = memory.words(start, HEAD)? else { return Ok(None) };
    let &[size, _, heap, objects, objects_end] = words.as_slice() else { return Ok(None) };
    let Some(end) = start.checked_add(size) else { return Ok(None) };
    let is_one = size > 0
        && size.is_multiple_of(PAGE)
        && objects > start
        && objects - start <= MOST_HEAD
        && objects < objects_end
        && objects_end <= end
        // Only the head of one for machine code is writable.
        && mappings.at(end - 1).is_some_and(|mapping| mapping.inode == 0)
        && heap.is_multiple_of(8)
        && mappings.is_private_writable(heap);
    Ok(is_one.then_some((heap, size)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::image::Image;

    const HEAP: u64 = 0x10_0000;
    const FIRST: u64 = 0x100_0000;

    /// A program with chunks, one of them twice as large as others.
    fn image(name: &'static str, chunks: u64) -> Image {
        let mut image = Image::default();
        image.add(0x1000..0x2000, name);
        image.add(HEAP..HEAP + 0x1000, "[heap]");
        image.add(FIRST..FIRST + (chunks + 1) * ALIGN, "");
        for number in 0..chunks {
            let start = FIRST + if number == 0 { 0 } else { (number + 1) * ALIGN };
            let size = if number == 0 { 2 * ALIGN } else { ALIGN };
            image.write(start, &[size, 0x12, HEAP, start + 0x1148, start + size]);
        }
        image
    }

    #[test]
    fn chunks_are_summed_by_their_heap() {
        let image = image("/usr/bin/node", 5);
        let walked = walk(&image, &image.mappings()).unwrap();
        assert_eq!((walked.system, walked.in_use), (6 * ALIGN, 6 * ALIGN));
        assert_eq!((walked.free_resident, walked.trim, walked.free.len()), (None, None, 0));
        assert!(walked.is_lower_bound);
        assert_eq!(walked.arenas.len(), 1);
        assert_eq!((walked.arenas[0].address, walked.arenas[0].system), (HEAP, 6 * ALIGN));
    }

    #[test]
    fn heads_that_look_otherwise_are_none_of_v8s() {
        let breaks = [(0, u64::MAX), (0, 0), (0, 1 << 40), (16, 0x50_0000), (24, 0), (32, FIRST)];
        for (offset, word) in breaks {
            let mut image = image("/usr/bin/node", 4);
            for number in [0, 2, 3, 4] {
                image.write(FIRST + number * ALIGN + offset, &[word]);
            }
            let result = walk(&image, &image.mappings());
            assert!(matches!(result, Err(Unwalked::NotUnderstood { name: NAME, .. })), "{offset}");
        }
    }

    #[test]
    fn only_programs_with_v8_are_looked_at() {
        let image = image("/usr/bin/python3", 5);
        let result = walk(&image, &image.mappings());
        assert!(matches!(result, Err(Unwalked::NotUsed(NAME))));
        assert!(is_v8("/usr/lib/x86_64-linux-gnu/libnode.so.115") && !is_v8("/bin/node-exporter"));
    }
}
