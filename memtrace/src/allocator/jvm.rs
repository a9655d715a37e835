//! HotSpot's heap, by what the JVM says of it itself: its performance counters, which it keeps in a
//! mapped file (`hsperfdata_USER/PID`). No object is looked at, and which pages are free is not known.

use std::collections::BTreeMap;

use super::{
    mappings::Mappings,
    memory::{ReadMemory, word},
    pages::Pages,
    walked::{Unwalked, Walked},
};
use crate::model::region_map::{PAGE, flag};

/// Its name in every output.
pub const NAME: &str = "jvm";

/// The file's first bytes, and where its entries begin and how many there are (`PerfDataPrologue`,
/// src/hotspot/share/runtime/perfMemory.hpp, JDK 8 to 25).
const MAGIC: [u8; 4] = [0xca, 0xfe, 0xc0, 0xc0];
const LITTLE_ENDIAN: u8 = 1;
const FIRST: usize = 24;
const COUNT: usize = 28;
/// Bytes of a counter's head (`PerfDataEntry`).
const HEAD: usize = 20;
/// The file that is read at most: it has 32 KiB unless `PerfDataMemorySize` says otherwise.
const MOST: u64 = 1 << 20;

/// Reads the counters of a JVM.
///
/// Errors: it is none, or keeps no counters; it cannot be read.
pub fn walk<M: ReadMemory>(memory: &M, mappings: &Mappings) -> Result<Walked, Unwalked> {
    // Who watches a JVM maps its file too, to read it.
    let own = mappings
        .iter()
        .find(|mapping| mapping.name.contains("/hsperfdata_") && mapping.flags & flag::WRITE != 0);
    let own = own.ok_or(Unwalked::NotUsed(NAME))?;
    let mut bytes = vec![0; (own.end - own.start).min(MOST) as usize];
    Pages::new(memory).read(own.start, &mut bytes)?;
    let counters = Counters::decode(&bytes).ok_or_else(|| Unwalked::NotUnderstood {
        name: NAME,
        why: "its performance counters are not there".to_owned(),
    })?;
    Ok(counters.walked())
}

/// Counters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counters<'a> {
    numbers: BTreeMap<&'a str, u64>,
    texts: BTreeMap<&'a str, &'a str>,
}

impl<'a> Counters<'a> {
    /// Takes those that a walk needs out of the file.
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let is_ours = bytes.get(..4)? == MAGIC && *bytes.get(4)? == LITTLE_ENDIAN;
        let mut counters = Self::default();
        let mut at = number(bytes, FIRST)?;
        for _ in 0..number(bytes, COUNT)? {
            let Some((len, name, value)) = entry(bytes, at) else { break };
            match value {
                Value::Number(number) if name.starts_with("sun.gc.") => {
                    counters.numbers.insert(name, number);
                }
                Value::Text(text) if name.starts_with("sun.gc.") || name == VERSION => {
                    counters.texts.insert(name, text);
                }
                Value::Number(_) | Value::Text(_) | Value::Other => {}
            }
            at += len;
        }
        (is_ours && !counters.numbers.is_empty()).then_some(counters)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.numbers.get(name).copied()
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.texts.get(name).copied()
    }

    /// Returns what the spaces have and hold free.
    fn walked(&self) -> Walked {
        let mut walked = Walked {
            name: NAME,
            version: self.text(VERSION).map(str::to_owned),
            is_lower_bound: true,
            ..Walked::default()
        };
        // G1 says of eden what was used at the end of the last collection: since then it fills.
        let is_g1 = self.text("sun.gc.policy.name") == Some("GarbageFirst");
        for (class, generation, space) in SPACES {
            let space = format!("sun.gc.generation.{generation}.space.{space}");
            let Some(committed) = self.number(&format!("{space}.capacity")) else { continue };
            // Shenandoah's space has all that it may ever have; its generation what it has.
            let all = self.number(&format!("sun.gc.generation.{generation}.capacity"));
            let committed = committed.min(all.unwrap_or(committed)) & !(PAGE - 1);
            let used = match self.number(&format!("{space}.used")) {
                Some(used) if !(is_g1 && class == "eden") => used,
                Some(_) | None => committed,
            };
            add(&mut walked, class, committed, used);
        }
        // Before the first collection it has nothing to say of it.
        let metaspace = |what: &str| self.number(&format!("sun.gc.metaspace.{what}"));
        if let (Some(committed), Some(used)) = (metaspace("capacity"), metaspace("used")) {
            add(&mut walked, "metaspace", committed, used);
        }
        let most = self.number("sun.gc.generation.1.maxCapacity");
        walked.settings = most.map(|most| ("max_heap", most & !(PAGE - 1))).into_iter().collect();
        walked
    }
}

const VERSION: &str = "java.property.java.version";

/// What the spaces are called here, the generation that each is in, and its number there. Collectors
/// without generations have the last one only.
const SPACES: [(&str, u32, u32); 4] =
    [("eden", 0, 0), ("survivors", 0, 1), ("survivors", 0, 2), ("old", 1, 0)];

fn add(walked: &mut Walked, class: &'static str, committed: u64, used: u64) {
    let free = committed.saturating_sub(used);
    let sum = walked.free.entry(class).or_insert(0);
    *sum = sum.saturating_add(free);
    walked.system = walked.system.saturating_add(committed);
    walked.in_use = walked.in_use.saturating_add(committed - free);
}

/// The value of a counter.
enum Value<'a> {
    Number(u64),
    Text(&'a str),
    Other,
}

/// Returns the length of an entry, its name and its value.
fn entry(bytes: &[u8], at: usize) -> Option<(usize, &str, Value<'_>)> {
    let bytes = bytes.get(at..)?;
    let bytes = bytes.get(..number(bytes, 0)?)?;
    let (name, count) = (number(bytes, 4)?, number(bytes, 8)?);
    let (kind, data) = (*bytes.get(12)?, number(bytes, 16)?);
    if bytes.len() < HEAD {
        return None;
    }
    let name = text(bytes.get(name..)?)?;
    let value = match (kind, count) {
        (b'J', 0) => Value::Number(word(bytes.get(data..data.checked_add(8)?)?)),
        (b'B', 1..) => bytes
            .get(data..data.checked_add(count)?)
            .and_then(text)
            .map_or(Value::Other, Value::Text),
        _ => Value::Other,
    };
    Some((bytes.len(), name, value))
}

/// Returns four bytes as a number.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(i32::from_le_bytes(bytes)).ok()
}

/// Returns what stands before the first zero.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.split(|&byte| byte == 0).next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Counter {
        Number(&'static str, u64),
        Text(&'static str, &'static str),
    }

    /// A file as the JVM writes it.
    fn file(counters: &[Counter]) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[LITTLE_ENDIAN, 2, 0, 1], &[0; 24]].concat();
        bytes[FIRST..FIRST + 4].copy_from_slice(&32_u32.to_le_bytes());
        bytes[COUNT..].copy_from_slice(&(counters.len() as u32).to_le_bytes());
        for counter in counters {
            let (name, kind, count, value) = match counter {
                Counter::Number(name, value) => (name, b'J', 0, value.to_le_bytes().to_vec()),
                Counter::Text(name, value) => {
                    (name, b'B', value.len() as u32, value.as_bytes().to_vec())
                }
            };
            let data = (HEAD + name.len() + 1).next_multiple_of(8);
            let len = (data + value.len()).next_multiple_of(8);
            let start = bytes.len();
            bytes.resize(start + len, 0);
            let entry = &mut bytes[start..];
            for (at, field) in [(0, len as u32), (4, HEAD as u32), (8, count), (16, data as u32)] {
                entry[at..at + 4].copy_from_slice(&field.to_le_bytes());
            }
            entry[12] = kind;
            entry[HEAD..HEAD + name.len()].copy_from_slice(name.as_bytes());
            entry[data..data + value.len()].copy_from_slice(&value);
        }
        bytes
    }

    /// What Java 17 said with `-XX:+UseG1GC`.
    fn g1() -> Vec<u8> {
        file(&[
            Counter::Text(VERSION, "17.0.15"),
            Counter::Text("sun.gc.policy.name", "GarbageFirst"),
            Counter::Number("sun.gc.generation.0.capacity", 19_922_968),
            Counter::Number("sun.gc.generation.0.space.0.capacity", 16_777_224),
            Counter::Number("sun.gc.generation.0.space.0.used", 0),
            Counter::Number("sun.gc.generation.0.space.1.capacity", 8),
            Counter::Number("sun.gc.generation.0.space.1.used", 0),
            Counter::Number("sun.gc.generation.0.space.2.capacity", 3_145_736),
            Counter::Number("sun.gc.generation.0.space.2.used", 3_145_728),
            Counter::Number("sun.gc.generation.1.capacity", 378_535_944),
            Counter::Number("sun.gc.generation.1.maxCapacity", 536_870_920),
            Counter::Number("sun.gc.generation.1.space.0.capacity", 378_535_944),
            Counter::Number("sun.gc.generation.1.space.0.used", 20_045_312),
            Counter::Number("sun.gc.metaspace.capacity", 9_568_256),
            Counter::Number("sun.gc.metaspace.used", 9_333_008),
        ])
    }

    #[test]
    fn the_heap_is_what_the_jvm_says() {
        let bytes = g1();
        let walked = Counters::decode(&bytes).unwrap().walked();
        assert_eq!(walked.version.as_deref(), Some("17.0.15"));
        // `jcmd PID GC.heap_info`: total 389120K; Metaspace committed 9344K.
        assert_eq!(walked.system, (389_120 + 9344) << 10);
        let (old, metaspace) = (378_535_936 - 20_045_312, 9_568_256 - 9_333_008);
        let free = [("eden", 0), ("metaspace", metaspace), ("old", old), ("survivors", 0)];
        assert_eq!(walked.free, free.into());
        assert_eq!(walked.in_use, walked.system - old - metaspace);
        assert!(walked.is_lower_bound && walked.free_resident.is_none());
    }

    #[test]
    fn other_collectors_say_what_is_used_of_eden() {
        let bytes = file(&[
            Counter::Number("sun.gc.generation.0.space.0.capacity", 105_775_104),
            Counter::Number("sun.gc.generation.0.space.0.used", 40_375_120),
        ]);
        let walked = Counters::decode(&bytes).unwrap().walked();
        assert_eq!(walked.free, [("eden", 105_775_104 - 40_375_120)].into());
    }

    #[test]
    fn a_space_has_no_more_than_its_generation() {
        let bytes = file(&[
            Counter::Number("sun.gc.generation.1.capacity", 395_051_008),
            Counter::Number("sun.gc.generation.1.space.0.capacity", 536_870_912),
            Counter::Number("sun.gc.generation.1.space.0.used", 34_683_760),
        ]);
        let walked = Counters::decode(&bytes).unwrap().walked();
        assert_eq!((walked.system, walked.in_use), (395_051_008, 34_683_760));
    }

    #[test]
    fn any_bytes_give_counters_or_none() {
        let whole = g1();
        for len in 0..whole.len() {
            let _ = Counters::decode(&whole[..len]).map(|counters| counters.walked());
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                if let Some(counters) = Counters::decode(&bytes) {
                    let walked = counters.walked();
                    assert_eq!(walked.system, walked.in_use.saturating_add(walked.free_bytes()));
                }
            }
        }
        assert_eq!(Counters::decode(&[0; 4096]), None);
    }
}
