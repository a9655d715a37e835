//! Turns ring-buffer bytes into an [`Event`].

use zerocopy::{FromBytes, IntoBytes as _};

use crate::{
    event::{Event, Header, Kind, MmEnd, Record},
    ledger::{Ledger, OLDEST_LEDGER},
};

/// Why a record could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the record needs.
    #[error("record of {len} bytes is shorter than the {expected} that its kind needs")]
    Truncated {
        /// Bytes at hand.
        len: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// A kind that this build does not know: skip the record.
    #[error("unknown record kind {0}")]
    UnknownKind(u16),
}

/// Decodes one record.
///
/// Trailing bytes are ignored, and older records may be shorter: a record may grow at its end.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let header: Header = prefix(bytes)?;
    let kind = Kind::from_raw(header.kind).ok_or(DecodeError::UnknownKind(header.kind))?;
    Ok(match kind {
        Kind::MapRegion => Event::MapRegion(record(bytes)?),
        Kind::UnmapRegion => Event::UnmapRegion(record(bytes)?),
        Kind::Call => Event::Call(record(bytes)?),
        Kind::Fork => Event::Fork(record(bytes)?),
        Kind::Exec => Event::Exec(record(bytes)?),
        Kind::Exit => Event::Exit(record(bytes)?),
        Kind::MmEnd => Event::MmEnd(record(bytes)?),
        Kind::Fault => Event::Fault(record(bytes)?),
        Kind::FileName => Event::FileName(record(bytes)?),
        Kind::TaskSeed => Event::TaskSeed(record(bytes)?),
        Kind::TeardownRun => Event::TeardownRun(record(bytes)?),
        Kind::RegionOffset => Event::RegionOffset(record(bytes)?),
    })
}

/// Decodes the books of an address space, which may be older or newer as those in its last record may.
pub fn decode_ledger(bytes: &[u8]) -> Result<Ledger, DecodeError> {
    let MmEnd { mut ledger, .. } = MmEnd::untold();
    let len = bytes.len().min(size_of::<Ledger>());
    if len < OLDEST_LEDGER {
        return Err(DecodeError::Truncated { len, expected: OLDEST_LEDGER });
    }
    ledger.as_mut_bytes()[..len].copy_from_slice(&bytes[..len]);
    Ok(ledger)
}

fn record<T: Record>(bytes: &[u8]) -> Result<T, DecodeError> {
    if (T::OLDEST_LEN..size_of::<T>()).contains(&bytes.len()) {
        let mut record = T::untold();
        record.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        return Ok(record);
    }
    prefix(bytes)
}

fn prefix<T: FromBytes>(bytes: &[u8]) -> Result<T, DecodeError> {
    match T::read_from_prefix(bytes) {
        Ok((value, _rest)) => Ok(value),
        Err(_) => Err(DecodeError::Truncated { len: bytes.len(), expected: size_of::<T>() }),
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::{Ledger, MmEnd, PATHS, Path, Syscall, event::Call};

    fn munmap() -> Call {
        Call {
            header: Header {
                time_ns: 7,
                mm: 1,
                tgid: 42,
                tid: 43,
                cpu: 0,
                sequence: 9,
                kind: Kind::Call as u16,
                len: size_of::<Call>() as u16,
            },
            args: [0x1000, 0x2000, 0, 0, 0, 0],
            syscall: Syscall::Munmap as u16,
            path: Path::Munmap as u16,
            ..Call::default()
        }
    }

    #[test]
    fn a_record_survives_the_round_trip() {
        let record = munmap();
        assert_eq!(decode(record.as_bytes()), Ok(Event::Call(record)));
    }

    #[test]
    fn a_truncated_record_says_what_it_lacks() {
        let record = munmap();
        let bytes = &record.as_bytes()[..40];
        assert_eq!(decode(bytes), Err(DecodeError::Truncated { len: 40, expected: 120 }));
    }

    #[test]
    fn an_unknown_kind_is_not_an_enum_value() {
        let mut record = munmap();
        record.header.kind = 999;
        assert_eq!(decode(record.as_bytes()), Err(DecodeError::UnknownKind(999)));
    }

    #[test]
    fn a_longer_record_of_a_newer_probe_still_decodes() {
        let record = munmap();
        let mut bytes = record.as_bytes().to_vec();
        bytes.extend([0xff; 24]);
        assert_eq!(decode(&bytes), Ok(Event::Call(record)));
    }

    #[test]
    fn the_end_of_an_address_space_in_an_older_trace_tells_less() {
        let end = MmEnd {
            header: Header { kind: Kind::MmEnd as u16, ..munmap().header },
            ledger: Ledger { sections: 7, shared_pages: [3; PATHS], ..Ledger::default() },
        };
        assert_eq!(decode(end.as_bytes()), Ok(Event::MmEnd(end)));
        let Ok(Event::MmEnd(older)) = decode(&end.as_bytes()[..632]) else {
            panic!("it decodes");
        };
        let [anon, shared] = [older.ledger.freed_anon_frames, older.ledger.shared_pages];
        assert_eq!((older.ledger.sections, anon, shared), (7, [Ledger::NOT_TOLD; PATHS], anon));
        let Ok(Event::MmEnd(later)) = decode(&end.as_bytes()[..808]) else {
            panic!("it decodes");
        };
        assert_eq!(
            (later.ledger.shared_pages, later.ledger.swapped_in_pages),
            ([3; PATHS], u64::MAX)
        );
        let books = |len: usize| decode_ledger(&end.ledger.as_bytes()[..len]);
        assert_eq!(books(776), Ok(later.ledger));
        assert!(books(599).is_err());
        let cut = decode(&end.as_bytes()[..631]);
        assert_eq!(cut, Err(DecodeError::Truncated { len: 631, expected: 856 }));
    }

    #[test]
    fn every_raw_value_of_our_enums_comes_back_as_itself() {
        for raw in 0..=u16::MAX {
            assert!(Kind::from_raw(raw).is_none_or(|kind| kind as u16 == raw));
            assert!(Syscall::from_raw(raw).is_none_or(|call| call as u16 == raw));
            assert!(Path::from_raw(raw).is_none_or(|path| path as u16 == raw));
        }
    }

    #[test]
    fn any_bytes_decode_or_fail_cleanly() {
        arbtest::arbtest(|u| {
            let bytes: &[u8] = u.arbitrary()?;
            let _ = decode(bytes);
            Ok(())
        });
    }
}
