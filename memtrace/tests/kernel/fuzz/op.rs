//! What a victim is told to do: operations as numbers, so that any sequence means something and a
//! sequence that fails can be cut down.

use std::{fmt, str::FromStr};

/// One operation: what, and four numbers that the victim makes addresses, sizes and flags of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) numbers: [u32; 4],
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $weight:literal),+ $(,)?) => {
        /// What is done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($(#[$doc])* $kind),+
        }

        /// Each kind, its name, and how often it comes.
        const KINDS: &[(Kind, &str, u32)] = &[$((Kind::$kind, $name, $weight)),+];
    };
}

kinds! {
    /// `mmap`: anonymous, file, memfd; private or shared; anywhere, hinted, fixed.
    Map "map" 200,
    /// `mmap` with no address space left.
    MapLimited "map_limited" 6,
    /// `munmap` of any range of the window.
    Unmap "unmap" 110,
    /// `munmap` of what the kernel placed.
    UnmapSlot "unmap_slot" 50,
    /// `mremap` of any range of the window.
    Remap "remap" 90,
    /// `mremap` of what the kernel placed.
    RemapSlot "remap_slot" 40,
    /// `mprotect`.
    Protect "protect" 130,
    /// `madvise`, any advice.
    Advise "advise" 120,
    /// Writes to pages.
    Touch "touch" 120,
    /// `brk`, up or down.
    Brk "brk" 40,
    /// `shmat`.
    Attach "attach" 20,
    /// `shmdt`.
    Detach "detach" 20,
    /// `remap_file_pages`.
    FilePages "file_pages" 15,
    /// `mlock`, `mlock2`, `munlock`.
    Lock "lock" 40,
    /// `mlockall` of what comes, or the end of it.
    LockAll "lock_all" 3,
    /// Uses more of the main stack.
    Stack "stack" 2,
    /// `prctl(PR_SET_VMA_ANON_NAME)`.
    Name "name" 25,
    /// `mseal` of what the kernel placed.
    Seal "seal" 1,
    /// Threads that do some of the above to the same window.
    Race "race" 4,
    /// A child that does some of the above and stays.
    Fork "fork" 2,
    /// A child that shares the address space and does some of the above, then exits.
    ShareOps "share_ops" 2,
    /// A child that shares the address space and stays.
    ShareStay "share_stay" 1,
    /// A child that executes the victim anew, does some of the above and stays.
    ForkExec "fork_exec" 1,
    /// Ends the child that came first.
    Reap "reap" 6,
    /// A child whose threads do some of the above until it exits in the middle.
    Vanish "vanish" 1,
    /// The victim executes itself anew.
    Exec "exec" 1,
}

/// A small random number generator (splitmix64): the same numbers for the same seed, everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Op {
    /// Returns the next random operation.
    pub(crate) fn random(random: &mut Random) -> Self {
        Self::pick(random, KINDS)
    }

    /// Returns the next random operation that touches nothing but memory: what threads and children
    /// do to one window.
    pub(crate) fn random_simple(random: &mut Random) -> Self {
        Self::pick(random, &KINDS[..14])
    }

    fn pick(random: &mut Random, kinds: &[(Kind, &str, u32)]) -> Self {
        let all: u32 = kinds.iter().map(|(_, _, weight)| weight).sum();
        let mut at = (random.next() % u64::from(all)) as u32;
        let mut number = || random.next() as u32;
        for &(kind, _, weight) in kinds {
            if at < weight {
                return Self { kind, numbers: [number(), number(), number(), number()] };
            }
            at -= weight;
        }
        unreachable!("the weights add up");
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(kind, ..)| *kind == self.kind).map(|(_, name, _)| name);
        let [a, b, c, d] = self.numbers;
        write!(f, "{} {a} {b} {c} {d}", name.expect("every kind is in the table"))
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        let kind = KINDS.iter().find(|(_, known, _)| *known == name).map(|&(kind, ..)| kind);
        let mut number =
            || words.next().and_then(|word| word.parse().ok()).ok_or(format!("{line:?}: numbers"));
        Ok(Self {
            kind: kind.ok_or(format!("{line:?}: what is {name:?}?"))?,
            numbers: [number()?, number()?, number()?, number()?],
        })
    }
}
