//! Unpacks a bzImage to the kernel's ELF file.
//!
//! QEMU starts that by its PVH note, and the emulated guest need not decompress: 0.4 to 4 s less.
//! The header is in Documentation/arch/x86/boot.rst of the kernel.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Compressions that Debian's kernels use: the first bytes, and the tool that undoes them.
const TOOLS: [(&[u8], &str); 3] =
    [(b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x02\x21\x4c\x18", "lz4")];

/// Returns the ELF file that a bzImage carries.
pub(super) fn elf(image: &[u8]) -> Result<Vec<u8>> {
    let (packed, size) = payload(image).context("cannot find the kernel in its bzImage")?;
    let Some((_, tool)) = TOOLS.iter().find(|(magic, _)| packed.starts_with(magic)) else {
        bail!("the kernel is packed in an unknown way ({:02x?})", &packed[..packed.len().min(6)]);
    };
    let elf = pipe(tool, packed).with_context(|| format!("cannot unpack the kernel by {tool}"))?;
    if elf.len() != size as usize || !elf.starts_with(b"\x7fELF") {
        bail!("{tool} gave {} bytes where the kernel has {size}", elf.len());
    }
    Ok(elf)
}

/// Finds the packed kernel and its unpacked size, which the build appends to it.
fn payload(image: &[u8]) -> Option<(&[u8], u32)> {
    let number = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup_sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup_sectors + 1) * 512 + number(0x248)? as usize;
    let payload = image.get(start..)?.get(..number(0x24c)? as usize)?;
    let (packed, size) = payload.split_last_chunk::<4>()?;
    Some((packed, u32::from_le_bytes(*size)))
}

fn pipe(tool: &str, input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(tool)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run it")?;
    let mut stdin = child.stdin.take().context("it has no input")?;
    let output = std::thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output();
        writer.join().expect("the writer does not panic").context("it did not read to the end")?;
        output.context("cannot read its output")
    })?;
    if !output.status.success() {
        bail!("it failed ({})", output.status);
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400 + 64];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&64_u32.to_le_bytes());
        image[0x24c..0x250]
            .copy_from_slice(&u32::try_from(payload.len()).expect("a short payload").to_le_bytes());
        image.extend(payload);
        image.extend(b"what follows");
        image
    }

    #[test]
    fn the_payload_is_found_by_the_header() {
        let image = image(b"packed\x05\x01\0\0");
        assert_eq!(payload(&image), Some((b"packed".as_slice(), 0x105)));
    }

    #[test]
    fn a_broken_image_is_refused() {
        let image = image(b"packed\x05\0\0\0");
        for length in 0..0x400 + 64 + 10 {
            assert_eq!(payload(&image[..length]), None, "{length}");
        }
        assert!(elf(&image).is_err());
    }
}
