//! Where in a region its pages lie: the region in equal cells, upwards from its first byte, and what each
//! of them holds. Not what the region holds: that is read on its own.

use std::{fmt, ops::Range};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};

/// Cells of a process at most, where it has no more regions than that.
const MOST: u64 = 256 << 10;
/// The same of each of many.
const MOST_OF_MANY: u64 = 16 << 10;
/// Processes that are not many.
const FEW: usize = 4;
/// Binary logarithm of the pages of an address space.
const LARGEST: u32 = 52;

/// Returns how many cells each of so many processes may have.
pub const fn share(processes: usize) -> u64 {
    if processes > FEW { MOST_OF_MANY } else { MOST }
}

/// How finely the regions of a process are divided: none into more cells than this, a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grain(u64);

impl Grain {
    /// The finest with which regions of so many pages have no more than `most` cells together.
    pub fn new(most: u64, regions: impl Iterator<Item = u64> + Clone) -> Self {
        let mut grain = Self(1 << most.max(1).ilog2());
        let all = |grain: Self| {
            let cells = regions.clone().map(|pages| cells(pages, grain.order(pages)));
            cells.fold(0, u64::saturating_add)
        };
        while grain.0 > 1 && all(grain) > most {
            grain.0 /= 2;
        }
        grain
    }

    /// Returns the binary logarithm of the pages of a cell, in a region of so many pages.
    pub const fn order(self, pages: u64) -> u32 {
        match pages.div_ceil(self.0).checked_next_power_of_two() {
            Some(pages) => pages.trailing_zeros(),
            None => LARGEST,
        }
    }
}

/// Returns how many cells a region has.
const fn cells(pages: u64, order: u32) -> u64 {
    pages.div_ceil(1 << order)
}

/// What the cells of a region hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cells {
    /// Binary logarithm of the pages of one; the last may have fewer.
    pub order: u32,
    /// Resident pages.
    pub resident: Runs,
    /// Free bytes in allocators that are resident, as a walk found them at another moment.
    pub free: Runs,
    /// Pages in swap.
    pub swapped: Runs,
}

impl Cells {
    /// Takes in free bytes: the number of each cell, of cells of so many pages, and its bytes.
    pub fn add_free(&mut self, order: u32, pages: u64, mut found: Vec<(u64, u64)>) {
        self.coarsen(order, pages);
        found.sort_unstable();
        let mut free = Filling::new(self.order - order, cells(pages, order));
        found.iter().for_each(|&(cell, bytes)| free.add(cell..cell + 1, bytes));
        self.free = free.finish();
    }

    /// Makes cells of at least so many pages, and leaves out what lies behind the end of the region.
    pub fn coarsen(&mut self, order: u32, pages: u64) {
        let before = self.order.min(LARGEST);
        self.order = before.max(order);
        for runs in [&mut self.resident, &mut self.free, &mut self.swapped] {
            let mut coarser = Filling::new(self.order - before, cells(pages, before));
            let mut at: u64 = 0;
            for &(count, value) in &runs.0 {
                let end = at.saturating_add(count);
                coarser.add(at..end, value);
                at = end;
            }
            *runs = coarser.finish();
        }
    }
}

/// Figures of neighbouring cells, equal ones together: how many, and the figure. Behind the last they
/// are 0. Written as one list of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<(u64, u64)>);

impl Runs {
    /// Returns how many neighbours there are with one figure, and the figure.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// Returns the sum over all cells.
    pub fn sum(&self) -> u64 {
        self.iter().fold(0, |sum, (count, value)| sum.saturating_add(count.saturating_mul(value)))
    }

    fn push(&mut self, count: u64, value: u64) {
        match self.0.last_mut() {
            _ if count == 0 => {}
            Some(last) if last.1 == value => last.0 = last.0.saturating_add(count),
            Some(_) | None => self.0.push((count, value)),
        }
    }
}

/// Sums figures of small pieces up in cells. Takes them in ascending order.
#[derive(Clone, Debug)]
pub struct Filling {
    /// Binary logarithm of the pieces of a cell.
    order: u32,
    /// Pieces of all cells.
    pieces: u64,
    runs: Runs,
    /// The cell that is not complete, and its figure.
    cell: u64,
    sum: u64,
}

impl Filling {
    /// Nothing is in the cells yet, of which each is `1 << order` pieces long.
    pub fn new(order: u32, pieces: u64) -> Self {
        Self { order: order.min(LARGEST), pieces, runs: Runs::default(), cell: 0, sum: 0 }
    }

    /// Adds a figure to each of some pieces. Those behind the end are left out.
    pub fn add(&mut self, pieces: Range<u64>, value: u64) {
        let Range { mut start, end } = pieces;
        let end = end.min(self.pieces);
        if value == 0 {
            return;
        }
        while start < end {
            let cell = start >> self.order;
            if cell > self.cell {
                self.runs.push(1, self.sum);
                self.runs.push(cell - self.cell - 1, 0);
                (self.cell, self.sum) = (cell, 0);
            }
            // Those that are filled whole; to the last of them more may come.
            let whole = (end >> self.order).saturating_sub(cell);
            if whole > 0 && start == cell << self.order && self.sum == 0 {
                let sum = value.saturating_mul(1 << self.order);
                self.runs.push(whole - 1, sum);
                (self.cell, self.sum) = (cell + whole - 1, sum);
                start = (cell + whole) << self.order;
            } else {
                let cell_end = ((cell + 1) << self.order).min(end);
                self.sum = self.sum.saturating_add(value.saturating_mul(cell_end - start));
                start = cell_end;
            }
        }
    }

    /// Returns the figures.
    pub fn finish(mut self) -> Runs {
        if self.sum > 0 {
            self.runs.push(1, self.sum);
        }
        self.runs
    }
}

impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().flat_map(|(count, value)| [count, value]))
    }
}

impl<'de> Deserialize<'de> for Runs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(Pairs)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Runs;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("pairs of a count and a figure")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Runs, A::Error> {
        let mut runs = Runs::default();
        while let Some(count) = list.next_element()? {
            let value = list.next_element()?.unwrap_or(0);
            runs.push(count, value);
        }
        Ok(runs)
    }
}

#[cfg(test)]
#[path = "cells_tests.rs"]
mod tests;
