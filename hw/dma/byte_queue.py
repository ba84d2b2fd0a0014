"""A queue that takes beats and gives bytes."""

from amaranth.hdl import Array, Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from convoy.hw.lib.choose import rotated

from .byte_ring import ByteRing
from .types import SkipBeat

__all__ = ["ByteQueue", "SkipBeat"]


class ByteQueue(wiring.Component):
    """Packs the valid bytes of beats and lets any number of the oldest bytes be taken per cycle.

    Throughput: a beat of up to `num_in_bytes` in and up to `num_out_bytes` out per cycle; a reader that takes whatever
    there is never makes the queue refuse a beat if `num_out_bytes` is at least `num_in_bytes`. Latency: 2 cycles from a
    beat to `data`.

    Parameters
    ----------
    num_in_bytes
        Bytes of a beat, a power of two.
    num_out_bytes
        Bytes shown, and the most that can be taken in a cycle, a power of two.

    Members
    -------
    beats
        `SkipBeat(num_in_bytes)`; `last` is ignored.
    data
        The oldest `num_out_bytes` bytes, the oldest in the low bits; those past `level` are not defined.
    level
        Bytes queued. From a register.
    take
        Bytes to take in this cycle, at most the lesser of `level` and `num_out_bytes`; may depend on `data` and
        `level`.
    """

    def __init__(self, num_in_bytes: int, num_out_bytes: int):
        for name, value, least in (("num_in_bytes", num_in_bytes, 2), ("num_out_bytes", num_out_bytes, 1)):
            if value < least or value & (value - 1):
                raise ValueError(f"{name} = {value!r} is not a power of two of at least {least}")
        self._num_in_bytes, self._num_out_bytes = num_in_bytes, num_out_bytes
        self._ring_bytes = 1 << ceil_log2(num_in_bytes + num_out_bytes + min(num_in_bytes, num_out_bytes))
        super().__init__(
            {
                "beats": In(stream.Signature(SkipBeat(num_in_bytes))),
                "data": Out(8 * num_out_bytes),
                "level": Out(range(self._ring_bytes + 1)),
                "take": In(range(num_out_bytes + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.ring = ring = ByteRing(self._num_in_bytes, self._ring_bytes)
        wiring.connect(m, wiring.flipped(self.beats), ring.beats)
        m.d.comb += [self.level.eq(ring.level), ring.take.eq(self.take)]

        # Each byte is in the column of its place, in the row of the oldest one or in the next; then the columns are
        # rotated.
        num_columns = self._num_out_bytes
        column_bits = exact_log2(num_columns)
        places = [ring.data.word_select(place, 8) for place in range(len(ring.data) // 8)]
        columns = []
        for column in range(num_columns):
            row = Signal(len(ring.first) - column_bits, name=f"row_{column}")
            m.d.comb += row.eq((ring.first >> column_bits) + (ring.first[:column_bits] > column))
            columns.append(Array(places[column::num_columns])[row])
        m.d.comb += self.data.eq(rotated(m, Cat(columns), ring.first[:column_bits], 8, name="rotated"))
        return m
