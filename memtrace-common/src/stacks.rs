//! What the probes keep in maps of call stacks (`memtrace … --stacks`): those on an allocator's
//! functions, those that see memory calls return, and those of page faults. Nothing of it is sent as a
//! record: userspace reads the maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Frames of a call stack that are kept; what called them is cut off.
pub const FRAMES: usize = 127;

/// Lengths between two sampled bytes from which the sampler draws.
pub const INTERVALS: u32 = 256;

/// A pointer that the allocator gave out, in the memory of one program.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Block {
    /// Where it lies.
    pub pointer: u64,
    /// See [`image`].
    pub image: u64,
}

/// Returns a key for the program that process `tgid` runs: its `number`th since it is sampled.
pub const fn image(tgid: u32, number: u32) -> u64 {
    (number as u64) << 32 | tgid as u64
}

/// An allocation that was sampled and not freed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Live {
    /// Key of the call stack that allocated it, 0 when it could not be kept.
    pub stack: u64,
    /// Bytes that were asked for.
    pub size: u64,
    /// Bytes of all allocations for which it stands.
    pub weight: u64,
}

/// A sampled allocation that was freed, as long as the allocator did not give it out again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Gone {
    /// Key of the call stack that freed it, 0 when it could not be kept.
    pub stack: u64,
    /// What it was.
    pub was: Live,
}

/// Who frees, in which program.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Freer {
    /// See [`image`].
    pub image: u64,
    /// Key of the call stack, 0 when it could not be kept.
    pub stack: u64,
}

/// What a call stack freed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Freed {
    /// Sampled allocations.
    pub samples: u64,
    /// Bytes of all allocations for which they stand.
    pub weight: u64,
}

/// Whose call of the kernel gave pages up.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Reclaimer {
    /// Number of the address space; no other one has had it.
    pub space: u64,
    /// Key of the call stack, 0 when it could not be kept.
    pub stack: u64,
    /// A [`crate::Path`], raw.
    pub path: u64,
}

/// What a call stack gave up by one path.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Reclaimed {
    /// Where it was seen first.
    pub origin: Origin,
    /// Calls that detached or freed something.
    pub calls: u64,
    /// Resident pages that they detached.
    pub zapped_pages: u64,
    /// Frames that the page allocator got back inside of them.
    pub freed_frames: u64,
}

/// Whose page faults.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Faulter {
    /// Number of the address space; no other one has had it.
    pub space: u64,
    /// Key of the call stack, 0 when it could not be kept.
    pub stack: u64,
}

/// How often a call stack faulted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Faulted {
    /// Where it was seen first.
    pub origin: Origin,
    /// Page faults.
    pub faults: u64,
}

/// By which userspace knows the address space.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Origin {
    /// Address of the `mm_struct`.
    pub mm: u64,
    /// A time at which it had it, `CLOCK_BOOTTIME`.
    pub time_ns: u64,
}

/// A call stack: return addresses, the innermost first, then zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stack {
    /// The frames.
    pub frames: [u64; FRAMES],
}

/// What the probes counted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StackStats {
    /// Calls that allocate, of sampled processes.
    pub allocations: u64,
    /// Calls that free.
    pub frees: u64,
    /// Allocations that were sampled.
    pub samples: u64,
    /// Sampled allocations or frees that found no room in a map: what is reported is too small.
    pub lost: u64,
    /// Calls that gave pages up and found no room.
    pub lost_reclaims: u64,
    /// Page faults that found no room.
    pub lost_faults: u64,
    /// Call stacks that found no room, or were taken at the same moment as too many others.
    pub lost_stacks: u64,
}

impl core::ops::Add for StackStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            allocations: self.allocations.wrapping_add(other.allocations),
            frees: self.frees.wrapping_add(other.frees),
            samples: self.samples.wrapping_add(other.samples),
            lost: self.lost.wrapping_add(other.lost),
            lost_reclaims: self.lost_reclaims.wrapping_add(other.lost_reclaims),
            lost_faults: self.lost_faults.wrapping_add(other.lost_faults),
            lost_stacks: self.lost_stacks.wrapping_add(other.lost_stacks),
        }
    }
}
