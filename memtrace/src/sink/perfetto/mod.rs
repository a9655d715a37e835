//! A trace for Perfetto (ui.perfetto.dev, `trace_processor`): counters of what each process holds and of
//! what left it, reclaim on the threads that did it, and what else happened. Counters are named after the
//! fields of the JSON report, and end at its figures.
//!
//! Written as things happen, in bounded memory.

mod packets;
mod proto;
#[cfg(test)]
mod tests;
mod tracks;

use std::io::{self, Write};

use self::{
    packets::{Packets, figure},
    proto::{DebugAnnotation, Value},
    tracks::{EVERYTHING, Place, Tracks},
};
use super::printable;
use crate::model::{
    Model,
    change::{Change, What},
    report::{PathReport, ProcessReport, Report},
};

/// A trace that is being written.
pub struct Timeline<W> {
    packets: Packets<W>,
    tracks: Tracks,
    last_ns: u64,
}

impl<W: Write> Timeline<W> {
    /// Begins a trace.
    pub fn new(out: W) -> Self {
        let mut packets = Packets::new(out);
        Tracks::begin(&mut packets);
        Self { packets, tracks: Tracks::default(), last_ns: 0 }
    }

    /// Draws one change of a model that has taken it in.
    pub fn apply(&mut self, model: &Model, change: &Change) {
        let &Change { time_ns, tgid, tid, ref what } = change;
        self.last_ns = self.last_ns.max(time_ns);
        let about_the_last = matches!(what, What::MmEnd { .. } | What::Exit { .. });
        let Self { packets, tracks, .. } = self;
        let place = tracks.place(packets, tgid, model.process(tgid), about_the_last);
        let process = place.track();
        match what {
            What::Call { path, zapped, freed, .. } => {
                if let Some(path) = path {
                    self.left(place, time_ns, path, *zapped, *freed);
                }
                self.call(place, change);
            }
            What::Fault { address, access, from_kernel } => {
                let figures = vec![
                    figure("address", Value::Pointer(*address)),
                    figure("from_kernel", Value::Bool(*from_kernel)),
                ];
                let thread = tracks.thread(packets, place, tid);
                packets.instant(time_ns, thread, format!("fault, {access}"), figures);
            }
            What::Fork { child, .. } => {
                let figures = vec![figure("child", Value::Uint(u64::from(*child)))];
                packets.instant(time_ns, process, "fork".to_owned(), figures);
            }
            What::Exec { path } => {
                let figures = vec![figure("path", Value::Text(printable(path)))];
                packets.instant(time_ns, process, "exec".to_owned(), figures);
            }
            What::Exit { code } => {
                let figures = vec![figure("code", Value::Int(i64::from(*code)))];
                packets.instant(time_ns, process, "exit".to_owned(), figures);
                tracks.exited(place, time_ns);
            }
            What::Memory { resident, live, free_resident, lazy_free, .. } => {
                self.holds(place, time_ns, [*resident, *live, *free_resident, *lazy_free]);
            }
            What::MmEnd { zapped, freed } => {
                let thread = tracks.thread(packets, place, tid);
                let exit_ns = tracks.torn_down(place, time_ns);
                let path = if exit_ns.is_some() { "exit" } else { "exec" };
                let begin_ns = exit_ns.unwrap_or(time_ns);
                packets.begin(begin_ns, thread, path.to_owned(), amounts(*zapped, *freed));
                packets.end(time_ns, thread);
                self.left(place, time_ns, path, *zapped, *freed);
            }
        }
    }

    /// Draws that records were lost, after the last change.
    pub fn lost(&mut self) {
        self.packets.instant(self.last_ns, EVERYTHING, "records lost".to_owned(), Vec::new());
    }

    /// Ends the trace with the figures of the report.
    pub fn finish(mut self, report: &Report) -> io::Result<()> {
        let Report { window, processes, .. } = report;
        let end_ns = window.end_ns.max(self.last_ns);
        for (at, process) in processes.iter().enumerate() {
            let later = processes[at + 1..].iter().filter(|later| later.tgid == process.tgid);
            let place = self.tracks.of(process.tgid).nth(later.count());
            let place = place
                .unwrap_or_else(|| self.tracks.place(&mut self.packets, process.tgid, None, false));
            self.at_the_end(place, end_ns, process);
        }
        let figures = vec![
            figure("evidence", Value::Text(window.evidence.name().to_owned())),
            figure("emitted", Value::Uint(window.emitted)),
            figure("dropped", Value::Uint(window.dropped)),
            figure("untracked", Value::Uint(window.untracked)),
            figure("missed", Value::Uint(window.missed)),
            figure("complete", Value::Bool(window.complete)),
        ];
        self.packets.instant(end_ns, EVERYTHING, "window".to_owned(), figures);
        self.packets.finish()
    }

    /// Draws a system call, if it detached pages or was meant to.
    fn call(&mut self, place: Place, change: &Change) {
        let What::Call {
            call,
            start,
            requested,
            ref detail,
            ret,
            path,
            zapped,
            freed,
            duration_ns,
        } = change.what
        else {
            return;
        };
        let is_meant_to = matches!(call, "munmap" | "madvise" | "process_madvise" | "fallocate");
        if path.is_none() && !is_meant_to {
            return;
        }
        let mut figures = vec![
            figure("start", Value::Pointer(start)),
            figure("requested", Value::Uint(requested)),
        ];
        figures.extend(amounts(zapped, freed));
        if ret < 0 {
            figures.push(figure("ret", Value::Int(ret)));
        }
        let name = match call {
            "madvise" | "process_madvise" => format!("{call} {detail}"),
            _ => call.to_owned(),
        };
        let begin_ns = change.time_ns.saturating_sub(u64::from(duration_ns.unwrap_or(0)));
        let thread = self.tracks.thread(&mut self.packets, place, change.tid);
        self.packets.begin(begin_ns, thread, name, figures);
        self.packets.end(change.time_ns, thread);
    }

    fn left(
        &mut self,
        place: Place,
        time_ns: u64,
        path: &str,
        zapped: Option<u64>,
        freed: Option<u64>,
    ) {
        if let Some((name, bytes)) = best(path, zapped, freed) {
            self.tracks.add(&mut self.packets, place, time_ns, &name, bytes);
        }
    }

    /// Sets what a process holds: resident, live, free in its allocators, lazily free.
    fn holds(&mut self, place: Place, time_ns: u64, bytes: [Option<u64>; 4]) {
        for (name, bytes) in HOLDS.into_iter().zip(bytes) {
            if let Some(bytes) = bytes {
                self.tracks.set(&mut self.packets, place, time_ns, name, bytes);
            }
        }
    }

    fn at_the_end(&mut self, place: Place, end_ns: u64, process: &ProcessReport) {
        let ProcessReport { memory, reclaimed, .. } = process;
        let free = &memory.freed_not_reclaimed;
        let held = [memory.resident, memory.live, free.allocator, free.lazy_free];
        let (exit_ns, gone_ns) = self.tracks.end(place);
        self.holds(place, exit_ns.unwrap_or(end_ns), held);
        if let Some(gone_ns) = gone_ns {
            self.holds(place, gone_ns, held.map(|bytes| bytes.map(|_| 0)));
        }
        for (path, PathReport { zapped, freed, .. }) in &reclaimed.by_path {
            if let Some((name, bytes)) = best(path, *zapped, *freed) {
                self.tracks.set(&mut self.packets, place, end_ns, &name, bytes);
            }
        }
    }
}

/// Counters of what a process holds.
const HOLDS: [&str; 4] = [
    "memory.resident",
    "memory.live",
    "memory.freed_not_reclaimed.allocator",
    "memory.freed_not_reclaimed.lazy_free",
];

/// Returns the counter of what left by a path, and the best that is known of it.
fn best(path: &str, zapped: Option<u64>, freed: Option<u64>) -> Option<(String, u64)> {
    let (figure, bytes) =
        freed.map(|bytes| ("freed", bytes)).or(zapped.map(|bytes| ("zapped", bytes)))?;
    Some((format!("reclaimed.by_path.{path}.{figure}"), bytes))
}

fn amounts(zapped: Option<u64>, freed: Option<u64>) -> Vec<DebugAnnotation> {
    let known = [("zapped", zapped), ("freed", freed)].into_iter();
    known.filter_map(|(name, bytes)| Some(figure(name, Value::Uint(bytes?)))).collect()
}
