//! Events out of records that stand one behind the other, as the probes write them: in memory, or
//! in a file behind its header (`trace_file`).

use std::io::{self, BufRead};

use memtrace_common::{Event, Header, decode};

/// Decodes the records in `bytes` until they end.
pub fn records(bytes: &[u8]) -> Records<&[u8]> {
    Records::new(bytes, 0)
}

/// Records of a stream, one at a time: it keeps no more than one.
///
/// As an iterator it yields events. It passes over and counts what this build cannot read, and ends
/// at the end of the stream, at a cut (see [`Records::left_over`]) or behind an error.
#[derive(Debug)]
pub struct Records<R> {
    source: R,
    record: Vec<u8>,
    /// Offset of the next record.
    at: u64,
    whole: u64,
    skipped: u64,
    left_over: usize,
    ended: bool,
}

/// Why records cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A record cannot be shorter than its header: nothing tells where the next one begins.
    #[error("the record at byte {at} is damaged: it says that it is {len} bytes long")]
    Corrupt {
        /// Offset of the record.
        at: u64,
        /// What it says.
        len: u16,
    },
    /// The source failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl<R: BufRead> Records<R> {
    /// Begins with the record that the source gives next, which stands at offset `at`.
    pub(super) const fn new(source: R, at: u64) -> Self {
        let record = Vec::new();
        Self { source, record, at, whole: 0, skipped: 0, left_over: 0, ended: false }
    }

    /// Returns the next whole record with its header; `None` at the end and at a cut.
    pub fn next_record(&mut self) -> Result<Option<(Header, &[u8])>, RecordError> {
        if self.ended {
            return Ok(None);
        }
        // Whatever happens below but a whole record is the end.
        self.ended = true;
        self.record.clear();
        self.fill(size_of::<Header>())?;
        let header = zerocopy::FromBytes::read_from_bytes(&self.record[..]);
        let Ok(header @ Header { len, .. }) = header else {
            self.left_over = self.record.len();
            return Ok(None);
        };
        if usize::from(len) < size_of::<Header>() {
            return Err(RecordError::Corrupt { at: self.at, len });
        }
        self.fill(usize::from(len))?;
        if self.record.len() < usize::from(len) {
            self.left_over = self.record.len();
            return Ok(None);
        }
        self.ended = false;
        self.at += u64::from(len);
        self.whole += 1;
        Ok(Some((header, &self.record)))
    }

    /// Decodes the next event that this build knows.
    pub fn next_event(&mut self) -> Result<Option<Event>, RecordError> {
        while let Some((_, record)) = self.next_record()? {
            match decode(record) {
                Ok(event) => return Ok(Some(event)),
                Err(_) => self.pass_over(),
            }
        }
        Ok(None)
    }

    /// Counts the last record as one that this build cannot read.
    pub(super) const fn pass_over(&mut self) {
        self.skipped += 1;
    }

    /// Reads nothing more.
    pub(super) const fn stop(&mut self) {
        self.ended = true;
    }

    /// Returns where the records come from.
    pub(super) const fn source(&self) -> &R {
        &self.source
    }

    /// Returns where the records come from, to go elsewhere.
    pub(super) const fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// Returns how many whole records there were.
    pub const fn whole(&self) -> u64 {
        self.whole
    }

    /// Returns how many of them were of a kind that this build does not know, or shorter than their
    /// kind needs.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Returns the offset behind the last whole record.
    pub const fn offset(&self) -> u64 {
        self.at
    }

    /// Returns the bytes of a record that was cut, 0 without one.
    pub const fn left_over(&self) -> usize {
        self.left_over
    }

    /// Reads until the record has `len` bytes or the source ends.
    fn fill(&mut self, len: usize) -> io::Result<()> {
        while self.record.len() < len {
            let there = match self.source.fill_buf() {
                Ok(there) => there,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if there.is_empty() {
                break;
            }
            let taken = there.len().min(len - self.record.len());
            self.record.extend_from_slice(&there[..taken]);
            self.source.consume(taken);
        }
        Ok(())
    }
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<Event, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_event().transpose()
    }
}

#[cfg(test)]
mod tests {
    use memtrace_common::{Exit, Kind};
    use zerocopy::IntoBytes as _;

    use super::*;

    const WHOLE: usize = size_of::<Exit>();
    const KNOWN: u16 = Kind::Exit as u16;

    fn exit(tgid: u32, kind: u16) -> Vec<u8> {
        let header = Header { tgid, kind, len: WHOLE as u16, ..Header::default() };
        Exit { header, ..Exit::default() }.as_bytes().to_vec()
    }

    fn tgids<R: BufRead>(records: &mut Records<R>) -> Vec<u32> {
        records.map(|event| event.expect("no error").header().tgid).collect()
    }

    #[test]
    fn an_unknown_kind_between_two_records_is_passed_over_and_counted() {
        let bytes = [exit(1, KNOWN), exit(2, 999), exit(3, KNOWN)].concat();
        let mut records = records(&bytes);
        assert_eq!(tgids(&mut records), [1, 3]);
        assert_eq!((records.whole(), records.skipped()), (3, 1));
        assert_eq!(records.offset(), bytes.len() as u64);
    }

    #[test]
    fn a_record_shorter_than_its_kind_does_not_take_bytes_of_the_next_one() {
        let mut short = exit(1, KNOWN);
        short.truncate(40);
        short[30..32].copy_from_slice(&40_u16.to_ne_bytes());
        let bytes = [short, exit(2, KNOWN)].concat();
        let mut records = records(&bytes);
        assert_eq!(tgids(&mut records), [2]);
        assert_eq!(records.skipped(), 1);
    }

    #[test]
    fn a_cut_at_any_byte_gives_the_whole_records_and_what_is_left_over() {
        let bytes = [exit(1, KNOWN), exit(2, KNOWN)].concat();
        for cut in 0..=bytes.len() {
            let mut records = records(&bytes[..cut]);
            assert_eq!(tgids(&mut records).len(), cut / WHOLE, "cut at {cut}");
            assert_eq!(records.left_over(), cut % WHOLE, "cut at {cut}");
        }
    }

    #[test]
    fn nothing_is_read_behind_a_record_that_is_shorter_than_a_header() {
        let mut damaged = exit(2, KNOWN);
        damaged[30..32].copy_from_slice(&31_u16.to_ne_bytes());
        let bytes = [exit(1, KNOWN), damaged, exit(3, KNOWN)].concat();
        let mut records = records(&bytes);
        assert_eq!(records.next().expect("one").expect("whole").header().tgid, 1);
        let error = records.next().expect("an error").expect_err("damaged");
        assert!(matches!(error, RecordError::Corrupt { at: 56, len: 31 }), "{error}");
        assert!(records.next().is_none());
        assert_eq!(records.whole(), 1);
    }

    #[test]
    fn a_source_that_is_interrupted_or_gives_a_byte_at_a_time_gives_the_same() {
        /// Fails every other time.
        struct Slow<'a>(&'a [u8], bool);
        impl io::Read for Slow<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                self.0.read(&mut into[..1])
            }
        }
        let bytes = [exit(1, KNOWN), exit(2, 999), exit(3, KNOWN)].concat();
        let mut records = Records::new(io::BufReader::new(Slow(&bytes, false)), 0);
        assert_eq!(tgids(&mut records), [1, 3]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let mut records = records(&bytes);
            proptest::prop_assert!(records.by_ref().count() <= bytes.len() / size_of::<Header>() + 1);
            proptest::prop_assert!(records.offset() <= bytes.len() as u64);
            proptest::prop_assert!(records.next().is_none());
        }
    }
}
