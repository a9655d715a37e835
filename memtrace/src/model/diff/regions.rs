//! Regions on both sides: those with a name by kind and name (of files without their folder, which a
//! trace does not know), the others by where they begin in the
//! same process, and by kind in two.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Change,
    kept::{KeptProcess, KeptRegion},
    matching::Pair,
    sum,
};

/// The regions of one kind and name on both sides, or one region; bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RegionDiff {
    /// As in the report.
    pub kind: String,
    /// File name, or what the kernel calls it.
    pub name: Option<String>,
    /// Where it begins, hexadecimal, of a region without a name in the same process.
    pub start: Option<String>,
    /// How many regions.
    pub count: Change,
    /// Their size.
    pub mapped: Change,
    /// Frames in them.
    pub resident: Change,
    /// Resident and not known to be free.
    pub live: Change,
    /// Resident and free in the allocator.
    pub free_resident: Change,
    /// `MADV_FREE`d and not yet taken.
    pub lazy_free: Change,
}

/// What regions are held against each other by.
type Key<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

/// Returns the regions of either side, those that changed most first.
pub(super) fn regions(pair: &Pair) -> Vec<RegionDiff> {
    let sides = [pair.before, pair.after];
    let mut groups: BTreeMap<Key, [Vec<&KeptRegion>; 2]> = BTreeMap::new();
    for (index, process) in sides.into_iter().enumerate() {
        for region in process.into_iter().flat_map(|process| process.regions.iter()) {
            let start = (pair.is_same() && region.name.is_none()).then_some(region.start.as_str());
            let key = (region.kind.as_str(), region.name.as_deref().map(short), start);
            groups.entry(key).or_default()[index].push(region);
        }
    }
    let is_known = sides.map(|side| side.is_some_and(has_map));
    let mut found: Vec<RegionDiff> =
        groups.into_iter().map(|(key, both)| group(key, &both, is_known)).collect();
    found.sort_by_key(|region| {
        std::cmp::Reverse((region.resident.distance(), region.mapped.distance()))
    });
    found
}

/// Returns what a region is called where a trace knows no folders (docs/OUTPUT.md).
fn short(name: &str) -> &str {
    match name.rsplit_once('/') {
        Some((_, file)) if !file.is_empty() => file,
        _ => name,
    }
}

/// Tells whether its region map is known: then what is not listed is not there.
fn has_map(process: &KeptProcess) -> bool {
    process.memory.mapped.is_some()
}

fn group(key: Key, both: &[Vec<&KeptRegion>; 2], is_known: [bool; 2]) -> RegionDiff {
    let change = |figure: fn(&KeptRegion) -> Option<u64>| {
        let of = |index: usize| {
            let regions = &both[index];
            let is_told = is_known[index] || !regions.is_empty();
            sum(regions.iter().map(|region| figure(region))).filter(|_| is_told)
        };
        Change::new(of(0), of(1))
    };
    let (kind, _, start) = key;
    // The longest tells the folder, too.
    let names = both.iter().flatten().filter_map(|region| region.name.as_deref());
    let name = names.max_by_key(|name| name.len());
    RegionDiff {
        kind: kind.to_owned(),
        name: name.map(str::to_owned),
        start: start.map(str::to_owned),
        count: change(|_| Some(1)),
        mapped: change(|region| Some(region.mapped)),
        resident: change(|region| region.resident),
        live: change(|region| region.live),
        free_resident: change(|region| region.free_resident),
        lazy_free: change(|region| region.lazy_free),
    }
}
