//! Facts as records of the file's own: what is long comes in pieces.

use memtrace_common::{Delays, Header, Ledger, Region, Remanence, decode_ledger};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::model::{Model, SpaceId, fact::Fact, space::Afterlife};

/// Kinds of the file's own records, from the highest number down: the probes have none of them.
pub(super) const REGIONS: u16 = u16::MAX - 1;
pub(super) const BOOKS: u16 = u16::MAX - 2;
pub(super) const TEXT: u16 = u16::MAX - 3;
pub(super) const STATE: u16 = u16::MAX - 4;

/// Bytes of a piece: a record's length has 16 bits.
const PIECE: usize = 60_000;
/// The most bytes that the pieces of a fact may have.
const MOST: usize = 64 << 20;

/// What a record of [`REGIONS`] or [`TEXT`] begins with. Behind it stand `Region`s, or text.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawPiece {
    header: Header,
    /// Of regions: write sections that had begun before.
    sections: u64,
    /// 1 when the next piece goes on.
    more: u32,
    /// Zero.
    reserved: u32,
}

/// A record of [`BOOKS`]. Behind it stands a `Ledger`, which may grow at its end.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawBooks {
    header: Header,
    /// Which address space, counted from 0 in the order in which they were seen.
    space: u64,
    /// Bit 0: `delays` are known, bit 1: so is `remanence`.
    known: u64,
    delays: Delays,
    remanence: Remanence,
}

const _: () = {
    assert!(size_of::<RawPiece>() == 48);
    assert!(size_of::<RawBooks>() == 1624);
};

/// Returns the records that a fact takes.
pub(super) fn records(fact: &Fact, time_ns: u64) -> serde_json::Result<Vec<Vec<u8>>> {
    let header = Header { time_ns, ..Header::default() };
    Ok(match fact {
        Fact::Regions { mm, regions, sections } => {
            let header = Header { mm: *mm, kind: REGIONS, ..header };
            let most = PIECE / size_of::<Region>() * size_of::<Region>();
            pieces(header, *sections, regions.as_bytes(), most)
        }
        Fact::Books { space: SpaceId(space), ledger, afterlife: known } => {
            let len = (size_of::<RawBooks>() + size_of::<Ledger>()) as u16;
            let books = RawBooks {
                header: Header { kind: BOOKS, len, ..header },
                space: *space as u64,
                known: u64::from(known.delays.is_some())
                    | u64::from(known.remanence.is_some()) << 1,
                delays: known.delays.unwrap_or_default(),
                remanence: known.remanence.unwrap_or_default(),
            };
            vec![[books.as_bytes(), ledger.as_bytes()].concat()]
        }
        told => pieces(Header { kind: TEXT, ..header }, 0, &serde_json::to_vec(told)?, PIECE),
    })
}

/// Returns the records that say what is known.
pub(super) fn state(model: &Model, time_ns: u64) -> serde_json::Result<Vec<Vec<u8>>> {
    let header = Header { time_ns, kind: STATE, ..Header::default() };
    Ok(pieces(header, 0, &serde_json::to_vec(model)?, PIECE))
}

fn pieces(header: Header, sections: u64, bytes: &[u8], most: usize) -> Vec<Vec<u8>> {
    let count = bytes.len().div_ceil(most).max(1);
    let piece = |at: usize| {
        let bytes = &bytes[at * most..bytes.len().min((at + 1) * most)];
        let len = (size_of::<RawPiece>() + bytes.len()) as u16;
        let more = u32::from(at + 1 < count);
        let head = RawPiece { header: Header { len, ..header }, sections, more, reserved: 0 };
        [head.as_bytes(), bytes].concat()
    };
    (0..count).map(piece).collect()
}

/// Puts the pieces of facts together.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    kind: u16,
    bytes: Vec<u8>,
}

/// What a record of the file's own gives.
#[derive(Debug)]
pub(super) enum Piece {
    /// More follows.
    More,
    /// A fact is whole.
    Whole(Fact),
    /// What was known.
    State(Box<Model>),
    /// This build cannot read it.
    Unknown,
}

impl Gathered {
    /// Takes a record of the file's own.
    pub(super) fn take(&mut self, header: Header, record: &[u8]) -> Piece {
        if header.kind == BOOKS {
            return books(record).map_or(Piece::Unknown, Piece::Whole);
        }
        let Ok((head, bytes)) = RawPiece::read_from_prefix(record) else { return Piece::Unknown };
        if self.kind != header.kind || self.bytes.len() > MOST {
            self.bytes.clear();
        }
        self.kind = header.kind;
        self.bytes.extend_from_slice(bytes);
        if head.more != 0 {
            return Piece::More;
        }
        let bytes = std::mem::take(&mut self.bytes);
        if header.kind == STATE {
            return serde_json::from_slice(&bytes).map_or(Piece::Unknown, Piece::State);
        }
        let fact = if header.kind == REGIONS {
            let regions = bytes.chunks_exact(size_of::<Region>());
            let regions =
                regions.filter_map(|region| Region::read_from_bytes(region).ok()).collect();
            Some(Fact::Regions { mm: header.mm, regions, sections: head.sections })
        } else {
            serde_json::from_slice(&bytes).ok()
        };
        fact.map_or(Piece::Unknown, Piece::Whole)
    }
}

fn books(record: &[u8]) -> Option<Fact> {
    let (books, ledger) = RawBooks::read_from_prefix(record).ok()?;
    let known = |bit: u64| books.known & bit != 0;
    let afterlife = Afterlife {
        delays: known(1).then_some(books.delays),
        remanence: known(2).then_some(books.remanence),
    };
    Some(Fact::Books {
        space: SpaceId(usize::try_from(books.space).ok()?),
        ledger: Box::new(decode_ledger(ledger).ok()?),
        afterlife: Box::new(afterlife),
    })
}
