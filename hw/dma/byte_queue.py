"""A queue that takes beats and gives bytes."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.dma.types import SkipBeat

__all__ = ["ByteQueue", "SkipBeat"]


class ByteQueue(wiring.Component):
    """Packs the valid bytes of beats and lets any number of the oldest bytes be taken per cycle.

    Throughput: a beat of up to `num_in_bytes` in and up to `num_out_bytes` out per cycle; a reader that takes whatever there is never
    makes the queue refuse a beat if `num_out_bytes` is at least `num_in_bytes`. Latency: 2 cycles from a beat to `data`.

    Parameters
    ----------
    num_in_bytes
        Bytes of a beat, a power of two.
    num_out_bytes
        Bytes shown, and the most that can be taken in a cycle, at least 1.

    Members
    -------
    beats
        `SkipBeat(num_in_bytes)`; `last` is ignored.
    data
        The oldest `num_out_bytes` bytes, the oldest in the low bits; those past `level` are zero. From a register.
    level
        Bytes queued, 0..num_out_bytes + 2*num_in_bytes. From a register.
    take
        Bytes to take in this cycle, at most the lesser of `level` and `num_out_bytes`; may depend on `data` and `level`.
    """

    def __init__(self, num_in_bytes: int, num_out_bytes: int):
        if num_in_bytes < 2 or num_in_bytes & (num_in_bytes - 1):
            raise ValueError(f"num_in_bytes = {num_in_bytes!r} is not a power of two of at least 2")
        if num_out_bytes < 1:
            raise ValueError(f"num_out_bytes = {num_out_bytes!r} is less than 1")
        self.num_in_bytes = num_in_bytes
        self.num_out_bytes = num_out_bytes
        self.capacity_bytes = num_out_bytes + 2 * num_in_bytes
        super().__init__({
            "beats": In(stream.Signature(SkipBeat(num_in_bytes))),
            "data": Out(8 * num_out_bytes),
            "level": Out(range(self.capacity_bytes + 1)),
            "take": In(range(num_out_bytes + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        beat = self.beats.p

        # First the beat's bytes are moved to its low end and the others cleared.
        staged = Signal(8 * self.num_in_bytes)
        staged_bytes = Signal(range(self.num_in_bytes + 1))  # 0: nothing staged
        has_room = Signal()  # for any beat, whatever is taken
        arriving_bytes = Mux(self.beats.valid, beat.count, 0)
        mask = Cat((arriving_bytes > i).replicate(8) for i in range(self.num_in_bytes))
        m.d.comb += [
            has_room.eq(self.level <= self.capacity_bytes - self.num_in_bytes),
            self.beats.ready.eq(has_room | (staged_bytes == 0)),
        ]
        with m.If(self.beats.ready):
            m.d.sync += [
                staged.eq(_down(beat.data, beat.skip) & mask),
                staged_bytes.eq(arriving_bytes),
            ]

        # Then they are put behind the bytes that stay.
        queued = Signal(8 * self.capacity_bytes)  # zero from `level` on
        position = Signal(range(self.capacity_bytes - self.num_in_bytes + 1))
        m.d.comb += [position.eq(self.level - self.take), self.data.eq(queued)]
        m.d.sync += [
            queued.eq(_down(queued, self.take) | Mux(has_room, _up(staged, position)[:len(queued)], 0)),
            self.level.eq(self.level + Mux(has_room, staged_bytes, 0) - self.take),
        ]
        return m


def _up(value, num_bytes):
    """`value << 8*num_bytes`, a stage of multiplexers per bit of `num_bytes`."""
    for i, bit in enumerate(num_bytes):
        value = Mux(bit, value << (8 << i), value)
    return value


def _down(value, num_bytes):
    """`value >> 8*num_bytes`, a stage of multiplexers per bit of `num_bytes`."""
    for i, bit in enumerate(num_bytes):
        value = Mux(bit, value >> (8 << i), value)
    return value
