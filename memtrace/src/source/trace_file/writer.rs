//! Writes a trace.

use std::{
    fmt,
    io::{self, Write},
    time::{Duration, Instant},
};

use memtrace_common::{Event, Header, ProbeStats};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{
    BYTE_ORDER, END, MAGIC, Prefix, RawEnd, RawHeader, TraceEnd, TraceHeader, VERSION,
    blocks::BlockWriter, facts,
};
use crate::model::{Model, fact::Fact};

/// Writes a trace, by blocks. What waits in it is written by [`TraceWriter::turn`] within a second.
pub struct TraceWriter<W> {
    blocks: BlockWriter<W>,
    /// Since when something waits, about.
    waits: Option<Instant>,
    /// Bytes of records since what is known was written last.
    since_state: usize,
    /// Bytes of what was known then.
    state: usize,
    /// Where was measured, and by what: goes with what is known.
    machine: Vec<Vec<u8>>,
}

/// What is known is written again after so many bytes of records: that is what `--from` reads at most
/// before the moment that it was asked for …
const STATE_EVERY: usize = 16 << 20;
/// … or after so many times its own bytes.
const STATE_SHARE: usize = 8;

/// What waits longer is written at the next turn; turns are a tenth of a second apart.
const LONGEST_WAIT: Duration = Duration::from_millis(800);

impl<W: Write> TraceWriter<W> {
    /// Writes the header. Names that are too long are cut.
    pub fn create(mut sink: W, header: &TraceHeader) -> io::Result<Self> {
        let &TraceHeader { ref arch, ref kernel, page_size, start_ns, evidence } = header;
        let page_size = u32::try_from(page_size).map_err(io::Error::other)?;
        let prefix = Prefix {
            magic: MAGIC,
            version: VERSION,
            header_len: size_of::<RawHeader>() as u16,
            byte_order: BYTE_ORDER,
        };
        let (arch, kernel) = (filled_up(arch), filled_up(kernel));
        let evidence = evidence as u32 + 1;
        let raw = RawHeader { prefix, page_size, evidence, start_ns, arch, kernel };
        sink.write_all(raw.as_bytes())?;
        sink.flush()?;
        let blocks = BlockWriter::new(sink, size_of::<RawHeader>() as u64)?;
        Ok(Self { blocks, waits: None, since_state: 0, state: 0, machine: Vec::new() })
    }

    /// Writes a record as the probes gave it.
    ///
    /// Errors: [`io::ErrorKind::InvalidInput`] where its length is not what its header says, for
    /// nothing behind it could be read.
    pub fn write(&mut self, record: &[u8]) -> io::Result<()> {
        let header = Header::read_from_prefix(record).ok().map(|(header, _)| header);
        match header {
            Some(header) if usize::from(header.len) == record.len() => {
                self.since_state += record.len();
                self.blocks.push(header.time_ns, record)
            }
            _ => {
                let what = "a record whose length is not what it says";
                Err(io::Error::new(io::ErrorKind::InvalidInput, what))
            }
        }
    }

    /// Writes an event that no probe sent.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        let record = event.record();
        let (kind, len) = (event.kind() as u16, record.len() as u16);
        let header = Header { kind, len, ..*event.header() };
        self.write(&[header.as_bytes(), &record[size_of::<Header>()..]].concat())
    }

    /// Writes what was read beside the records.
    pub fn fact(&mut self, fact: &Fact) -> io::Result<()> {
        let records = facts::records(fact, self.blocks.last_ns())?;
        for record in &records {
            self.write(record)?;
        }
        if matches!(fact, Fact::Machine { .. }) {
            self.machine = records;
        }
        Ok(())
    }

    /// Tells whether what is known is to be written.
    pub const fn wants_state(&self) -> bool {
        self.since_state >= STATE_EVERY && self.since_state / STATE_SHARE >= self.state
    }

    /// Writes what is known by now, for those who begin to read here.
    pub fn state(&mut self, model: &Model) -> io::Result<()> {
        let time_ns = self.blocks.last_ns();
        let records = [self.machine.clone(), facts::state(model, time_ns)?].concat();
        self.state = records.iter().map(Vec::len).sum();
        self.since_state = 0;
        self.blocks.state(time_ns, &records)
    }

    /// Lets what waits for too long go into the file.
    pub fn turn(&mut self, now: Instant) -> io::Result<()> {
        if self.blocks.is_empty() {
            self.waits = None;
        } else if now.duration_since(*self.waits.get_or_insert(now)) >= LONGEST_WAIT {
            self.waits = None;
            self.blocks.flush()?;
        }
        Ok(())
    }

    /// Writes the last record and everything that waits. Returns how many bytes were written in all.
    pub fn finish(mut self, end: &TraceEnd) -> io::Result<u64> {
        let &TraceEnd { time_ns, stats: ProbeStats { emitted, dropped, untracked, .. }, missed } =
            end;
        let len = size_of::<RawEnd>() as u16;
        let header = Header { time_ns, kind: END, len, ..Header::default() };
        let raw = RawEnd { header, emitted, dropped, untracked, missed };
        self.write(raw.as_bytes())?;
        self.blocks.flush()?;
        Ok(self.blocks.written())
    }
}

impl<W> fmt::Debug for TraceWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceWriter").field("waits", &self.waits).finish_non_exhaustive()
    }
}

fn filled_up<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let len = name.len().min(N);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}
