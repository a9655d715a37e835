//! What allocators hold on both sides.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Change,
    kept::{KeptAllocator, KeptArena, KeptProcess},
    keys,
    matching::Pair,
};

/// One allocator on both sides, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AllocatorDiff {
    /// Its name.
    pub name: String,
    /// Its version before, as far as it is known.
    pub version_before: Option<String>,
    /// Its version after, as far as it is known.
    pub version_after: Option<String>,
    /// Part of what it holds free could not be looked at, on one side or both.
    pub lower_bound: bool,
    /// What it has from the kernel.
    pub system: Change,
    /// What the program has from it.
    pub in_use: Change,
    /// What it holds free.
    pub free: Change,
    /// The same by its own classes.
    pub free_by_class: BTreeMap<String, Change>,
    /// Free bytes that are resident.
    pub free_resident: Change,
    /// Frames that a trim would free.
    pub trimmable: Change,
    /// How many arenas it has.
    pub arena_count: Change,
    /// Its arenas: those of the same process by their address, else the first against the first.
    pub arenas: Vec<ArenaDiff>,
}

/// One arena on both sides, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ArenaDiff {
    /// Where it is before, hexadecimal.
    pub address_before: Option<String>,
    /// Where it is after, hexadecimal.
    pub address_after: Option<String>,
    /// What it has from the kernel.
    pub system: Change,
    /// What it holds free.
    pub free: Change,
    /// … of it resident.
    pub free_resident: Change,
}

/// Returns the allocators of either side, those that hold most free first.
pub(super) fn allocators(pair: &Pair) -> Vec<AllocatorDiff> {
    let sides = [pair.before, pair.after];
    let mut others: Vec<&KeptAllocator> = listed(pair.after).iter().collect();
    let mut found = Vec::new();
    for before in listed(pair.before) {
        let index = others.iter().position(|after| after.name == before.name);
        found.push([Some(before), index.map(|index| others.remove(index))]);
    }
    found.extend(others.into_iter().map(|after| [None, Some(after)]));
    let mut found: Vec<AllocatorDiff> =
        found.into_iter().map(|both| allocator(both, sides, pair.is_same())).collect();
    found.sort_by_key(|allocator| {
        std::cmp::Reverse(allocator.free.before.max(allocator.free.after))
    });
    found
}

fn listed(process: Option<&KeptProcess>) -> &[KeptAllocator] {
    process.map_or(&[], |process| &process.allocators)
}

fn allocator(
    both: [Option<&KeptAllocator>; 2],
    sides: [Option<&KeptProcess>; 2],
    is_same_process: bool,
) -> AllocatorDiff {
    // What is not listed holds nothing, if it was looked for.
    let nothing = sides.map(|side| side.filter(|side| side.was_walked()).map(|_| 0));
    let change = |figure: &dyn Fn(&KeptAllocator) -> Option<u64>| {
        let of = |index: usize| both[index].map_or(nothing[index], figure);
        Change::new(of(0), of(1))
    };
    let free = |allocator: &KeptAllocator| {
        Some(allocator.free.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)))
    };
    let classes = keys(both.map(|allocator| allocator.map(|allocator| &allocator.free)));
    let by_class = classes.into_iter().map(|class| {
        // A class that an allocator does not list is one that it did not tell of.
        let bytes = change(&|allocator| allocator.free.get(&class).copied());
        (class, bytes)
    });
    let [before, after] = both;
    let either = before.or(after);
    AllocatorDiff {
        name: either.map(|allocator| allocator.name.clone()).unwrap_or_default(),
        version_before: before.and_then(|allocator| allocator.version.clone()),
        version_after: after.and_then(|allocator| allocator.version.clone()),
        lower_bound: both.iter().flatten().any(|allocator| allocator.evidence != "walked"),
        system: change(&|allocator| Some(allocator.system)),
        in_use: change(&|allocator| Some(allocator.in_use)),
        free: change(&free),
        free_by_class: by_class.collect(),
        free_resident: change(&|allocator| allocator.free_resident),
        trimmable: change(&|allocator| allocator.trimmable),
        arena_count: change(&|allocator| Some(allocator.arenas.len() as u64)),
        arenas: arenas(both, nothing, is_same_process),
    }
}

fn arenas(
    both: [Option<&KeptAllocator>; 2],
    nothing: [Option<u64>; 2],
    is_same_process: bool,
) -> Vec<ArenaDiff> {
    let [before, after] =
        both.map(|allocator| allocator.map_or(&[][..], |allocator| &allocator.arenas));
    let mut pairs: Vec<[Option<&KeptArena>; 2]> = Vec::new();
    if is_same_process {
        let at = |arenas: &'_ [KeptArena], address: &str| {
            arenas.iter().position(|arena| arena.address == address)
        };
        let others = after.iter().filter(|arena| at(before, &arena.address).is_none());
        let known =
            before.iter().map(|arena| [Some(arena), at(after, &arena.address).map(|i| &after[i])]);
        pairs.extend(known.chain(others.map(|arena| [None, Some(arena)])));
    } else {
        pairs.extend((0..before.len().max(after.len())).map(|i| [before.get(i), after.get(i)]));
    }
    // An allocator that is there lists all its arenas.
    let nothing = [0, 1].map(|index| both[index].map_or(nothing[index], |_| Some(0)));
    let diff = |pair: [Option<&KeptArena>; 2]| {
        let change = |figure: fn(&KeptArena) -> Option<u64>| {
            let of = |index: usize| pair[index].map_or(nothing[index], figure);
            Change::new(of(0), of(1))
        };
        let [address_before, address_after] =
            pair.map(|arena| arena.map(|arena| arena.address.clone()));
        ArenaDiff {
            address_before,
            address_after,
            system: change(|arena| Some(arena.system)),
            free: change(|arena| Some(arena.free)),
            free_resident: change(|arena| arena.free_resident),
        }
    };
    pairs.into_iter().map(diff).collect()
}
