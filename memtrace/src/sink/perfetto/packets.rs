//! Packets on their way into a file: some hundred KiB of them become one compressed packet.

use std::io::{self, Write};

use flate2::{Compression, write::ZlibEncoder};
use prost::encoding;

use super::proto::{DebugAnnotation, TracePacket, TrackDescriptor, TrackEvent, Type, Value};

/// Writes packets. What cannot be written is told in the end.
pub(super) struct Packets<W> {
    out: W,
    packets: Vec<u8>,
    is_first: bool,
    failed: Option<io::Error>,
}

impl<W: Write> Packets<W> {
    /// Packets are compressed when there are so many bytes of them.
    const BLOCK: usize = 1 << 18;
    /// There is one writer.
    const SEQUENCE: u32 = 1;

    pub(super) const fn new(out: W) -> Self {
        Self { out, packets: Vec::new(), is_first: true, failed: None }
    }

    /// Says where events are drawn: before the first of them.
    pub(super) fn describe(&mut self, track: TrackDescriptor) {
        self.push(TracePacket { track_descriptor: Some(track), ..TracePacket::default() });
    }

    /// Begins a slice on a track.
    pub(super) fn begin(
        &mut self,
        time_ns: u64,
        track: u64,
        name: String,
        figures: Vec<DebugAnnotation>,
    ) {
        self.event(time_ns, track, Type::SliceBegin, named("reclaim", name, figures));
    }

    /// Ends the slice that was begun last on a track.
    pub(super) fn end(&mut self, time_ns: u64, track: u64) {
        self.event(time_ns, track, Type::SliceEnd, TrackEvent::default());
    }

    /// Draws something that takes no time.
    pub(super) fn instant(
        &mut self,
        time_ns: u64,
        track: u64,
        name: String,
        figures: Vec<DebugAnnotation>,
    ) {
        self.event(time_ns, track, Type::Instant, named("process", name, figures));
    }

    /// Tells that a counter has a value from now on.
    pub(super) fn count(&mut self, time_ns: u64, track: u64, value: u64) {
        let counter_value = Some(i64::try_from(value).unwrap_or(i64::MAX));
        let event = TrackEvent { counter_value, ..TrackEvent::default() };
        self.event(time_ns, track, Type::Counter, event);
    }

    /// Writes all that is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.compress();
        self.failed.map_or_else(|| self.out.flush(), Err)
    }

    fn event(&mut self, time_ns: u64, track: u64, kind: Type, event: TrackEvent) {
        let event = TrackEvent { track_uuid: Some(track), r#type: Some(kind.into()), ..event };
        self.push(TracePacket {
            timestamp: Some(time_ns),
            track_event: Some(event),
            ..TracePacket::default()
        });
    }

    fn push(&mut self, packet: TracePacket) {
        let first = std::mem::take(&mut self.is_first).then_some(TracePacket::FIRST);
        let packet = TracePacket {
            trusted_packet_sequence_id: Some(Self::SEQUENCE),
            sequence_flags: first,
            ..packet
        };
        encoding::message::encode(TracePacket::TAG, &packet, &mut self.packets);
        if self.packets.len() >= Self::BLOCK {
            self.compress();
        }
    }

    fn compress(&mut self) {
        if self.failed.is_none() && !self.packets.is_empty() {
            self.failed = self.write().err();
        }
        self.packets.clear();
    }

    fn write(&mut self) -> io::Result<()> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.packets)?;
        let packet =
            TracePacket { compressed_packets: Some(encoder.finish()?), ..TracePacket::default() };
        let mut bytes = Vec::new();
        encoding::message::encode(TracePacket::TAG, &packet, &mut bytes);
        self.out.write_all(&bytes)
    }
}

fn named(category: &str, name: String, debug_annotations: Vec<DebugAnnotation>) -> TrackEvent {
    let categories = vec![category.to_owned()];
    TrackEvent { categories, name: Some(name), debug_annotations, ..TrackEvent::default() }
}

/// Returns a figure of an event.
pub(super) fn figure(name: &str, value: Value) -> DebugAnnotation {
    DebugAnnotation { name: Some(name.to_owned()), value: Some(value) }
}
