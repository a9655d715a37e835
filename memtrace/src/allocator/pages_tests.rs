//! What a walk sums up, against a slow model that looks at each byte.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{model::region_map::flag, source::procfs::Mapping};

/// Pages from [`START`] on.
struct Memory(Vec<PageState>);

impl ReadMemory for Memory {
    fn pages(&self, start: u64, states: &mut [PageState]) -> io::Result<()> {
        for (state, page) in states.iter_mut().zip(start / PAGE..) {
            let known = page.checked_sub(START / PAGE).and_then(|at| self.0.get(at as usize));
            *state = known.copied().unwrap_or_default();
        }
        Ok(())
    }

    fn read(&self, _pieces: &mut [Piece<'_>]) -> io::Result<()> {
        unreachable!("nothing is read")
    }
}

/// Two pages before the end of a block.
const START: u64 = 5 * BLOCK - 2 * PAGE;

fn states() -> impl Strategy<Value = PageState> {
    use PageState::{Absent, Own, Shared, Swapped, Zero};
    prop_oneof![5 => Just(Own), 1 => Just(Shared), 1 => Just(Absent), 1 => Just(Swapped), 1 => Just(Zero)]
}

fn uses() -> impl Strategy<Value = Use> {
    prop_oneof![Just(Use::Used), Just(Use::Cached), Just(Use::Free)]
}

proptest! {
    #[test]
    fn free_bytes_are_where_they_are(
        states in vec(states(), 1..40),
        regions in vec(1u64..12, 1..6),
        pieces in vec((0u64..3 * PAGE, 1u64..4 * PAGE, uses()), 0..20),
        most in prop_oneof![Just(None), (5u64..40).prop_map(Some)],
    ) {
        let end = START + states.len() as u64 * PAGE;
        let mut mapped = Vec::new();
        let mut start = START;
        for pages in regions {
            let end = end.min(start + pages * PAGE);
            if start < end {
                let flags = flag::READ | flag::WRITE;
                mapped.push(Mapping { start, end, flags, ..Mapping::default() });
            }
            start = end;
        }
        let mut mappings = Mappings::new(mapped.clone());
        if let Some(most) = most {
            mappings = mappings.divided(most);
        }
        let memory = Memory(states.clone());
        let (mut found, mut sum) = (Pages::new(&memory), Sum::new(&mappings));
        // Free bytes of each page, slowly.
        let mut slow = vec![0u64; states.len()];
        let mut at = START;
        for (gap, len, is) in pieces {
            let piece = at + gap..at + gap + len;
            at = piece.end;
            sum.add(&mut found, piece.clone(), is)?;
            for byte in piece {
                let page = ((byte - START) / PAGE) as usize;
                if is != Use::Used && states.get(page).is_some_and(|state| state.is_resident()) {
                    slow[page] += 1;
                }
            }
        }
        let sums = sum.finish(&mut found)?;
        prop_assert_eq!(sums.free, slow.iter().sum::<u64>());
        let mut in_cells: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for InCells { start, order, bytes } in &sums.in_cells {
            let region = mappings.at(*start).expect("it is mapped");
            prop_assert_eq!(Some(*order), mappings.order(region));
            for (cell, bytes) in bytes {
                *in_cells.entry((*start, *cell)).or_insert(0) += bytes;
            }
        }
        let (mut by_region, mut by_cell) = (BTreeMap::new(), BTreeMap::new());
        for Mapping { start, end, .. } in mapped {
            for page in (start..end).step_by(PAGE as usize) {
                let bytes = slow[((page - START) / PAGE) as usize];
                if bytes > 0 {
                    *by_region.entry(start).or_insert(0) += bytes;
                    if let Some(order) = mappings.order(mappings.at(start).expect("it is mapped")) {
                        let cell = ((page - start) / PAGE) >> order;
                        *by_cell.entry((start, cell)).or_insert(0) += bytes;
                    }
                }
            }
        }
        prop_assert_eq!(sums.by_region, by_region);
        prop_assert_eq!(in_cells, by_cell);
    }
}
