//! One struct per record kind. Sizes are in bytes unless the name says pages or frames, addresses
//! are virtual, times are nanoseconds.

use crate::ledger::{FILLS, Ledger, OLDEST_LEDGER, PATHS};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

mod records;

pub use records::{
    Backing, Call, Exec, Exit, Fault, FileName, Fork, MmEnd, Region, Syscall, TaskSeed, TeardownRun,
};

/// What a record says. The numbers are part of the trace format: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// A VMA was stored into an address space.
    MapRegion = 1,
    /// A range was erased from an address space.
    UnmapRegion = 2,
    /// A memory system call returned.
    Call = 3,
    /// A process was created.
    Fork = 4,
    /// A process replaced its address space.
    Exec = 5,
    /// The last thread of a process exited.
    Exit = 6,
    /// An address space was torn down: all its pages are detached.
    MmEnd = 7,
    /// A page fault began.
    Fault = 8,
    /// The name of a mapped file.
    FileName = 9,
    /// A process as it was found when tracing began.
    TaskSeed = 10,
    /// Neighbouring frames that came back while an address space was torn down.
    TeardownRun = 11,
    /// A VMA got its offset after it was stored.
    RegionOffset = 12,
}

impl Kind {
    /// Returns the kind that `raw` stands for, if this build knows it.
    pub const fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            1 => Self::MapRegion,
            2 => Self::UnmapRegion,
            3 => Self::Call,
            4 => Self::Fork,
            5 => Self::Exec,
            6 => Self::Exit,
            7 => Self::MmEnd,
            8 => Self::Fault,
            9 => Self::FileName,
            10 => Self::TaskSeed,
            11 => Self::TeardownRun,
            12 => Self::RegionOffset,
            _ => return None,
        })
    }
}

/// The first bytes of every record.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Header {
    /// `CLOCK_BOOTTIME` at the probe.
    pub time_ns: u64,
    /// Address of the `mm_struct`: an opaque key, reused after the mm is gone.
    pub mm: u64,
    /// Process id as userspace knows it (the kernel's `tgid`).
    pub tgid: u32,
    /// Thread id (the kernel's `pid`).
    pub tid: u32,
    /// CPU that ran the probe.
    pub cpu: u16,
    /// Number of the record among those of its CPU, with those that were dropped; it wraps. 0 in
    /// records that are not written to the ring buffer.
    pub sequence: u16,
    /// A [`Kind`], raw: a newer probe may write kinds that this build does not know.
    pub kind: u16,
    /// Length of the whole record.
    pub len: u16,
}

/// A record that can be written to the ring buffer.
pub trait Record: FromBytes + IntoBytes + Immutable + KnownLayout + Sized {
    /// The kind that the header of this record carries.
    const KIND: Kind;
    /// Bytes of the shortest such record that was ever written.
    const OLDEST_LEN: usize = size_of::<Self>();

    /// Returns a record whose end is what a shorter one leaves untold.
    fn untold() -> Self {
        Self::new_zeroed()
    }
}

macro_rules! records {
    ($($(#[$doc:meta])* $kind:ident($record:ident)),+ $(,)?) => {
        /// A decoded record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(clippy::large_enum_variant, reason = "records are decoded one at a time, by value")]
        pub enum Event {
            $($(#[$doc])* $kind($record)),+
        }

        impl Event {
            /// Each kind and the bytes of its record.
            pub const SIZES: &[(Kind, usize)] = &[$((Kind::$kind, size_of::<$record>())),+];

            /// Returns who did it and when.
            pub const fn header(&self) -> &Header {
                match self {
                    $(Self::$kind(record) => &record.header),+
                }
            }

            /// Returns its kind.
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind),+
                }
            }

            /// Returns the bytes of its record.
            pub fn record(&self) -> &[u8] {
                match self {
                    $(Self::$kind(record) => zerocopy::IntoBytes::as_bytes(record)),+
                }
            }
        }
    };
}

records! {
    /// See [`Kind::MapRegion`].
    MapRegion(Region),
    /// See [`Kind::UnmapRegion`].
    UnmapRegion(Region),
    /// See [`Call`].
    Call(Call),
    /// See [`Fork`].
    Fork(Fork),
    /// See [`Exec`].
    Exec(Exec),
    /// See [`Exit`].
    Exit(Exit),
    /// See [`MmEnd`].
    MmEnd(MmEnd),
    /// See [`Fault`].
    Fault(Fault),
    /// See [`FileName`].
    FileName(FileName),
    /// See [`TaskSeed`].
    TaskSeed(TaskSeed),
    /// See [`TeardownRun`].
    TeardownRun(TeardownRun),
    /// See [`Kind::RegionOffset`].
    RegionOffset(Region),
}

macro_rules! kinds {
    ($($record:ident),+ $(,)?) => {
        $(impl Record for $record {
            const KIND: Kind = Kind::$record;
        })+
    };
}
kinds!(Call, Fork, Exec, Exit, Fault, FileName, TaskSeed, TeardownRun);

impl Record for MmEnd {
    const KIND: Kind = Kind::MmEnd;
    const OLDEST_LEN: usize = size_of::<Header>() + OLDEST_LEDGER;

    fn untold() -> Self {
        let mut end = Self::new_zeroed();
        end.ledger.freed_anon_frames = [Ledger::NOT_TOLD; PATHS];
        end.ledger.shared_pages = [Ledger::NOT_TOLD; PATHS];
        end.ledger.swapped_out_pages = Ledger::NOT_TOLD;
        end.ledger.swapped_in_pages = Ledger::NOT_TOLD;
        end.ledger.filled_frames = [Ledger::NOT_TOLD; FILLS];
        end
    }
}

impl Record for Region {
    /// Or [`Kind::UnmapRegion`], or [`Kind::RegionOffset`].
    const KIND: Kind = Kind::MapRegion;
}

// The verifier rejects a record with uninitialised padding, and a trace file outlives the build
// that wrote it: the layout may only change on purpose.
const _: () = {
    assert!(size_of::<Header>() == 32);
    assert!(size_of::<Region>() == 88);
    assert!(size_of::<Call>() == 120);
    assert!(size_of::<Fork>() == 64);
    assert!(size_of::<Exec>() == 184);
    assert!(size_of::<Exit>() == 56);
    assert!(size_of::<MmEnd>() == 856);
    assert!(MmEnd::OLDEST_LEN == 632);
    assert!(size_of::<Fault>() == 64);
    assert!(size_of::<FileName>() == 112);
    assert!(size_of::<TaskSeed>() == 112);
    assert!(size_of::<TeardownRun>() == 56);
};
