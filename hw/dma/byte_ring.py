"""A queue of bytes that stay where they are until they are taken."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.choose import rotated
from convoy.hw.lib.narrow import truncate

from .types import SkipBeat

__all__ = ["ByteRing"]


class ByteRing(wiring.Component):
    """Packs the valid bytes of beats into a ring, all of which is seen; any number of the oldest bytes may be taken
    per cycle.

    Where a `ByteQueue` moves its bytes forward, its reader has to find them here: byte n of the queue is at
    `data[(first + n) % num_bytes]`. This pays when the reader rotates them anyway.

    Throughput: a beat in per cycle while `num_in_bytes` are free, any number of bytes out. Latency: 2 cycles from a
    beat to `data`.

    Parameters
    ----------
    num_in_bytes
        Bytes of a beat, a power of two.
    num_bytes
        Bytes of the ring, a power of two and at least `2 * num_in_bytes`.

    Members
    -------
    beats
        `SkipBeat(num_in_bytes)`; `last` is ignored.
    data
        The bytes of the ring; those outside of `first` .. `first + level - 1` are old ones.
    first, level
        Place of the oldest byte, and how many there are. From registers.
    take
        Bytes to take in this cycle, at most `level`.
    """

    def __init__(self, num_in_bytes: int, num_bytes: int):
        if num_in_bytes < 2 or num_in_bytes & (num_in_bytes - 1):
            raise ValueError(f"num_in_bytes = {num_in_bytes!r} is not a power of two of at least 2")
        if num_bytes < 2 * num_in_bytes or num_bytes & (num_bytes - 1):
            raise ValueError(
                f"num_bytes = {num_bytes!r} is not a power of two of at least 2 * num_in_bytes = {2 * num_in_bytes}"
            )
        self._num_in_bytes, self._num_bytes = num_in_bytes, num_bytes
        super().__init__(
            {
                "beats": In(stream.Signature(SkipBeat(num_in_bytes))),
                "data": Out(8 * num_bytes),
                "first": Out(range(num_bytes)),
                "level": Out(range(num_bytes + 1)),
                "take": In(range(num_bytes + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        num_in_bytes, num_bytes = self._num_in_bytes, self._num_bytes
        column_bits = exact_log2(num_in_bytes)
        beat = self.beats.p

        # First each byte of the beat is moved to the column of its place, and the columns are told which row they
        # write.
        columns, staged_bytes = (
            Signal(8 * num_in_bytes, reset_less=True),
            Signal(range(num_in_bytes + 1)),
        )  # 0: nothing staged
        tail = Signal(range(num_bytes))  # the place of the next byte to arrive
        is_written, is_next_row = Signal(num_in_bytes), Signal(num_in_bytes)
        row = Signal(range(num_bytes // num_in_bytes))
        has_room, next_level = Signal(init=1), Signal.like(self.level)  # for any beat, whatever is taken
        arriving_bytes = Mux(self.beats.valid, beat.count, 0)
        turn = Signal(column_bits)
        column = tail[:column_bits]
        used = (1 << arriving_bytes)[: num_in_bytes + 1] - 1  # a bit for each byte that arrives
        m.d.comb += [
            next_level.eq(truncate(self.level + Mux(has_room, staged_bytes, 0) - self.take, next_level.shape())),
            self.beats.ready.eq(has_room | (staged_bytes == 0)),
            turn.eq(column - beat.skip),
        ]
        turned = rotated(m, beat.data, turn, 8, name="turned", is_left=True)
        turned_used = rotated(m, used[:num_in_bytes], column, 1, name="used", is_left=True)
        with m.If(self.beats.ready):
            m.d.sync += [
                columns.eq(turned),
                staged_bytes.eq(arriving_bytes),
                tail.eq(tail + arriving_bytes),
                is_written.eq(turned_used),
                is_next_row.eq((1 << column)[:num_in_bytes] - 1),
                row.eq(tail >> column_bits),
            ]

        # Then they are written.
        for place in range(num_bytes):
            own = place % num_in_bytes
            byte = Signal(8, reset_less=True, name=f"byte_{place}")
            own_row = (row + is_next_row[own])[: len(row)]
            with m.If(has_room & is_written[own] & (own_row == place // num_in_bytes)):
                m.d.sync += byte.eq(columns.word_select(own, 8))
            m.d.comb += self.data.word_select(place, 8).eq(byte)
        m.d.sync += [
            self.level.eq(next_level),
            has_room.eq(next_level <= num_bytes - num_in_bytes),
            self.first.eq(truncate(self.first + self.take, self.first.shape())),
        ]
        return m
