//! Any records go through the whole model, and its report through every sink: no panic, no overflow,
//! no hang.
//!
//! The first byte chooses: the rest as records, or as a terse script of them, in which addresses
//! meet each other far more often.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use memtrace::{
    model::{
        Model,
        build::{Surroundings, report},
        report::{Evidence, Host},
    },
    sink::{
        events, json,
        text::{self, Style},
    },
    source::replay::records,
};
use memtrace_common::{Event, Header, ProbeStats, decode};
use zerocopy::IntoBytes as _;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let mut model = Model::new(Evidence::ALL[usize::from(choice >> 2) % Evidence::ALL.len()]);
    if choice & 1 == 0 {
        for event in records(bytes).map_while(Result::ok) {
            apply(&mut model, &event);
        }
    } else {
        let mut script = Script(bytes);
        while let Some(event) = script.event() {
            apply(&mut model, &event);
        }
    }
    if choice & 2 == 2 {
        model.lost_records();
    }
    let _ = (model.stale(), model.living_mms(), model.ended(), model.reclaimed_bytes());
    let host = Host { page_size: 4096, ..Host::default() };
    let stats = ProbeStats { emitted: 1, ..ProbeStats::default() };
    let (probes, missed) = (Vec::new(), 0);
    let surroundings = Surroundings { host, start_ns: 1, end_ns: 2, stats, missed, probes };
    let report = report(&model, surroundings, &HashMap::new());
    for process in &report.processes {
        if let Some(mapped) = process.memory.mapped.filter(|_| !process.regions.is_empty()) {
            let rows: u64 = process.regions.iter().map(|region| region.mapped).sum();
            assert_eq!(rows, mapped);
        }
    }
    let style = Style { color: false, width: 80 };
    assert!(text::render(&report, style).ends_with('\n'));
    assert!(json::render(&report).ends_with('\n'));
    let _ = text::render_maps(&report, style);
});

fn apply(model: &mut Model, event: &Event) {
    if let Some(change) = model.apply(event) {
        assert!(!json::event_line(&change).contains('\n'));
        let _ = events::line(&change, 0);
    }
}

/// Records in few bytes: one for the kind, then one for each word of eight.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn event(&mut self) -> Option<Event> {
        let at = self.byte()?;
        let (kind, len) = Event::SIZES[usize::from(at) % Event::SIZES.len()];
        let who = self.byte()?;
        let (mm, tgid) = (u64::from(who & 7), u32::from(who >> 3 & 7));
        let header = Header {
            time_ns: 1,
            mm,
            tgid,
            tid: tgid,
            kind: kind as u16,
            len: len as u16,
            ..Header::default()
        };
        let mut bytes = header.as_bytes().to_vec();
        while bytes.len() < len {
            let word = self.word();
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        decode(&bytes).ok()
    }

    /// Addresses, small numbers, two numbers of four bytes, extremes.
    fn word(&mut self) -> u64 {
        let Some(byte) = self.byte() else { return 0 };
        let number = u64::from(byte & 63);
        match byte >> 6 {
            0 => number,
            1 => number << 12,
            2 => number >> 3 << 32 | number & 7,
            _ => (number & 31).wrapping_sub(16) << (if number & 32 == 0 { 0 } else { 59 }),
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }
}
