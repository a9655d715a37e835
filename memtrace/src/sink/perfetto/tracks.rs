//! Where events are drawn: a track for each process, thread and counter, described when it is first
//! drawn on.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
};

use super::{
    packets::Packets,
    proto::{CounterDescriptor, ProcessDescriptor, ThreadDescriptor, TrackDescriptor, Unit},
};
use crate::{model::process::Process, sink::printable};

/// A process on the timeline: others may have had its number before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place(usize);

/// The tracks that were described.
#[derive(Default)]
pub(super) struct Tracks {
    /// Every process that was seen, in order.
    processes: Vec<Drawn>,
    /// The last place of each number.
    places: HashMap<u32, Place>,
}

/// A process that is drawn.
struct Drawn {
    tgid: u32,
    exit_ns: Option<u64>,
    /// When its address space was torn down after that.
    gone_ns: Option<u64>,
    threads: HashSet<u32>,
    /// Counters in the order in which they were first set, and their values.
    counters: Vec<(String, u64)>,
}

impl Place {
    /// Returns the track of the process. Of its number threads and counters share the lower half.
    pub(super) const fn track(self) -> u64 {
        (self.0 as u64 + 1) << 32
    }
}

/// Thread numbers are smaller (`PID_MAX_LIMIT`, include/linux/threads.h).
const COUNTERS: u64 = 1 << 31;

/// The track of what is about no process.
pub(super) const EVERYTHING: u64 = 1;

impl Tracks {
    /// Describes the track of what is about no process.
    pub(super) fn begin(packets: &mut Packets<impl Write>) {
        let (uuid, name) = (Some(EVERYTHING), Some("memtrace".to_owned()));
        packets.describe(TrackDescriptor { uuid, name, ..TrackDescriptor::default() });
    }

    /// Returns the place of a process: a new one when the last that had its number has exited, unless
    /// it is `about_the_last`.
    pub(super) fn place(
        &mut self,
        packets: &mut Packets<impl Write>,
        tgid: u32,
        process: Option<&Process>,
        about_the_last: bool,
    ) -> Place {
        if let Some(&place) = self.places.get(&tgid)
            && (about_the_last || self.drawn(place).exit_ns.is_none())
        {
            return place;
        }
        let place = Place(self.processes.len());
        self.places.insert(tgid, place);
        self.processes.push(Drawn {
            tgid,
            exit_ns: None,
            gone_ns: None,
            threads: HashSet::new(),
            counters: Vec::new(),
        });
        let told = |process: &&Process| !process.comm.is_empty();
        let start_ns = process.map(|process| process.start_ns).filter(|&start_ns| start_ns > 0);
        let descriptor = ProcessDescriptor {
            pid: Some(number(tgid)),
            process_name: process.filter(told).map(|process| printable(&process.comm)),
            start_timestamp_ns: start_ns.and_then(|start_ns| start_ns.try_into().ok()),
        };
        packets.describe(TrackDescriptor {
            uuid: Some(place.track()),
            process: Some(descriptor),
            ..TrackDescriptor::default()
        });
        place
    }

    /// Returns the track of a thread of a process.
    pub(super) fn thread(
        &mut self,
        packets: &mut Packets<impl Write>,
        place: Place,
        tid: u32,
    ) -> u64 {
        let track = place.track() | u64::from(tid);
        let drawn = self.drawn(place);
        let tgid = drawn.tgid;
        if drawn.threads.insert(tid) {
            let thread = ThreadDescriptor { pid: Some(number(tgid)), tid: Some(i64::from(tid)) };
            packets.describe(TrackDescriptor {
                uuid: Some(track),
                parent_uuid: Some(place.track()),
                thread: Some(thread),
                ..TrackDescriptor::default()
            });
        }
        track
    }

    /// Sets a counter of a process.
    pub(super) fn set(
        &mut self,
        packets: &mut Packets<impl Write>,
        place: Place,
        time_ns: u64,
        name: &str,
        value: u64,
    ) {
        self.count(packets, place, time_ns, name, |_| value);
    }

    /// Adds to a counter of a process.
    pub(super) fn add(
        &mut self,
        packets: &mut Packets<impl Write>,
        place: Place,
        time_ns: u64,
        name: &str,
        more: u64,
    ) {
        self.count(packets, place, time_ns, name, |sum| sum.saturating_add(more));
    }

    /// Notes that a process has exited: the next one with its number is another.
    pub(super) fn exited(&mut self, place: Place, time_ns: u64) {
        self.drawn(place).exit_ns = Some(time_ns);
    }

    /// Notes that the address space of a process was torn down; returns when the process had exited, if
    /// it had.
    pub(super) fn torn_down(&mut self, place: Place, time_ns: u64) -> Option<u64> {
        let drawn = self.drawn(place);
        drawn.gone_ns = drawn.exit_ns.map(|_| time_ns);
        if drawn.exit_ns.is_some() {
            drawn.threads = HashSet::new();
        }
        drawn.exit_ns
    }

    /// Returns when a process had last what it held, and when it had nothing any more.
    pub(super) fn end(&mut self, place: Place) -> (Option<u64>, Option<u64>) {
        let &mut Drawn { exit_ns, gone_ns, .. } = self.drawn(place);
        (exit_ns, gone_ns)
    }

    /// Returns the places of a number, the last first.
    pub(super) fn of(&self, tgid: u32) -> impl Iterator<Item = Place> {
        let places = self.processes.iter().enumerate().rev();
        places.filter(move |(_, drawn)| drawn.tgid == tgid).map(|(at, _)| Place(at))
    }

    fn count(
        &mut self,
        packets: &mut Packets<impl Write>,
        place: Place,
        time_ns: u64,
        name: &str,
        change: impl FnOnce(u64) -> u64,
    ) {
        let counters = &mut self.drawn(place).counters;
        let known = counters.iter().position(|(known, _)| known == name);
        let at = known.unwrap_or_else(|| {
            counters.push((name.to_owned(), 0));
            packets.describe(TrackDescriptor {
                uuid: Some(counter(place, counters.len() - 1)),
                parent_uuid: Some(place.track()),
                name: Some(name.to_owned()),
                counter: Some(CounterDescriptor { unit: Some(Unit::SizeBytes.into()) }),
                ..TrackDescriptor::default()
            });
            counters.len() - 1
        });
        let value = &mut counters[at].1;
        *value = change(*value);
        packets.count(time_ns, counter(place, at), *value);
    }

    fn drawn(&mut self, Place(at): Place) -> &mut Drawn {
        &mut self.processes[at]
    }
}

const fn counter(place: Place, at: usize) -> u64 {
    place.track() | COUNTERS | at as u64
}

fn number(tgid: u32) -> i32 {
    i32::try_from(tgid).unwrap_or(i32::MAX)
}
