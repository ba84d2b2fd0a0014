"""Compression: the valid ones of some lanes, moved together."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from convoy.spec import cycles

__all__ = ["Compressor"]


class Compressor(wiring.Component):
    """Moves the bytes of the lanes in `mask` to the lowest lanes, keeping their order.

    Outputs come `PIPELINE_CYCLES` cycles after their inputs, one set per cycle.

    Parameters
    ----------
    num_lanes : int
        Lanes, at least 1.

    Members
    -------
    valid, lanes, mask : In
        A set of bytes and which of them count; `mask` may be zero.
    out_valid : Out(1)
    out : Out(8 * num_lanes)
        The bytes, first one lowest; what is above the last valid one is not defined.
    count : Out
        How many are valid.
    """

    PIPELINE_CYCLES = cycles.COMPRESS_CYCLES
    """Cycles from `valid` to `out_valid`."""

    def __init__(self, num_lanes: int):
        self.num_lanes = num_lanes
        super().__init__(
            {
                "valid": In(1),
                "lanes": In(data.ArrayLayout(8, num_lanes)),
                "mask": In(num_lanes),
                "out_valid": Out(1),
                "out": Out(8 * num_lanes),
                "count": Out(range(num_lanes + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        num_lanes = self.num_lanes
        distance_bits = (num_lanes - 1).bit_length()

        # How far each lane moves down: the lanes below that do not count.
        moves = []
        for i in range(num_lanes):
            move = Signal(data.StructLayout({"byte": 8, "distance": distance_bits}), name=f"move_{i}")
            below = sum((~self.mask[j] for j in range(i)), Const(0, 1))
            m.d.sync += [move.byte.eq(self.lanes[i]), move.distance.eq(Mux(self.mask[i], below, 0))]
            moves.append(move)
        count, valid = Signal.like(self.count), Signal()
        m.d.sync += [
            valid.eq(self.valid),
            self.out_valid.eq(valid),
            count.eq(sum((self.mask[j] for j in range(num_lanes)), Const(0, 1))),
            self.count.eq(count),
        ]

        # The smallest steps first: then two lanes never meet.
        for k in range(distance_bits):
            step = 1 << k
            after = []
            for i, move in enumerate(moves):
                moved = Signal.like(move, name=f"step_{k}_{i}")
                m.d.comb += moved.eq(move)
                if i + step < num_lanes:
                    with m.If(moves[i + step].distance[k]):
                        m.d.comb += moved.eq(moves[i + step])
                after.append(moved)
            moves = after
        m.d.sync += self.out.eq(Cat(move.byte for move in moves))
        return m
