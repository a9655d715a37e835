//! Where in a function a uprobe is cheap: at an instruction that the kernel emulates instead of stepping
//! over it (arch/x86/kernel/uprobes.c, `branch_setup_ops` and `push_setup_ops`, 6.1 to 7.3), while the
//! registers that the probe reads are still those of the call. Knows just enough of x86-64 for that.

/// Bytes of a function that are looked at.
pub const LOOKED_AT: usize = 64;

/// Numbers of registers as instructions encode them.
pub mod register {
    /// `rdx`
    pub const RDX: u8 = 2;
    /// `rsp`
    pub const RSP: u8 = 4;
    /// `rsi`
    pub const RSI: u8 = 6;
    /// `rdi`
    pub const RDI: u8 = 7;
}

/// Returns the offset of the first instruction that the kernel emulates and that every call of the
/// function executes, before anything is pushed or one of the `kept` registers changes. `None` when
/// there is none, or something stands before it that is not known.
pub fn emulated(code: &[u8], kept: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < code.len() {
        match instruction(code.get(at..)?)? {
            Instruction::Emulated => return Some(at),
            Instruction::Writes(Some(register), _)
                if register == register::RSP || kept.contains(&register) =>
            {
                return None;
            }
            Instruction::Writes(_, len) => at += len,
        }
    }
    None
}

/// What matters of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    /// The kernel emulates it.
    Emulated,
    /// It writes to a register, or to none, and has so many bytes; control stays here.
    Writes(Option<u8>, usize),
}

/// Prefixes and the opcode of an instruction.
struct Head {
    operand_size: bool,
    rex: u8,
    /// Bytes up to and with the opcode.
    len: usize,
}

fn instruction(code: &[u8]) -> Option<Instruction> {
    let mut head = Head { operand_size: false, rex: 0, len: 0 };
    let mut next = || {
        let byte = *code.get(head.len)?;
        head.len += 1;
        Some(byte)
    };
    let mut opcode = next()?;
    let mut prefixes = 0;
    while matches!(opcode, 0x66 | 0xf2 | 0xf3 | 0x2e | 0x3e | 0x64 | 0x65) {
        head.operand_size |= opcode == 0x66;
        prefixes += 1;
        opcode = next()?;
    }
    if opcode & 0xf0 == 0x40 {
        head.rex = opcode;
        opcode = next()?;
    }
    let plain = prefixes == 0;
    match opcode {
        // push: with no prefix, or the one of r8 to r15
        0x50..=0x57 if plain && matches!(head.rex, 0 | 0x41) => Some(Instruction::Emulated),
        // nop, jumps
        0x90 if head.rex == 0 => Some(Instruction::Emulated),
        0x70..=0x7f | 0xeb | 0xe9 if plain => Some(Instruction::Emulated),
        0x0f => {
            opcode = *code.get(head.len)?;
            head.len += 1;
            match opcode {
                0x80..=0x8f if plain => Some(Instruction::Emulated),
                // endbr64 and long nops
                0x1e | 0x1f => head.operands(code, None, 0),
                // cmov, imul, movzx, movsx
                0x40..=0x4f | 0xaf | 0xb6 | 0xb7 | 0xbe | 0xbf => {
                    head.operands(code, Some(Written::Register), 0)
                }
                0x90..=0x9f => head.operands(code, Some(Written::ByteOperand), 0),
                _ => None,
            }
        }
        // add, or, and, sub, xor: to the operand, to the register
        0x01 | 0x09 | 0x21 | 0x29 | 0x31 => head.operands(code, Some(Written::Operand), 0),
        0x03 | 0x0b | 0x23 | 0x2b | 0x33 => head.operands(code, Some(Written::Register), 0),
        // cmp, test
        0x38..=0x3b | 0x84 | 0x85 => head.operands(code, None, 0),
        0x3c | 0xa8 => Some(Instruction::Writes(None, head.len + 1)),
        0x3d | 0xa9 => Some(Instruction::Writes(None, head.len + head.immediate())),
        0x80 | 0x81 | 0x83 => {
            // The last of the group is cmp.
            let written = (extension(code, head.len)? != 7).then_some(match opcode {
                0x80 => Written::ByteOperand,
                _ => Written::Operand,
            });
            let immediate = if opcode == 0x81 { head.immediate() } else { 1 };
            head.operands(code, written, immediate)
        }
        // test, of a group with others
        0xf6 if extension(code, head.len)? < 2 => head.operands(code, None, 1),
        0xf7 if extension(code, head.len)? < 2 => head.operands(code, None, head.immediate()),
        // mov, movsxd, lea
        0x88 => head.operands(code, Some(Written::ByteOperand), 0),
        0x89 => head.operands(code, Some(Written::Operand), 0),
        0x63 | 0x8b | 0x8d => head.operands(code, Some(Written::Register), 0),
        0xb8..=0xbf => {
            let immediate = if head.rex & 8 != 0 { 8 } else { head.immediate() };
            let register = opcode & 7 | (head.rex & 1) << 3;
            Some(Instruction::Writes(Some(register), head.len + immediate))
        }
        0xc6 if extension(code, head.len)? == 0 => {
            head.operands(code, Some(Written::ByteOperand), 1)
        }
        0xc7 if extension(code, head.len)? == 0 => {
            head.operands(code, Some(Written::Operand), head.immediate())
        }
        _ => None,
    }
}

/// Which operand an instruction writes to.
#[derive(Clone, Copy)]
enum Written {
    Register,
    Operand,
    /// One byte of a register, which is the second byte of another one without a REX prefix.
    ByteOperand,
}

/// Returns the part of ModRM that belongs to the opcode.
fn extension(code: &[u8], at: usize) -> Option<u8> {
    Some(*code.get(at)? >> 3 & 7)
}

impl Head {
    /// Returns the bytes of an immediate operand of full size.
    const fn immediate(&self) -> usize {
        if self.operand_size && self.rex & 8 == 0 { 2 } else { 4 }
    }

    /// Reads ModRM and what follows it.
    fn operands(
        &self,
        code: &[u8],
        written: Option<Written>,
        immediate: usize,
    ) -> Option<Instruction> {
        let modrm = *code.get(self.len)?;
        let (mode, operand) = (modrm >> 6, modrm & 7);
        let has_sib = mode != 3 && operand == 4;
        let base = if has_sib { *code.get(self.len + 1)? & 7 } else { operand };
        let displacement = match mode {
            0 if base == 5 => 4,
            1 => 1,
            2 => 4,
            _ => 0,
        };
        let len = self.len + 1 + usize::from(has_sib) + displacement + immediate;
        let in_register = operand | (self.rex & 1) << 3;
        let register = match written {
            None => None,
            Some(Written::Register) => Some(modrm >> 3 & 7 | (self.rex & 4) << 1),
            Some(_) if mode != 3 => None,
            Some(Written::Operand) => Some(in_register),
            Some(Written::ByteOperand) if self.rex == 0 => Some(in_register & 3),
            Some(Written::ByteOperand) => Some(in_register),
        };
        Some(Instruction::Writes(register, len))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        register::{RDI, RDX, RSI},
        *,
    };

    #[track_caller]
    fn assert_place(code: &[u8], kept: &[u8], place: Option<usize>) {
        assert_eq!(emulated(code, kept), place, "{code:02x?}");
    }

    /// Entry blocks of glibc, as Debian's packages have them.
    #[test]
    fn the_functions_of_glibc_have_a_cheap_place() {
        // 2.36 malloc: push r12
        assert_place(&[0x41, 0x54, 0x55, 0x53], &[RDI], Some(0));
        // 2.36 free: test rdi, rdi; je
        assert_place(&[0x48, 0x85, 0xff, 0x0f, 0x84, 0xbf, 0, 0, 0], &[RDI], Some(3));
        // 2.36 memalign: cmp byte [rip + …], 0; je
        let memalign = [0x80, 0x3d, 0x71, 0x0e, 0x14, 0, 0, 0x74, 7];
        assert_place(&memalign, &[RSI], Some(7));
        // endbr64; mov rax, [rip + …]; push rbp
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8b, 0x05, 1, 2, 3, 4, 0x55];
        assert_place(&code, &[RDI], Some(11));
        // mov rax, fs:[0x28]; jmp
        let code = [0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0, 0xeb, 0];
        assert_place(&code, &[RDI, RSI], Some(9));
    }

    #[test]
    fn nothing_is_taken_behind_a_change_of_the_stack_or_of_an_argument() {
        // sub rsp, 24; push rbp
        assert_place(&[0x48, 0x83, 0xec, 0x18, 0x55], &[RDI], None);
        // mov edi, 1; push rbp
        assert_place(&[0xbf, 1, 0, 0, 0, 0x55], &[RDI], None);
        assert_place(&[0xbf, 1, 0, 0, 0, 0x55], &[RSI], Some(5));
        // lea rsi, [rdi - 16]; push rbp
        assert_place(&[0x48, 0x8d, 0x77, 0xf0, 0x55], &[RDI, RSI], None);
        // xor edx, edx; push
        assert_place(&[0x31, 0xd2, 0x55], &[RDX], None);
        // sete dl; push. sete dh is rdx as well, sil is not.
        assert_place(&[0x0f, 0x94, 0xc2, 0x55], &[RDX], None);
        assert_place(&[0x0f, 0x94, 0xc6, 0x55], &[RDX], None);
        assert_place(&[0x40, 0x0f, 0x94, 0xc6, 0x55], &[RSI], None);
    }

    #[test]
    fn what_is_not_known_ends_the_search() {
        // pop, ret, call [rax], syscall, push [rax]
        for code in [&[0x58, 0x55][..], &[0xc3], &[0xff, 0xd0], &[0x0f, 0x05], &[0xff, 0x30]] {
            assert_place(code, &[], None);
        }
        // A push of 16 bits is none that the kernel emulates.
        assert_place(&[0x66, 0x55], &[], None);
        assert_place(&[], &[], None);
    }

    #[test]
    fn any_bytes_give_a_place_within_them_or_none() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for len in 0..20_000 {
            let code: Vec<u8> = (0..len % LOOKED_AT)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            let place = emulated(&code, &[RDI]);
            assert!(place.is_none_or(|at| at < code.len()), "{code:02x?}: {place:?}");
        }
    }
}
