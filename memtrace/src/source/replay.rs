//! Events out of records that stand one behind the other, as the probes write them.

use memtrace_common::{DecodeError, Event, decode};

/// Decodes records until the bytes end. A record of a kind that this build does not know is passed
/// over.
///
/// Errors: [`DecodeError::Truncated`] for the last record when the bytes are cut in it.
pub fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<Event, DecodeError>> {
    std::iter::from_fn(move || {
        loop {
            if bytes.is_empty() {
                return None;
            }
            let decoded = decode(bytes);
            let len = match (&decoded, bytes.get(LENGTH_AT..LENGTH_AT + 2)) {
                (_, Some(len)) => usize::from(u16::from_ne_bytes([len[0], len[1]])),
                (_, None) => 0,
            };
            // A record is at least its header: nothing else could be told from what follows it.
            let rest = bytes.get(len..).filter(|_| len >= size_of::<memtrace_common::Header>());
            let cut = DecodeError::Truncated { len: bytes.len(), expected: len };
            bytes = rest.unwrap_or_default();
            match decoded {
                Err(DecodeError::UnknownKind(_)) if rest.is_some() => {}
                Ok(_) if rest.is_none() => return Some(Err(cut)),
                decoded => return Some(decoded),
            }
        }
    })
}

/// Where a record's length stands: the last two bytes of its header.
const LENGTH_AT: usize = size_of::<memtrace_common::Header>() - 2;

#[cfg(test)]
mod tests {
    use memtrace_common::{Exit, Header, Kind};
    use zerocopy::IntoBytes as _;

    use super::*;

    fn exit(tgid: u32, kind: u16) -> Vec<u8> {
        let len = size_of::<Exit>() as u16;
        let header = Header { tgid, kind, len, ..Header::default() };
        Exit { header, ..Exit::default() }.as_bytes().to_vec()
    }

    fn tgids(bytes: &[u8]) -> Vec<Result<u32, DecodeError>> {
        records(bytes).map(|event| event.map(|event| event.header().tgid)).collect()
    }

    #[test]
    fn an_unknown_kind_between_two_records_is_passed_over() {
        let known = Kind::Exit as u16;
        let bytes = [exit(1, known), exit(2, 999), exit(3, known)].concat();
        assert_eq!(tgids(&bytes), [Ok(1), Ok(3)]);
    }

    #[test]
    fn a_cut_at_any_byte_gives_the_whole_records_and_then_says_so() {
        let bytes = [exit(1, Kind::Exit as u16), exit(2, Kind::Exit as u16)].concat();
        let whole = size_of::<Exit>();
        for cut in whole + 1..2 * whole {
            let tgids = tgids(&bytes[..cut]);
            assert_eq!(tgids[0], Ok(1));
            assert!(matches!(tgids[1], Err(DecodeError::Truncated { .. })), "cut at {cut}");
            assert_eq!(tgids.len(), 2);
        }
        assert_eq!(tgids(&bytes[..whole]), [Ok(1)]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            proptest::prop_assert!(records(&bytes).count() <= bytes.len() + 1);
        }
    }
}
