//! A series in time of bounded length: when it is full, neighbours become one.

use std::{collections::BTreeMap, mem};

use serde::{Serialize, Serializer, ser::SerializeSeq as _};

/// What two neighbours can become one of.
pub trait Merge {
    /// Takes another one in. Must not depend on the order in which several are taken in.
    fn merge(&mut self, other: Self);
}

/// Items by when they were. All that fall into one step of time are one item; steps grow when there
/// would be too many of them. A time without items takes no room.
///
/// The steps depend on which times there are, not on the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series<T> {
    /// A step is 2 to this many nanoseconds long.
    shift: u32,
    steps: BTreeMap<u64, T>,
}

impl<T> Default for Series<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Series<T> {
    /// Items that it has at most.
    pub const CAPACITY: usize = 1024;
    /// The first steps are of 65.5 µs.
    const SHIFT: u32 = 16;

    /// It is empty.
    pub const fn new() -> Self {
        Self { shift: Self::SHIFT, steps: BTreeMap::new() }
    }

    /// Returns how long a step is, nanoseconds.
    pub const fn step_ns(&self) -> u64 {
        1 << self.shift
    }

    /// Returns when each step begins, and what is in it, in the order of time.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.steps.iter().map(|(&step, item)| (step << self.shift, item))
    }

    /// Returns how many items it has.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Tells whether it has none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl<T: Merge> Series<T> {
    /// Adds an item.
    pub fn add(&mut self, time_ns: u64, item: T) {
        insert(&mut self.steps, time_ns >> self.shift, item);
        while self.steps.len() > Self::CAPACITY {
            self.shift += 1;
            for (step, item) in mem::take(&mut self.steps) {
                insert(&mut self.steps, step >> 1, item);
            }
        }
    }
}

fn insert<T: Merge>(steps: &mut BTreeMap<u64, T>, step: u64, item: T) {
    match steps.get_mut(&step) {
        Some(there) => there.merge(item),
        None => _ = steps.insert(step, item),
    }
}

/// As `{step_ns, steps: [[start_ns, item], …]}`.
impl<T: Serialize> Serialize for Series<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Steps<'a, T>(&'a Series<T>);
        impl<T: Serialize> Serialize for Steps<'_, T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
                for item in self.0.iter() {
                    sequence.serialize_element(&item)?;
                }
                sequence.end()
            }
        }
        use serde::ser::SerializeStruct as _;
        let mut series = serializer.serialize_struct("Series", 2)?;
        series.serialize_field("step_ns", &self.step_ns())?;
        series.serialize_field("steps", &Steps(self))?;
        series.end()
    }
}
