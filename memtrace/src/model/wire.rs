//! The kernel's books in a [`Model`] that is written down: as hexadecimal digits, since their layout is
//! the kernel side's.

use std::fmt::Write as _;

use memtrace_common::{Delays, Ledger, Remanence, decode_ledger};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use zerocopy::{FromBytes, IntoBytes as _};

use super::space::Afterlife;

/// Writes a ledger.
pub(super) fn ledger_to<S: Serializer>(ledger: &Ledger, to: S) -> Result<S::Ok, S::Error> {
    digits(ledger.as_bytes()).serialize(to)
}

/// Reads a ledger.
pub(super) fn ledger_from<'de, D: Deserializer<'de>>(from: D) -> Result<Ledger, D::Error> {
    decode_ledger(&bytes(from)?).map_err(D::Error::custom)
}

/// Writes what became of frames.
pub(super) fn afterlife_to<S: Serializer>(afterlife: &Afterlife, to: S) -> Result<S::Ok, S::Error> {
    let delays = afterlife.delays.as_ref().map_or(&[][..], |delays| delays.as_bytes());
    let remanence = afterlife.remanence.as_ref().map_or(&[][..], |found| found.as_bytes());
    [digits(delays), digits(remanence)].serialize(to)
}

/// Reads what became of frames.
pub(super) fn afterlife_from<'de, D: Deserializer<'de>>(from: D) -> Result<Afterlife, D::Error> {
    let [delays, remanence] = <[String; 2]>::deserialize(from)?;
    Ok(Afterlife {
        delays: known::<Delays>(&delays).map_err(D::Error::custom)?,
        remanence: known::<Remanence>(&remanence).map_err(D::Error::custom)?,
    })
}

fn known<T: FromBytes>(digits: &str) -> Result<Option<T>, &'static str> {
    if digits.is_empty() {
        return Ok(None);
    }
    let bytes = of_digits(digits).ok_or("not hexadecimal")?;
    T::read_from_prefix(&bytes).map(|(known, _)| Some(known)).map_err(|_| "too short")
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    of_digits(&String::deserialize(from)?).ok_or_else(|| D::Error::custom("not hexadecimal"))
}

fn digits(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A string takes all.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

fn of_digits(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
            _ => None,
        })
        .collect()
}

/// Names of files, by numbers: JSON has no keys of three parts.
pub(super) mod names {
    use std::collections::HashMap;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    type Names = HashMap<(u32, u64, u16), String>;

    pub(in super::super) fn serialize<S: Serializer>(
        names: &Names,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        names.iter().collect::<Vec<_>>().serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Names, D::Error> {
        Ok(Vec::deserialize(from)?.into_iter().collect())
    }
}
