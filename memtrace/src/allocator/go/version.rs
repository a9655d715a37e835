//! Tells whether a program is written in Go, and with which version, by its file: the linker puts a
//! `.go.buildinfo` into every one, which stripping leaves there (src/debug/buildinfo, 1.13 to 1.27).

use std::io;

use crate::allocator::memory::word;

/// What `.go.buildinfo` begins with, and where it may.
const MAGIC: &[u8] = b"\xff Go buildinf:";
const ALIGN: usize = 16;
/// Flag of the one that holds its texts itself (1.18 and later), and where they begin.
const INLINE: u8 = 2;
const TEXTS: usize = 32;
/// Bytes that are read at most: of `.go.buildinfo` or of a segment without it, of a table, of a version.
const MOST: u64 = 1 << 20;
const MOST_TABLE: u64 = 1 << 18;
const MOST_TEXT: u64 = 64;

/// ELF64 (elf(5)): a program header and a section header, in bytes.
const SEGMENT: usize = 56;
const SECTION: usize = 64;
const LOAD: u64 = 1;
const EXECUTE: u64 = 1;
const WRITE: u64 = 2;

/// Returns the version of Go that a program was built with, such as `1.22.5`; `None` when it is not
/// written in Go. `read_at` reads from an offset of its file as much as there is.
///
/// Errors: those of `read_at`.
pub fn version(
    read_at: impl Fn(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<Option<String>> {
    let file = ElfFile { read_at };
    let head = file.read(0, 64)?;
    if !head.starts_with(b"\x7fELF\x02\x01") || head.len() < 64 {
        return Ok(None);
    }
    let table = |offset: usize, size: usize, count: usize| {
        let len = half(&head, count) * size as u64;
        file.read(word(&head[offset..offset + 8]), len.min(MOST_TABLE))
    };
    let segments = table(32, SEGMENT, 56)?;
    let places = file.section(&table(40, SECTION, 60)?, half(&head, 62))?;
    let loads = segments.chunks_exact(SEGMENT).filter(|segment| int(segment, 0) == LOAD);
    let data = loads.filter(|segment| int(segment, 4) & (WRITE | EXECUTE) == WRITE);
    let data = data.map(|segment| (word(&segment[8..16]), word(&segment[32..40])));
    for (offset, len) in places.into_iter().chain(data) {
        let bytes = file.read(offset, len.min(MOST))?;
        let mut places = bytes.chunks(ALIGN).enumerate();
        if let Some((at, _)) = places.find(|(_, bytes)| bytes.starts_with(MAGIC)) {
            let text = file.text(&segments, &bytes[at * ALIGN..])?;
            let text = text.and_then(|text| String::from_utf8(text).ok());
            let is_printable = |text: &String| text.bytes().all(|byte| (b' '..127).contains(&byte));
            let text = text.filter(is_printable).unwrap_or_default();
            return Ok(Some(text.strip_prefix("go").unwrap_or(&text).to_owned()));
        }
    }
    Ok(None)
}

struct ElfFile<F> {
    read_at: F,
}

impl<F: Fn(u64, &mut [u8]) -> io::Result<usize>> ElfFile<F> {
    /// Reads a part of the file, shorter at its end.
    fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        let mut done = 0;
        while done < bytes.len() {
            match (self.read_at)(offset.saturating_add(done as u64), &mut bytes[done..])? {
                0 => break,
                more => done += more.min(bytes.len() - done),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }

    /// Returns where `.go.buildinfo` is and how long.
    fn section(&self, sections: &[u8], names: u64) -> io::Result<Option<(u64, u64)>> {
        let place = |section: &[u8]| (word(&section[24..32]), word(&section[32..40]));
        let mut all = sections.chunks_exact(SECTION);
        let Some((offset, len)) = all.clone().nth(names as usize).map(place) else {
            return Ok(None);
        };
        let names = self.read(offset, len.min(MOST_TABLE))?;
        let is_wanted = |section: &&[u8]| {
            let name = names.get(int(section, 0) as usize..).unwrap_or_default();
            name.starts_with(b".go.buildinfo\0")
        };
        Ok(all.find(is_wanted).map(place))
    }

    /// Returns the version out of what begins with [`MAGIC`].
    fn text(&self, segments: &[u8], info: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let Some(head) = info.get(..TEXTS) else { return Ok(None) };
        if head[15] & INLINE != 0 {
            // Lengths below 128 are one byte (varint).
            let len = info.get(TEXTS).filter(|&&len| u64::from(len) <= MOST_TEXT);
            let text = len.and_then(|&len| info[TEXTS + 1..].get(..usize::from(len)));
            return Ok(text.map(<[u8]>::to_vec));
        }
        // Up to 1.17 it leads to the text, by way of a Go string.
        let Some(string) = offset_of(segments, word(&head[16..24])) else { return Ok(None) };
        let string = self.read(string, 16)?;
        if string.len() < 16 || word(&string[8..]) > MOST_TEXT {
            return Ok(None);
        }
        let Some(text) = offset_of(segments, word(&string[..8])) else { return Ok(None) };
        self.read(text, word(&string[8..])).map(Some)
    }
}

/// Returns where in the file an address is.
fn offset_of(segments: &[u8], address: u64) -> Option<u64> {
    segments.chunks_exact(SEGMENT).filter(|segment| int(segment, 0) == LOAD).find_map(|segment| {
        let at = address.checked_sub(word(&segment[16..24]))?;
        (at < word(&segment[32..40])).then(|| at.checked_add(word(&segment[8..16])))?
    })
}

fn int(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, |bytes| u32::from_le_bytes(bytes).into())
}

fn half(bytes: &[u8], at: usize) -> u64 {
    int(bytes, at) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_of(file: &[u8]) -> Option<String> {
        let read_at = |offset: u64, into: &mut [u8]| {
            let bytes = usize::try_from(offset).ok().and_then(|at| file.get(at..));
            let bytes = bytes.unwrap_or_default();
            let len = bytes.len().min(into.len());
            into[..len].copy_from_slice(&bytes[..len]);
            Ok(len)
        };
        version(read_at).expect("a slice can be read")
    }

    /// A program with one writable segment, at 0x1000 of the file and at 0x401000.
    fn file() -> Vec<u8> {
        let mut file = vec![0; 0x1400];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        set(&mut file, 32, 64);
        file[56] = 1;
        set(&mut file, 64, 1 | 6 << 32);
        set(&mut file, 64 + 8, 0x1000);
        set(&mut file, 64 + 16, 0x40_1000);
        set(&mut file, 64 + 32, 0x400);
        file[0x1010..0x1010 + MAGIC.len()].copy_from_slice(MAGIC);
        file
    }

    fn set(file: &mut [u8], at: usize, value: u64) {
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    #[test]
    fn a_file_tells_its_version_itself_or_by_way_of_a_string() {
        let mut inline = file();
        inline[0x101f] = INLINE;
        inline[0x1030..0x1039].copy_from_slice(b"\x08go1.22.5");
        assert_eq!(version_of(&inline).as_deref(), Some("1.22.5"));

        let mut pointing = file();
        set(&mut pointing, 0x1020, 0x40_1100);
        set(&mut pointing, 0x1100, 0x40_1200);
        set(&mut pointing, 0x1108, 8);
        pointing[0x1200..0x1208].copy_from_slice(b"go1.15.9");
        assert_eq!(version_of(&pointing).as_deref(), Some("1.15.9"));
        // What leads to nowhere is Go all the same.
        set(&mut pointing, 0x1100, 0x50_0000);
        assert_eq!(version_of(&pointing).as_deref(), Some(""));
    }

    #[test]
    fn others_are_not_written_in_go() {
        let mut other = file();
        other[0x1010] = 0;
        assert_eq!(version_of(&other), None);
        assert_eq!(version_of(b""), None);
        assert_eq!(version_of(b"\x7fELF\x02\x01"), None);
        let own = std::fs::read("/proc/self/exe").expect("it runs");
        assert_eq!(version_of(&own), None);
    }

    #[test]
    fn any_file_gives_a_value() {
        for at in 0..0x1100 {
            let mut damaged = file();
            damaged[at..at + 8].fill(0xff);
            version_of(&damaged);
            version_of(&damaged[..at]);
        }
    }
}
