"""A timeline for ui.perfetto.dev: Perfetto's protobuf format (TracePacket, TrackDescriptor, TrackEvent), written
without a library.

One nanosecond of the trace is one cycle.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Event", "encode_trace"]

_BEGIN, _END, _COUNTER = 1, 2, 4
_EXPLICIT = 3
_SEQUENCE = 1


@dataclass(frozen=True)
class Event:
    """A slice of a track, in cycles; `args` are shown with it."""

    track: str
    name: str
    start: int
    end: int
    args: Mapping[str, int | float | str] = field(default_factory=dict)


def encode_trace(
    title: str, tracks: Sequence[str], events: Iterable[Event], counters: Mapping[str, Sequence[tuple[int, float]]]
) -> bytes:
    """A trace.

    Parameters
    ----------
    tracks : in the order in which they are shown, above the counters
    events : in any order; those of a track that overlap are cut at the start of the next
    counters : by name, (cycle, value from then on)
    """
    root, ids = 1, {name: 2 + number for number, name in enumerate([*tracks, *counters])}
    packets = [_packet(0, _field(60, _integer(1, root) + _text(2, title) + _integer(11, _EXPLICIT)), is_first=True)]
    for name, uuid in ids.items():
        descriptor = _integer(1, uuid) + _text(2, name) + _integer(5, root) + _integer(12, uuid)
        packets.append(_packet(0, _field(60, descriptor + (_field(8, b"") if name in counters else b""))))
    timed: list[tuple[int, int, bytes]] = []
    by_track: dict[str, list[Event]] = {name: [] for name in tracks}
    for event in events:
        by_track[event.track].append(event)
    for name, mine in by_track.items():
        mine.sort(key=lambda event: (event.start, event.end))
        ends = [min(event.end, after.start) for event, after in pairwise(mine)] + [event.end for event in mine[-1:]]
        for event, end in zip(mine, ends, strict=True):
            if end > event.start:
                notes = b"".join(_field(4, _text(10, key) + _value(value)) for key, value in event.args.items())
                timed.append(
                    (event.start, 1, _integer(9, _BEGIN) + _integer(11, ids[name]) + _text(23, event.name) + notes)
                )
                timed.append((end, 0, _integer(9, _END) + _integer(11, ids[name])))
    for name, samples in counters.items():
        timed += [
            (cycle, 2, _integer(9, _COUNTER) + _integer(11, ids[name]) + _double(44, value)) for cycle, value in samples
        ]
    timed.sort(key=lambda item: item[:2])
    packets += [_packet(cycle, _field(11, body)) for cycle, _, body in timed]
    return b"".join(_field(1, packet) for packet in packets)


def _packet(timestamp: int, body: bytes, *, is_first: bool = False) -> bytes:
    return _integer(8, timestamp) + body + _integer(10, _SEQUENCE) + (_integer(13, 1) if is_first else b"")


def _value(value: float | str) -> bytes:
    """The value of an annotation."""
    if isinstance(value, str):
        return _text(6, value)
    return _integer(4, value) if isinstance(value, int) else _double(5, value)


def _varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first; negative numbers as 64 bits."""
    value &= (1 << 64) - 1
    parts = []
    while value >= 1 << 7:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())
