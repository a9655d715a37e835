//! Just enough BTF to ask the running kernel where a field is, whether a function exists and how
//! many arguments a tracepoint has. (aya parses the same file but keeps the members private.)
//!
//! Format: Documentation/bpf/btf.rst. Any bytes give an answer or a clean error.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

/// The types of a kernel.
pub struct KernelBtf {
    data: Vec<u8>,
    /// Where the string section begins.
    strings: usize,
    /// Offset in `data` of each type; types are numbered from 1.
    types: Vec<usize>,
}

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Members of members are followed this deep; the kernel's deepest is below ten.
const MAX_DEPTH: u32 = 32;

impl KernelBtf {
    /// Where kernels publish their types.
    pub const PATH: &str = "/sys/kernel/btf/vmlinux";

    /// Reads the running kernel's types.
    pub fn read() -> Result<Self> {
        let data = fs::read(Path::new(Self::PATH))
            .with_context(|| format!("cannot read {}", Self::PATH))?;
        Self::parse(data).with_context(|| format!("cannot parse {}", Self::PATH))
    }

    /// Parses native-endian BTF.
    pub fn parse(data: Vec<u8>) -> Result<Self> {
        let mut this = Self { data, strings: 0, types: Vec::new() };
        ensure!(this.u16(0) == Some(0xeb9f), "not native-endian BTF");
        let header = |at| this.u32(at).map(|value| value as usize).context("header is cut");
        let (header_len, type_off, type_len, string_off) =
            (header(4)?, header(8)?, header(12)?, header(16)?);
        let mut at = header_len.saturating_add(type_off);
        let end = at.saturating_add(type_len);
        this.strings = header_len.saturating_add(string_off);
        ensure!(end <= this.data.len() && this.strings <= this.data.len(), "types are cut");
        while at < end {
            let (kind, count) = this.kind(at).context("a type is cut")?;
            let extra = match kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
                kind::ENUM | kind::FUNC_PROTO => 8 * count,
                _ => 0,
            };
            ensure!(kind <= kind::ENUM64, "type kind {kind} is newer than this build");
            this.types.push(at);
            at += 12 + extra;
        }
        Ok(this)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(self.data.get(at..at.checked_add(2)?)?.try_into().ok()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.data.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    /// Returns the kind of the type at an offset and the number of its members.
    fn kind(&self, at: usize) -> Option<(u32, usize)> {
        let info = self.u32(at + 4)?;
        Some((info >> 24 & 0x1f, (info & 0xffff) as usize))
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.data.get(self.strings.checked_add(offset as usize)?..)?;
        rest.iter().position(|&byte| byte == 0).map(|len| &rest[..len])
    }

    /// Returns the first type of a kind and name. A scan: a few dozen are asked for, once, and an
    /// index of all names would be larger than the types.
    fn find(&self, kind: u32, name: &str) -> Option<usize> {
        self.types.iter().copied().find(|&at| {
            self.kind(at).is_some_and(|(its_kind, _)| its_kind == kind) && self.is_named(at, name)
        })
    }

    /// Compares the name of which the offset stands at `at`.
    fn is_named(&self, at: usize, name: &str) -> bool {
        let start = self.u32(at).and_then(|name| self.strings.checked_add(name as usize));
        let rest = start.and_then(|start| self.data.get(start..)).unwrap_or_default();
        rest.starts_with(name.as_bytes()) && rest.get(name.len()) == Some(&0)
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<usize> {
        for _ in 0..MAX_DEPTH {
            let at = *self.types.get((id as usize).checked_sub(1)?)?;
            match self.kind(at)?.0 {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = self.u32(at + 8)?
                }
                _ => return Some(at),
            }
        }
        None
    }

    /// Returns the byte offset of a member of a structure. `path` is one name or several joined by
    /// dots, each found through anonymous members too. `None`: this kernel has no such structure
    /// or member, or it is a bit field.
    pub fn field(&self, structure: &str, path: &str) -> Option<u32> {
        let mut at = self.find(kind::STRUCT, structure)?;
        let mut bits = 0;
        for name in path.split('.') {
            let (offset, member_type) = self.member(at, name.as_bytes(), 0)?;
            bits += offset;
            at = self.resolve(member_type)?;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    fn member(&self, at: usize, wanted: &[u8], depth: u32) -> Option<(u32, u32)> {
        let (kind, count) = self.kind(at)?;
        if (kind != kind::STRUCT && kind != kind::UNION) || depth > MAX_DEPTH {
            return None;
        }
        let has_bitfields = self.u32(at + 4)? >> 31 != 0;
        for i in 0..count {
            let member = at + 12 + 12 * i;
            let name = self.name(self.u32(member)?)?;
            let member_type = self.u32(member + 4)?;
            let offset = self.u32(member + 8)?;
            let (bits, width) =
                if has_bitfields { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            if name == wanted {
                return (width == 0).then_some((bits, member_type));
            }
            if name.is_empty()
                && let Some(inner) = self.resolve(member_type)
                && let Some((more, found)) = self.member(inner, wanted, depth + 1)
            {
                return Some((bits + more, found));
            }
        }
        None
    }

    /// Tells whether a union has a member.
    pub fn union_has(&self, union: &str, member: &str) -> bool {
        let found =
            self.find(kind::UNION, union).and_then(|at| self.member(at, member.as_bytes(), 0));
        found.is_some()
    }

    /// Returns the size of a structure in bytes.
    pub fn size(&self, structure: &str) -> Option<u32> {
        self.u32(self.find(kind::STRUCT, structure)? + 8)
    }

    /// Tells whether the kernel has a function of this name that can be traced.
    pub fn has_function(&self, name: &str) -> bool {
        self.find(kind::FUNC, name).is_some()
    }

    /// Tells whether the first argument of a function that can be traced points to a structure that
    /// the kernel's types describe. (Those of 5.10 only name it for `__x64_sys_mremap`, and a program
    /// may not read it then.)
    pub fn takes_structure(&self, name: &str) -> bool {
        let pointed_to = || {
            let function = self.find(kind::FUNC, name)?;
            let prototype = self.resolve(self.u32(function + 8)?)?;
            let (_, arguments) = self.kind(prototype)?;
            let first = if arguments > 0 { self.u32(prototype + 16)? } else { 0 };
            let pointer = self.resolve(first)?;
            let structure = self.resolve(self.u32(pointer + 8)?)?;
            (self.kind(pointer)?.0 == kind::PTR).then_some(self.kind(structure)?.0)
        };
        pointed_to() == Some(kind::STRUCT)
    }

    /// Returns the number of arguments of a tracepoint, `None` when the kernel does not have it.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let typedef = self.find(kind::TYPEDEF, &format!("btf_trace_{name}"))?;
        let pointer = self.resolve(self.u32(typedef + 8)?)?;
        if self.kind(pointer)?.0 != kind::PTR {
            return None;
        }
        let prototype = self.resolve(self.u32(pointer + 8)?)?;
        // The first argument is the tracepoint's private data.
        self.kind(prototype)?.1.checked_sub(1)
    }

    /// Returns the value of an enumerator.
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        self.types.iter().find_map(|&at| {
            let (kind, count) = self.kind(at)?;
            let members = if kind == kind::ENUM { count } else { 0 };
            let member = (0..members).map(|i| at + 12 + 8 * i).find(|&at| self.is_named(at, name));
            self.u32(member? + 4)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct s { int a; struct { int b; }; }`, `enum { PG_x = 3 }`.
    fn tiny() -> Vec<u8> {
        let strings = b"\0int\0s\0a\0b\0PG_x\0";
        let mut types = Vec::new();
        let mut words = |words: &[u32]| words.iter().for_each(|w| types.extend(w.to_ne_bytes()));
        words(&[1, kind::INT << 24, 4, 32]);
        words(&[0, kind::STRUCT << 24 | 1, 4, 9, 1, 0]);
        words(&[5, kind::STRUCT << 24 | 2, 8, 7, 1, 0, 0, 2, 32]);
        words(&[0, kind::ENUM << 24 | 1, 4, 11, 3]);
        let mut data = 0xeb9f_u16.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        for word in [24, 0, types.len(), types.len(), strings.len()] {
            data.extend((word as u32).to_ne_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn a_member_of_an_anonymous_member_is_found() {
        let btf = KernelBtf::parse(tiny()).expect("valid");
        assert_eq!(btf.field("s", "a"), Some(0));
        assert_eq!(btf.field("s", "b"), Some(4));
        assert_eq!(btf.field("s", "c"), None);
        assert_eq!(btf.field("t", "a"), None);
        assert_eq!(btf.size("s"), Some(8));
        assert_eq!(btf.enumerator("PG_x"), Some(3));
        assert!(!btf.takes_structure("s"));
    }

    #[test]
    fn any_cut_of_the_types_is_an_error_or_an_answer() {
        let data = tiny();
        for len in 0..data.len() {
            if let Ok(btf) = KernelBtf::parse(data[..len].to_vec()) {
                let _ = btf.field("s", "b");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_changed_byte_is_an_error_or_an_answer(at in 0..104_usize, byte: u8) {
            let mut data = tiny();
            let at = at % data.len();
            data[at] = byte;
            if let Ok(btf) = KernelBtf::parse(data) {
                let _ = btf.field("s", "b");
                let _ = btf.tracepoint_arguments("s");
            }
        }
    }
}
