//! Names of which there are few, and which a file may hold: of allocators, of their classes, of states.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Deserializer, de::Error};

/// So many are kept, each once and for ever: a file with more was not written by memtrace.
const MOST: usize = 4096;
/// Bytes of the longest.
const LONGEST: usize = 64;

static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// One of them.
pub type Name = &'static str;

/// Reads a name.
pub fn interned<'de, D: Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
    intern(&String::deserialize(from)?).ok_or_else(|| D::Error::custom("too many names"))
}

/// Reads figures by name.
pub fn interned_keys<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
    from: D,
) -> Result<BTreeMap<Name, V>, D::Error> {
    let read = BTreeMap::<String, V>::deserialize(from)?;
    let named = read.into_iter().map(|(name, figure)| Some((intern(&name)?, figure)));
    named.collect::<Option<_>>().ok_or_else(|| D::Error::custom("too many names"))
}

fn intern(name: &str) -> Option<&'static str> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&name) = known.get(name) {
        return Some(name);
    }
    if known.len() >= MOST || name.len() > LONGEST {
        return None;
    }
    let name: &'static str = String::leak(name.to_owned());
    known.insert(name);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_not_when_it_is_too_long() {
        let first = intern("one name").expect("short");
        assert!(std::ptr::eq(first, intern(&["one", "name"].join(" ")).expect("known")));
        assert_eq!(intern(&"x".repeat(LONGEST + 1)), None);
    }
}
