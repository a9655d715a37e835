//! Names the functions of a call stack, by the symbols and debug information of the files.

use std::{collections::HashMap, os::fd::AsRawFd as _};

use blazesym::symbolize::{Input, Sym, Symbolized, Symbolizer, source};

use super::code::{Code, Place};
use crate::model::report::Frame;

/// Files up to this size have their debug information read, for functions that were inlined: it is
/// taken into memory.
const MOST_DEBUG_BYTES: u64 = 64 << 20;

/// Names places in files; each file is read once.
pub struct Symbols {
    symbolizer: Symbolizer,
}

impl Default for Symbols {
    fn default() -> Self {
        let symbolizer =
            Symbolizer::builder().enable_code_info(false).enable_auto_reload(false).build();
        Self { symbolizer }
    }
}

/// A call stack as the probes took it: return addresses, the innermost first, ended by zeros.
pub type Addresses = [u64];

impl Symbols {
    /// Names the frames of call stacks of one program, the innermost first. Each stack ends where it
    /// leaves the code that is known: frame pointers that are none lead anywhere.
    pub fn name<'a>(
        &self,
        code: &Code,
        stacks: impl Iterator<Item = &'a Addresses> + Clone,
    ) -> Vec<Vec<Frame>> {
        let mut by_file: HashMap<usize, Vec<(u64, Place)>> = HashMap::new();
        let mut frames: HashMap<u64, Vec<Frame>> = HashMap::new();
        for &address in stacks.clone().flatten() {
            if let Some(place) = place(code, address)
                && !frames.contains_key(&address)
            {
                frames.insert(address, vec![Code::frame(&place)]);
                let file = std::sync::Arc::as_ptr(&place.0) as usize;
                by_file.entry(file).or_default().push((address, place));
            }
        }
        for places in by_file.into_values() {
            self.name_places(&places, &mut frames);
        }
        let named = |stack: &Addresses| {
            let mut last = 0;
            let mut names = Vec::new();
            for &address in stack {
                let Some(frames) = frames.get(&address) else { break };
                // Newer kernels tell the caller of a function that was just entered; it was read as
                // well (arch/x86/events/core.c, `is_uprobe_at_func_entry`, 6.12).
                if std::mem::replace(&mut last, address) != address || names.len() > 1 {
                    names.extend_from_slice(frames);
                }
            }
            names
        };
        stacks.map(named).collect()
    }

    /// Names places of one file.
    fn name_places(&self, places: &[(u64, Place)], frames: &mut HashMap<u64, Vec<Frame>>) {
        let Some((_, (file, _))) = places.first() else { return };
        let Some(open) = &file.file else { return };
        let mut elf = source::Elf::new(format!("/proc/self/fd/{}", open.as_raw_fd()));
        elf.debug_syms = open.metadata().is_ok_and(|data| data.len() <= MOST_DEBUG_BYTES);
        let offsets: Vec<u64> = places.iter().map(|(_, (_, offset))| *offset).collect();
        let from = source::Source::Elf(elf);
        let names = match self.symbolizer.symbolize(&from, Input::FileOffset(&offsets)) {
            Ok(names) => names,
            Err(error) => {
                log::info!("cannot read the symbols of {}: {error}", file.name);
                return;
            }
        };
        for ((address, place), name) in places.iter().zip(names) {
            if let Symbolized::Sym(Sym { name, inlined, .. }) = name {
                let outer = Frame { function: Some(name.into_owned()), ..Code::frame(place) };
                let inner = inlined.iter().rev().map(|inlined| Frame {
                    function: Some(inlined.name.clone().into_owned()),
                    ..outer.clone()
                });
                frames.insert(*address, inner.chain([outer.clone()]).collect());
            }
        }
    }
}

/// Returns the place of the call that returns to an address: that is the instruction before it.
fn place(code: &Code, address: u64) -> Option<Place> {
    code.at(address.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(frames: &[Frame]) -> Vec<&str> {
        frames.iter().filter_map(|frame| frame.function.as_deref()).collect()
    }

    #[test]
    fn a_function_of_ours_is_named_and_what_is_no_code_ends_the_stack() {
        let mut code = Code::default();
        code.look(std::process::id()).expect("our own maps");
        let ours = functions as fn(&'static [Frame]) -> Vec<&'static str> as usize as u64 + 1;
        let stacks = [&[ours, ours, 1, ours, 0][..], &[0, 0]];
        let named = Symbols::default().name(&code, stacks.into_iter());
        assert_eq!(named.len(), 2);
        let names = functions(&named[0]);
        assert!(names.iter().any(|name| name.contains("symbols::tests::functions")), "{names:?}");
        assert!(named[1].is_empty(), "{named:?}");
    }
}
