//! Goes over the groups upwards and says what is free on each page. Small groups lie in slots of larger
//! ones, so that several may be open at a time.

use std::io;

use super::groups::Group;
use crate::{
    allocator::{
        mappings::Mappings,
        memory::ReadMemory,
        pages::{OnPages, Pages, Sum, Use},
    },
    model::region_map::PAGE,
};

/// Groups in groups at most: each is at least twice as large as what lies in its slots.
const MOST_OPEN: usize = 64;

/// What was found, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Of all groups that do not lie in others.
    pub(super) system: u64,
    /// Of free slots.
    pub(super) free: u64,
    /// Resident bytes of free slots that may have been given back: nobody knows.
    pub(super) unsure: u64,
    /// Groups that did not fit to others: they changed while they were read.
    pub(super) torn: u64,
    /// What lies on each page.
    pub(super) pages: OnPages,
}

/// Where the walk stands.
pub(super) struct Sweep<'a, M> {
    /// Pages of free slots are given back; `None` when nobody knows.
    gives_back: Option<bool>,
    pages: Pages<'a, M>,
    sum: Sum<'a>,
    /// Up to here all is booked.
    at: u64,
    /// Each lies in the one before.
    open: Vec<Group>,
    found: Found,
}

impl<'a, M: ReadMemory> Sweep<'a, M> {
    /// Nothing was walked yet.
    pub(super) fn new(memory: &'a M, mappings: &'a Mappings, gives_back: Option<bool>) -> Self {
        Self {
            gives_back,
            pages: Pages::new(memory),
            sum: Sum::new(mappings),
            at: 0,
            open: Vec::new(),
            found: Found::default(),
        }
    }

    /// Takes the next group.
    pub(super) fn enter(&mut self, group: Group) -> io::Result<()> {
        while self.open.last().is_some_and(|outer| outer.end() <= group.start) {
            self.close()?;
        }
        self.free_before(group.start)?;
        let fits = match self.open.last() {
            Some(outer) => group.end() <= outer.end() && self.open.len() < MOST_OPEN,
            None => group.start >= self.at,
        };
        if !fits {
            self.found.torn += 1;
            return Ok(());
        }
        if self.open.is_empty() {
            self.found.system = self.found.system.saturating_add(group.end() - group.start);
            self.at = group.start;
        }
        self.open.push(group);
        Ok(())
    }

    /// Returns what was found.
    pub(super) fn finish(mut self) -> io::Result<Found> {
        while !self.open.is_empty() {
            self.close()?;
        }
        let Self { mut pages, sum, mut found, .. } = self;
        found.pages = sum.finish(&mut pages)?;
        Ok(found)
    }

    fn close(&mut self) -> io::Result<()> {
        self.free_before(u64::MAX)?;
        let Some(group) = self.open.pop() else { return Ok(()) };
        if self.open.is_empty() {
            let end = group.end();
            // What was left over ends on a page of others.
            let used_end = if group.has_pages() { end } else { end.next_multiple_of(PAGE) };
            self.add(self.at..used_end, Use::Used)?;
            self.at = end;
        }
        Ok(())
    }

    /// Books the free slots of the innermost group that start before an address.
    fn free_before(&mut self, limit: u64) -> io::Result<()> {
        let Some(mut group) = self.open.pop() else { return Ok(()) };
        while group.next_free().is_some_and(|slot| slot.start < limit)
            && let Some(slot) = group.take_free()
        {
            // A group that was made in the slot meanwhile was booked for it.
            if slot.start < self.at {
                continue;
            }
            self.add(self.at..slot.start, Use::Used)?;
            self.at = slot.end;
            self.found.free += slot.end - slot.start;
            let given = match self.gives_back {
                Some(false) => slot.end..slot.end,
                Some(true) | None => group.given_back(&slot),
            };
            self.add(slot.start..given.start, Use::Free)?;
            if self.gives_back.is_none() && !given.is_empty() {
                self.found.unsure += self.pages.count(given.clone())?.bytes();
            }
            self.add(given.end..slot.end, Use::Free)?;
        }
        self.open.push(group);
        Ok(())
    }

    fn add(&mut self, piece: std::ops::Range<u64>, is: Use) -> io::Result<()> {
        self.sum.add(&mut self.pages, piece, is)
    }
}
