//! The blocks that jemalloc's own books lie in (`base_block_t`, base.h and base.c, 5.1 to 5.3): each
//! starts at a multiple of 2 MiB, with its size and the next block of the same arena.

use std::{collections::BTreeMap, io};

use crate::allocator::{mappings::Mappings, memory::ReadMemory};

/// Alignment of blocks and unit of their sizes.
const UNIT: u64 = 2 << 20;
/// Units from the start of a block in which something of it is known to be, and blocks at most.
const MOST_STEPS: u64 = 2048;
const MOST_BLOCKS: usize = 65536;
/// Searches that end without a block before there is none.
const MOST_MISSES: u32 = 16;

/// Blocks, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// End of each, by first byte.
    ends: BTreeMap<u64, u64>,
    misses: u32,
}

impl Blocks {
    /// Takes the address of something that lies in a block. Finds that block and those behind it.
    pub(super) fn learn<M: ReadMemory>(
        &mut self,
        memory: &M,
        mappings: &Mappings,
        address: u64,
    ) -> io::Result<()> {
        if self.holds(address) || self.misses >= MOST_MISSES {
            return Ok(());
        }
        let mut start = address & !(UNIT - 1);
        for _ in 0..MOST_STEPS {
            if !mappings.is_private_writable(start) {
                break;
            }
            if let Some((end, mut next)) = head(memory, mappings, start)?
                && address < end
            {
                self.ends.insert(start, end);
                while next != 0 && !self.holds(next) && self.ends.len() < MOST_BLOCKS {
                    let Some((end, further)) = head(memory, mappings, next)? else { break };
                    self.ends.insert(next, end);
                    next = further;
                }
                return Ok(());
            }
            start = start.wrapping_sub(UNIT);
        }
        self.misses += 1;
        Ok(())
    }

    /// Returns the bytes of all blocks.
    pub(super) fn bytes(&self) -> u64 {
        self.ends.iter().fold(0, |sum: u64, (start, end)| sum.saturating_add(end - start))
    }

    fn holds(&self, address: u64) -> bool {
        let before = self.ends.range(..=address).next_back();
        before.is_some_and(|(_, &end)| address < end)
    }
}

/// Returns the end of the block that starts here, and the next.
fn head<M: ReadMemory>(
    memory: &M,
    mappings: &Mappings,
    start: u64,
) -> io::Result<Option<(u64, u64)>> {
    let Some(words) = memory.words(start, 5)? else { return Ok(None) };
    // The unused rest at its end is an extent without a tree: its address and size follow its bits.
    let &[size, next, _, rest, rest_size] = words.as_slice() else { return Ok(None) };
    let Some(end) = start.checked_add(size) else { return Ok(None) };
    let is_block = size > 0
        && size.is_multiple_of(UNIT)
        && next.is_multiple_of(UNIT)
        && (start..=end).contains(&rest)
        && rest.checked_add(rest_size) == Some(end)
        && mappings.is_private_writable(end - 1)
        && (next == 0 || mappings.is_private_writable(next));
    Ok(is_block.then_some((end, next)))
}
