//! The trace file: a header that tells where it was recorded, then records as the probes wrote them and
//! facts that were read beside them, then a last record that tells how complete they are.
//! docs/TRACE_FORMAT.md has every byte.
//!
//! Not here: what a record means (`memtrace_common`), how records follow each other (`replay`).

mod blocks;
mod facts;
mod writer;

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Seek},
    mem::offset_of,
};

use memtrace_common::{Event, Header, Kind, ProbeStats, decode};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::writer::TraceWriter;
use self::{
    blocks::BlockReader,
    facts::{BOOKS, Gathered, Piece, REGIONS, STATE, TEXT},
};
use super::replay::{RecordError, Records};
use crate::model::{Model, fact::Fact, region_map::PAGE, report::Evidence, text};

/// The first bytes of a trace. The first is no text and no UTF-8, the last shows a transfer that
/// changed line ends.
pub const MAGIC: [u8; 8] = *b"\x89memtrc\n";

/// Version of the format: it grows only where an older memtrace would read a file wrongly.
pub const VERSION: u16 = 2;

/// The last version whose records stand in the file as they are.
const PLAIN: u16 = 1;

/// What [`RawHeader::byte_order`] holds, as the machine that wrote it keeps numbers.
const BYTE_ORDER: u32 = 0x0a0b_0c0d;

/// Kind of the last record, which is the file's own: the probes have none of this number.
const END: u16 = u16::MAX;

/// What is read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// The beginning of every version's header.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Prefix {
    magic: [u8; 8],
    version: u16,
    /// Bytes of the whole header: the first record begins there.
    header_len: u16,
    byte_order: u32,
}

/// The header. A longer one begins like this.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHeader {
    prefix: Prefix,
    page_size: u32,
    /// Place of the level among [`Evidence::ALL`], counted from 1; 0 where it is not told.
    evidence: u32,
    start_ns: u64,
    /// Filled up with zeros.
    arch: [u8; 16],
    /// Filled up with zeros.
    kernel: [u8; 64],
}

/// The last record.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawEnd {
    header: Header,
    emitted: u64,
    dropped: u64,
    untracked: u64,
    missed: u64,
}

// Files outlive the build that wrote them: this may only change on purpose, with docs/TRACE_FORMAT.md
// and, where an older memtrace would read it wrongly, with VERSION.
const _: () = {
    assert!(size_of::<Prefix>() == 16);
    assert!(offset_of!(Prefix, version) == 8);
    assert!(offset_of!(Prefix, header_len) == 10);
    assert!(offset_of!(Prefix, byte_order) == 12);
    assert!(size_of::<RawHeader>() == 112);
    assert!(offset_of!(RawHeader, page_size) == 16);
    assert!(offset_of!(RawHeader, evidence) == 20);
    assert!(offset_of!(RawHeader, start_ns) == 24);
    assert!(offset_of!(RawHeader, arch) == 32);
    assert!(offset_of!(RawHeader, kernel) == 48);
    assert!(size_of::<RawEnd>() == 64);
    assert!(Kind::from_raw(END).is_none());
    assert!(Kind::from_raw(REGIONS).is_none());
    assert!(Kind::from_raw(BOOKS).is_none());
    assert!(Kind::from_raw(TEXT).is_none());
    assert!(Kind::from_raw(STATE).is_none());
};

/// Where and when a trace was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceHeader {
    /// `uname -m`, at most 16 bytes.
    pub arch: String,
    /// `uname -r`, at most 64 bytes.
    pub kernel: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// When the probes were attached, `CLOCK_BOOTTIME`.
    pub start_ns: u64,
    /// What was counted.
    pub evidence: Evidence,
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceEnd {
    /// When, `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// The probes' own counters.
    pub stats: ProbeStats,
    /// Runs of probes that the kernel skipped.
    pub missed: u64,
}

/// Why something is not a trace that this build can read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not a byte.
    #[error("it is empty")]
    Empty,
    /// It begins differently.
    #[error("it is not a trace")]
    NotATrace,
    /// It ends too early even for its header.
    #[error("it is cut in its header, after {0} bytes")]
    CutHeader(usize),
    /// Written by a newer memtrace.
    #[error("it has version {0} of the format, and this memtrace reads {VERSION}")]
    NewerVersion(u16),
    /// Written on a machine that keeps numbers the other way round.
    #[error("it was recorded on a machine of the other byte order")]
    OtherByteOrder,
    /// Written where pages have another size.
    #[error("it was recorded with pages of {0} bytes, and this memtrace counts in {PAGE}")]
    OtherPageSize(u32),
    /// A header that no memtrace writes.
    #[error("its header is damaged")]
    Damaged,
    /// The source failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a trace holds.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "entries are read one at a time, by value")]
pub enum Entry {
    /// A record of the probes.
    Event(Event),
    /// What was read beside them.
    Fact(Fact),
    /// What is known from everything before, where one began to read later ([`TraceReader::seek`]).
    State(Box<Model>),
}

/// Reads a trace in bounded memory: a block and one fact, however long the file is.
///
/// As an iterator it yields entries, as [`Records`] does.
#[derive(Debug)]
pub struct TraceReader<R> {
    header: TraceHeader,
    records: Records<Source<R>>,
    gathered: Gathered,
    end: Option<TraceEnd>,
}

/// Where the records are.
enum Source<R> {
    Plain(BufReader<R>),
    Blocks(Box<BlockReader<R>>),
}

impl<R: Read> TraceReader<R> {
    /// Reads the header.
    pub fn open(mut source: R) -> Result<Self, OpenError> {
        let bytes = up_to(&mut source, size_of::<Prefix>())?;
        let begins = bytes.iter().zip(&MAGIC).all(|(byte, expected)| byte == expected);
        let Prefix { version, header_len, byte_order, .. } =
            match Prefix::read_from_bytes(&bytes[..]) {
                _ if bytes.is_empty() => return Err(OpenError::Empty),
                _ if !begins => return Err(OpenError::NotATrace),
                Err(_) => return Err(OpenError::CutHeader(bytes.len())),
                Ok(prefix) => prefix,
            };
        match byte_order {
            BYTE_ORDER => {}
            other if other.swap_bytes() == BYTE_ORDER => return Err(OpenError::OtherByteOrder),
            _ => return Err(OpenError::Damaged),
        }
        if version > VERSION {
            return Err(OpenError::NewerVersion(version));
        }
        if version == 0 || usize::from(header_len) < size_of::<RawHeader>() {
            return Err(OpenError::Damaged);
        }
        let rest = up_to(&mut source, usize::from(header_len) - bytes.len())?;
        let bytes = [bytes, rest].concat();
        if bytes.len() < usize::from(header_len) {
            return Err(OpenError::CutHeader(bytes.len()));
        }
        // What a longer header says more is not for this build.
        let (raw, _) = RawHeader::read_from_prefix(&bytes).map_err(|_| OpenError::Damaged)?;
        let RawHeader { prefix: _, page_size, evidence, start_ns, arch, kernel } = raw;
        if u64::from(page_size) != PAGE {
            return Err(OpenError::OtherPageSize(page_size));
        }
        let evidence = match evidence {
            0 => Evidence::Frames,
            place => *Evidence::ALL.get(place as usize - 1).ok_or(OpenError::Damaged)?,
        };
        let (arch, kernel, page_size) = (text(&arch), text(&kernel), u64::from(page_size));
        let header = TraceHeader { arch, kernel, page_size, start_ns, evidence };
        let at = u64::from(header_len);
        let source = if version == PLAIN {
            Source::Plain(BufReader::with_capacity(BUFFER_BYTES, source))
        } else {
            Source::Blocks(Box::new(BlockReader::new(source, at)?))
        };
        let (records, gathered) = (Records::new(source, at), Gathered::default());
        Ok(Self { header, records, gathered, end: None })
    }

    /// Returns where and when it was recorded.
    pub const fn header(&self) -> &TraceHeader {
        &self.header
    }

    /// Returns how the recording ended, once everything was read; `None` when the trace is cut.
    pub const fn end(&self) -> Option<TraceEnd> {
        self.end
    }

    /// Returns how many whole records there were, facts and the last one included.
    pub const fn whole(&self) -> u64 {
        self.records.whole()
    }

    /// Returns how many of them were not understood.
    pub const fn skipped(&self) -> u64 {
        self.records.skipped()
    }

    /// Tells whether the records stand in blocks, since version 2.
    pub const fn is_in_blocks(&self) -> bool {
        matches!(self.records.source(), Source::Blocks(_))
    }

    /// Returns how many bytes are left over at a cut, 0 without one: of a record, or of a block.
    pub const fn left_over(&self) -> usize {
        match (self.records.left_over(), self.records.source()) {
            (0, Source::Blocks(blocks)) => blocks.left_over(),
            (left_over, _) => left_over,
        }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, RecordError> {
        let Self { records, gathered, end, .. } = self;
        while let Some((header, record)) = records.next_record()? {
            match header.kind {
                END if let Ok((raw, _)) = RawEnd::read_from_prefix(record) => {
                    *end = Some(TraceEnd::from(raw));
                    records.stop();
                    break;
                }
                REGIONS | BOOKS | TEXT | STATE => match gathered.take(header, record) {
                    Piece::More => {}
                    Piece::State(model) => return Ok(Some(Entry::State(model))),
                    Piece::Whole(fact) => return Ok(Some(Entry::Fact(fact))),
                    Piece::Unknown => records.pass_over(),
                },
                _ => match decode(record) {
                    Ok(event) => return Ok(Some(Entry::Event(event))),
                    Err(_) => records.pass_over(),
                },
            }
        }
        Ok(None)
    }
}

impl<R: Read + Seek> TraceReader<R> {
    /// Goes on where the least is to be read before a time: at the last [`Entry::State`] before it, if the
    /// trace has one. Call it before anything was read.
    pub fn seek(&mut self, time_ns: u64) -> io::Result<()> {
        match self.records.source_mut() {
            Source::Plain(_) => Ok(()),
            Source::Blocks(blocks) => blocks.seek(time_ns),
        }
    }

    /// Reads how the recording ended, and passes over what comes before.
    pub fn seek_end(&mut self) -> Result<(), RecordError> {
        if let Source::Blocks(blocks) = self.records.source_mut() {
            blocks.seek_last()?;
        }
        self.by_ref().try_for_each(|entry| entry.map(drop))
    }
}

impl From<RawEnd> for TraceEnd {
    fn from(raw: RawEnd) -> Self {
        let RawEnd { header: Header { time_ns, .. }, emitted, dropped, untracked, missed } = raw;
        let operations = emitted.saturating_add(dropped);
        Self { time_ns, stats: ProbeStats { emitted, dropped, untracked, operations }, missed }
    }
}

impl<R: Read> Iterator for TraceReader<R> {
    type Item = Result<Entry, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(into),
            Self::Blocks(source) => source.read(into),
        }
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Plain(source) => source.fill_buf(),
            Self::Blocks(source) => source.fill_buf(),
        }
    }

    fn consume(&mut self, len: usize) {
        match self {
            Self::Plain(source) => source.consume(len),
            Self::Blocks(source) => source.consume(len),
        }
    }
}

impl<R> fmt::Debug for Source<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Blocks(_) => "Blocks",
        })
    }
}

/// Reads `len` bytes, fewer where the source ends.
fn up_to(source: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    source.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
