"""Reads a Perfetto trace with Perfetto's own definitions, as trace_processor would: sorted by time,
slices by thread, the last value of each counter. Prints JSON; what breaks a rule is among "errors"."""

import json
import sys
import zlib

from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent, CounterDescriptor

errors = []


def check_known(message):
    """Notes fields that the definitions do not have."""
    for field in UnknownFieldSet(message):
        errors.append(f"{message.DESCRIPTOR.name} has a field {field.field_number}")
    for descriptor, value in message.ListFields():
        if descriptor.message_type:
            for each in [value] if hasattr(value, "DESCRIPTOR") else value:
                check_known(each)


def parse(data):
    trace = Trace()
    trace.ParseFromString(data)
    check_known(trace)
    for packet in trace.packet:
        if packet.HasField("compressed_packets"):
            yield from parse(zlib.decompress(packet.compressed_packets))
        else:
            yield packet


def main(path):
    tracks, events = {}, []
    for at, packet in enumerate(parse(open(path, "rb").read())):
        if packet.trusted_packet_sequence_id == 0:
            errors.append(f"packet {at} has no sequence")
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            if track.uuid in tracks:
                errors.append(f"track {track.uuid} is described twice")
            if track.parent_uuid and track.parent_uuid not in tracks:
                errors.append(f"track {track.uuid} has an unknown parent")
            tracks[track.uuid] = track
        elif packet.HasField("track_event"):
            event = packet.track_event
            if event.track_uuid not in tracks:
                errors.append(f"event {at} is on no track")
                continue
            is_counter = tracks[event.track_uuid].HasField("counter")
            if is_counter != (event.type == TrackEvent.TYPE_COUNTER):
                errors.append(f"event {at} does not fit its track")
            events.append((packet.timestamp, event))
        else:
            errors.append(f"packet {at} is neither a track nor an event")
    events.sort(key=lambda event: event[0])

    processes = {
        uuid: {"pid": track.process.pid, "name": track.process.process_name, "counters": {}}
        for uuid, track in tracks.items()
        if track.HasField("process")
    }
    slices, instants, open_slices = [], [], {}

    def figures(event):
        return {
            each.name: getattr(each, each.WhichOneof("value")) for each in event.debug_annotations
        }

    for time, event in events:
        track = tracks[event.track_uuid]
        if event.type == TrackEvent.TYPE_COUNTER:
            if track.counter.unit != CounterDescriptor.UNIT_SIZE_BYTES:
                errors.append(f"{track.name} is not in bytes")
            counters = processes[track.parent_uuid]["counters"]
            counters.setdefault(track.name, []).append([time, event.counter_value])
        elif event.type == TrackEvent.TYPE_SLICE_BEGIN:
            stack = open_slices.setdefault(event.track_uuid, [])
            if stack:
                errors.append(f"{event.name} on thread {track.thread.tid} begins inside another")
            stack.append((time, event))
        elif event.type == TrackEvent.TYPE_SLICE_END:
            stack = open_slices.get(event.track_uuid)
            if not stack:
                errors.append(f"a slice on thread {track.thread.tid} ends before it begins")
                continue
            begin, event = stack.pop()
            slices.append({
                "pid": track.thread.pid, "tid": track.thread.tid, "name": event.name,
                "time": begin, "duration": time - begin, "figures": figures(event),
            })
        elif event.type == TrackEvent.TYPE_INSTANT:
            instants.append({"name": event.name, "time": time, "figures": figures(event)})
    if any(open_slices.values()):
        errors.append("a slice never ends")
    print(json.dumps({
        "processes": list(processes.values()), "slices": slices, "instants": instants,
        "errors": errors,
    }))


if len(sys.argv) > 1:
    main(sys.argv[1])
