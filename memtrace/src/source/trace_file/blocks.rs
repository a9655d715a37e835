//! Compressed blocks: since version 2 the records of a trace stand in them. Each can be read, or passed
//! over, by itself.

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::up_to;

/// Records are gathered until they have so many bytes.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// The most that a block may say it has: a block's worth and a record.
const MOST: usize = BLOCK_BYTES + (64 << 10);
/// Compression that costs the reader of the events little: a block takes less than a millisecond.
const LEVEL: i32 = 1;
const MAGIC: [u8; 4] = *b"\x89blk";

/// What stands before each block.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawBlock {
    magic: [u8; 4],
    /// Bytes that follow: one frame of Zstandard (RFC 8878) with its checksum.
    compressed: u32,
    /// Bytes of the records in it.
    len: u32,
    /// How many they are.
    records: u32,
    /// Earliest time of a record in it.
    first_ns: u64,
    /// Latest time.
    last_ns: u64,
    /// [`RECORDS`] or [`STATE`].
    kind: u32,
    /// Zero.
    reserved: u32,
}

/// Records.
const RECORDS: u32 = 0;
/// What is known from all records before, for those who begin to read here.
const STATE: u32 = 1;

const _: () = assert!(size_of::<RawBlock>() == 40);

/// Gathers records and writes them by blocks.
pub(super) struct BlockWriter<W> {
    sink: W,
    bytes: Vec<u8>,
    block: RawBlock,
    compressor: zstd::bulk::Compressor<'static>,
    written: u64,
    latest_ns: u64,
}

impl<W: Write> BlockWriter<W> {
    /// `sink` has so many bytes already.
    pub(super) fn new(sink: W, written: u64) -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        let bytes = Vec::with_capacity(BLOCK_BYTES);
        let (block, latest_ns) = (RawBlock::default(), 0);
        Ok(Self { sink, bytes, block, compressor, written, latest_ns })
    }

    /// Tells whether nothing waits to be written.
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the latest time of a record so far.
    pub(super) const fn last_ns(&self) -> u64 {
        self.latest_ns
    }

    /// Adds a record.
    pub(super) fn push(&mut self, time_ns: u64, record: &[u8]) -> io::Result<()> {
        if self.bytes.len() + record.len() > BLOCK_BYTES {
            self.flush()?;
        }
        let RawBlock { first_ns, last_ns, records, .. } = &mut self.block;
        *first_ns = if *records == 0 { time_ns } else { time_ns.min(*first_ns) };
        *last_ns = time_ns.max(*last_ns);
        *records += 1;
        self.latest_ns = self.latest_ns.max(time_ns);
        self.bytes.extend_from_slice(record);
        Ok(())
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let compressed = self.compressor.compress(&self.bytes)?;
        let mut block = std::mem::take(&mut self.block);
        block.magic = MAGIC;
        block.compressed = u32::try_from(compressed.len()).map_err(io::Error::other)?;
        block.len = u32::try_from(self.bytes.len()).map_err(io::Error::other)?;
        self.bytes.clear();
        let whole = [block.as_bytes(), &compressed].concat();
        self.written += whole.len() as u64;
        self.sink.write_all(&whole)?;
        self.sink.flush()
    }

    /// Writes what waits, and returns where it went.
    #[cfg(test)]
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.sink)
    }

    /// Writes what waits, and then records that tell what is known by now.
    pub(super) fn state(&mut self, time_ns: u64, records: &[Vec<u8>]) -> io::Result<()> {
        self.flush()?;
        for record in records {
            if self.bytes.len() + record.len() > BLOCK_BYTES {
                self.flush()?;
            }
            self.push(time_ns, record)?;
            self.block.kind = STATE;
        }
        self.flush()
    }

    /// Returns how many bytes were written.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }
}

/// Reads records out of blocks, and keeps no more than one block.
pub(super) struct BlockReader<R> {
    source: R,
    decompressor: zstd::bulk::Decompressor<'static>,
    bytes: Vec<u8>,
    at: usize,
    /// Offset of the next block in the file.
    offset: u64,
    /// The next block is a state that is wanted.
    wants_state: bool,
    left_over: usize,
}

impl<R: Read> BlockReader<R> {
    /// `source` gives the first block next, which stands at `offset`.
    pub(super) fn new(source: R, offset: u64) -> io::Result<Self> {
        let decompressor = zstd::bulk::Decompressor::new()?;
        let (bytes, wants_state) = (Vec::new(), false);
        Ok(Self { source, decompressor, bytes, at: 0, offset, wants_state, left_over: 0 })
    }

    /// Returns the bytes of a block that was cut, 0 without one.
    pub(super) const fn left_over(&self) -> usize {
        self.left_over
    }

    /// Reads the next block; at the end, and at a cut, there is nothing in it.
    fn next_block(&mut self) -> io::Result<()> {
        while self.read_block()? {}
        Ok(())
    }

    /// Reads a block; true when it was passed over.
    fn read_block(&mut self) -> io::Result<bool> {
        (self.at, self.left_over) = (0, 0);
        self.bytes.clear();
        let head = up_to(&mut self.source, size_of::<RawBlock>())?;
        let Ok(block) = RawBlock::read_from_bytes(&head[..]) else {
            self.left_over = head.len();
            return Ok(false);
        };
        let (compressed, len) = (block.compressed as usize, block.len as usize);
        if block.magic != MAGIC || len > MOST || compressed > zstd::zstd_safe::compress_bound(MOST)
        {
            return Err(self.damaged());
        }
        let body = up_to(&mut self.source, compressed)?;
        if body.len() < compressed {
            self.left_over = head.len() + body.len();
            return Ok(false);
        }
        self.wants_state &= block.kind == STATE;
        if block.kind != RECORDS && !self.wants_state {
            self.offset += (head.len() + body.len()) as u64;
            return Ok(true);
        }
        self.bytes.resize(len, 0);
        let decompressed = self.decompressor.decompress_to_buffer(&body, &mut self.bytes);
        if decompressed.ok() != Some(len) {
            self.bytes.clear();
            return Err(self.damaged());
        }
        self.offset += (head.len() + body.len()) as u64;
        Ok(false)
    }

    fn damaged(&self) -> io::Error {
        let what = format!("the block at byte {} is damaged", self.offset);
        io::Error::new(io::ErrorKind::InvalidData, what)
    }
}

impl<R: Read + Seek> BlockReader<R> {
    /// Goes on at the last state of a time that is not later, if there is one.
    pub(super) fn seek(&mut self, time_ns: u64) -> io::Result<()> {
        let (mut found, mut was_state) = (None, false);
        self.each_head(|offset, block| {
            let is_state = block.kind == STATE;
            // A long state takes several blocks.
            if is_state && !was_state && block.last_ns <= time_ns {
                found = Some(offset);
            }
            was_state = is_state;
            is_state || block.first_ns <= time_ns
        })?;
        self.wants_state = found.is_some();
        self.go_on(found)
    }

    /// Goes on at the last block of records, if there is one further on.
    pub(super) fn seek_last(&mut self) -> io::Result<()> {
        let mut last = None;
        self.each_head(|offset, block| {
            if block.kind == RECORDS {
                last = Some(offset);
            }
            true
        })?;
        if last.is_some() {
            self.at = self.bytes.len();
        }
        self.go_on(last)
    }

    /// Reads the heads of the blocks further on, and nothing else of them, while `goes_on` says so.
    fn each_head(&mut self, mut goes_on: impl FnMut(u64, &RawBlock) -> bool) -> io::Result<()> {
        let mut offset = self.offset;
        loop {
            let head = up_to(&mut self.source, size_of::<RawBlock>())?;
            let Ok(block) = RawBlock::read_from_bytes(&head[..]) else { return Ok(()) };
            if block.magic != MAGIC || !goes_on(offset, &block) {
                return Ok(());
            }
            offset += head.len() as u64 + u64::from(block.compressed);
            self.source.seek(SeekFrom::Start(offset))?;
        }
    }

    /// Reads next what stands at an offset; what would have come next, where there is none.
    fn go_on(&mut self, offset: Option<u64>) -> io::Result<()> {
        self.offset = offset.unwrap_or(self.offset);
        self.source.seek(SeekFrom::Start(self.offset)).map(drop)
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let len = there.len().min(into.len());
        into[..len].copy_from_slice(&there[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl<R: Read> BufRead for BlockReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.bytes.len() && self.left_over == 0 {
            self.next_block()?;
        }
        Ok(self.bytes.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, len: usize) {
        self.at += len;
    }
}
