//! A part of what was seen: what happened since a moment, out of what is known at it and at its end.

use memtrace_common::{Delays, Ledger, PathCounters, Remanence};

use super::{
    Model,
    process::FaultCounts,
    space::{AddressSpace, Afterlife, LeftByKind, Requests},
};

impl Model {
    /// Begins to watch for the largest sizes anew. Returns what is known now, for [`Model::since`].
    pub fn begin_window(&mut self) -> Self {
        for space in &mut self.spaces {
            space.peak_bytes = space.regions.mapped();
        }
        self.clone()
    }

    /// Takes away what was counted before: what is left happened since. Processes that had exited then
    /// are not there any more.
    pub fn since(&mut self, before: &Self) {
        for (space, before) in self.spaces.iter_mut().zip(&before.spaces) {
            space.since(before);
        }
        for (process, _) in self.processes.iter_mut().zip(&before.processes) {
            // Nobody asked in between.
            process.faults = FaultCounts::default();
        }
        let mut before = before.processes.iter();
        self.processes.retain(|_| before.next().is_none_or(|then| then.exit_status.is_none()));
        let living = self.processes.iter().enumerate();
        let living = living.filter(|(_, process)| process.exit_status.is_none());
        self.by_tgid = living.map(|(at, process)| (process.tgid, at)).collect();
    }
}

impl AddressSpace {
    fn since(&mut self, before: &Self) {
        for (given_up, before) in self.given_up.iter_mut().zip(&before.given_up) {
            since_requests(given_up, before);
        }
        since_requests(&mut self.asked_for, &before.asked_for);
        for (kind, before) in &before.left_by_kind {
            let LeftByKind { calls, zapped_pages, freed_frames } =
                self.left_by_kind.entry(*kind).or_default();
            take(calls, before.calls);
            take(zapped_pages, before.zapped_pages);
            take(freed_frames, before.freed_frames);
        }
        self.left_by_kind.retain(|_, left| *left != LeftByKind::default());
        since_ledger(&mut self.ledger, &before.ledger);
        let Afterlife { delays, remanence } = &mut self.afterlife;
        if let (Some(delays), Some(before)) = (delays, &before.afterlife.delays) {
            since_delays(delays, before);
        }
        if let (Some(found), Some(before)) = (remanence, &before.afterlife.remanence) {
            let Remanence { freed_frames, zeroed_frames, to_itself, to_others } = found;
            take(freed_frames, before.freed_frames);
            take(zeroed_frames, before.zeroed_frames);
            since_delays(to_itself, &before.to_itself);
            since_delays(to_others, &before.to_others);
        }
        if before.ended {
            self.torn_down.clear();
        }
    }
}

fn take(figure: &mut u64, before: u64) {
    *figure = figure.saturating_sub(before);
}

fn since_requests(requests: &mut Requests, before: &Requests) {
    take(&mut requests.calls, before.calls);
    take(&mut requests.bytes, before.bytes);
    take(&mut requests.unsized_calls, before.unsized_calls);
}

fn since_delays(delays: &mut Delays, before: &Delays) {
    for (frames, before) in delays.frames.iter_mut().zip(before.frames) {
        take(frames, before);
    }
}

fn since_ledger(ledger: &mut Ledger, before: &Ledger) {
    ledger.base_pages = before.present_pages();
    for (pages, before) in ledger.in_pages.iter_mut().zip(before.in_pages) {
        *pages = pages.saturating_sub(before);
    }
    for (path, before) in ledger.paths.iter_mut().zip(&before.paths) {
        let PathCounters { zapped_pages, freed_frames, late_frames } = path;
        for (pages, before) in zapped_pages.iter_mut().zip(before.zapped_pages) {
            take(pages, before);
        }
        take(freed_frames, before.freed_frames);
        take(late_frames, before.late_frames);
    }
    let Ledger { freed_anon_frames, shared_pages, filled_frames, .. } = ledger;
    let [swapped_out, swapped_in] = [&mut ledger.swapped_out_pages, &mut ledger.swapped_in_pages];
    let told = freed_anon_frames.iter_mut().zip(before.freed_anon_frames);
    let told = told.chain(shared_pages.iter_mut().zip(before.shared_pages));
    let told = told.chain(filled_frames.iter_mut().zip(before.filled_frames));
    let swapped = [(swapped_out, before.swapped_out_pages), (swapped_in, before.swapped_in_pages)];
    for (figure, before) in told.chain(swapped) {
        if *figure != Ledger::NOT_TOLD {
            take(figure, before);
        }
    }
}
