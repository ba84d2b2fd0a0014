"""Pooling: groups of bytes reduced to a maximum or an average."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.isa import TP, TpOp

from .add import clamp

__all__ = ["Average", "PoolReduce"]

_JOB = TP.subset("op", "act_min", "act_max", "is_half_up")
_SUM_BITS = 24
_COUNT_BITS = 16


class Average(wiring.Component):
    """`total / count` by restoring division, halves rounded away from zero or up.

    Latency and throughput: `CYCLES`.

    Members
    -------
    en : In(1)
        Strobe, at least `CYCLES` after the one before: takes `total` and `count`.
    total, count : In(signed(24)), In(16)
        |total| at most 128 * count, count at least 1 (otherwise the quotient is arbitrary).
    is_half_up : In(1)
        Constant while averages are made.
    valid : Out(1)
        Strobe for `quotient`.
    quotient : Out(signed(9))
    """

    CYCLES = 10

    en: In(1)
    total: In(signed(_SUM_BITS))
    count: In(_COUNT_BITS)
    is_half_up: In(1)
    valid: Out(1)
    quotient: Out(signed(9))

    def elaborate(self, platform):
        m = Module()
        quotient_bits = 8
        is_negative = Signal()
        divisor = Signal(_COUNT_BITS)
        remainder = Signal(_COUNT_BITS + quotient_bits + 1)
        magnitude = Signal(quotient_bits)
        # A one-hot counter: bit 0 is the cycle after the start, which rounds; then a quotient bit per cycle; then the sign.
        steps = Signal(quotient_bits + 1)
        aligned = Signal.like(remainder)
        m.d.comb += aligned.eq(divisor << (quotient_bits - 1))

        m.d.sync += [steps.eq(Cat(self.en, steps)), self.valid.eq(steps[-1])]
        m.d.comb += self.quotient.eq(Mux(is_negative, -magnitude, magnitude))
        with m.If(self.en):
            m.d.sync += [
                is_negative.eq(self.total < 0), divisor.eq(self.count),
                remainder.eq(Mux(self.total < 0, -self.total, self.total)),
            ]
        with m.Elif(steps[0]):
            m.d.sync += remainder.eq(remainder + ((divisor - (is_negative & self.is_half_up)) >> 1))
        with m.Elif(remainder >= aligned):
            m.d.sync += [remainder.eq((remainder - aligned) << 1), magnitude.eq(Cat(1, magnitude))]
        with m.Else():
            m.d.sync += [remainder.eq(remainder << 1), magnitude.eq(Cat(0, magnitude))]
        return m


class PoolReduce(wiring.Component):
    """Maximum or average of windows that arrive in groups of bytes, clamped.

    Latency: 4 cycles from the last group of a window (averages: 4 + `Average.CYCLES`). Throughput: a group per cycle; the
    ends of windows to be averaged must be at least `Average.CYCLES` apart.

    Parameters
    ----------
    num_lanes : int
        Bytes of a group.

    Members
    -------
    job : In
        Fields of the descriptor, constant while groups are in flight.
    en : In(1)
        Strobe for a group.
    bytes : In(num_lanes bytes)
    count : In
        Bytes in use, the first ones; 0 .. num_lanes.
    window_last, last : In(1)
        The group ends its window; it is the last one of the descriptor.
    valid : Out(1)
        Strobe for `result` and `result_last`.
    result : Out(signed(8))
        A window without bytes gives act_min for a maximum, and an arbitrary value for an average.
    result_last : Out(1)
        This was the window of the group with `last`.
    """

    def __init__(self, *, num_lanes: int):
        super().__init__({
            "job": In(_JOB),
            "en": In(1),
            "bytes": In(data.ArrayLayout(signed(8), num_lanes)),
            "count": In(range(num_lanes + 1)),
            "window_last": In(1),
            "last": In(1),
            "valid": Out(1),
            "result": Out(signed(8)),
            "result_last": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        job = self.job
        is_average = Signal()
        m.d.comb += is_average.eq(job.op == TpOp.AVG_POOL)

        # Bytes not in use become neutral: 0 in a sum, the least byte in a maximum.
        values = [Signal(signed(8), name=f"value{lane}") for lane in range(len(self.bytes))]
        values_en, values_last, values_count = Signal(), Signal(), Signal.like(self.count)
        m.d.sync += [values_en.eq(self.en), values_last.eq(self.window_last), values_count.eq(self.count)]
        m.d.sync += [value.eq(Mux(lane < self.count, self.bytes[lane], Mux(is_average, 0, -128))) for lane, value in enumerate(values)]

        group_en, group_last = Signal(), Signal()
        group_max, group_count = Signal(signed(8)), Signal.like(self.count)
        group_sum = Signal(signed(8 + len(values).bit_length()))
        m.d.sync += [
            group_en.eq(values_en), group_last.eq(values_last), group_count.eq(values_count),
            group_max.eq(_tree(values, lambda a, b: Mux(a > b, a, b))),
            group_sum.eq(_tree(values, lambda a, b: a + b)),
        ]

        window_max, window_sum, window_count = Signal(signed(8), init=-128), Signal(signed(_SUM_BITS)), Signal(_COUNT_BITS)
        window_en, is_first = Signal(), Signal(init=1)
        values_is_final, group_is_final, window_is_final, average_is_final = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            window_en.eq(group_en & group_last),
            values_is_final.eq(self.last), group_is_final.eq(values_is_final), window_is_final.eq(group_is_final),
        ]
        with m.If(window_en):
            m.d.sync += average_is_final.eq(window_is_final)
        with m.If(group_en):
            m.d.sync += [
                is_first.eq(group_last),
                window_max.eq(Mux(~is_first & (window_max > group_max), window_max, group_max)),
                window_sum.eq(Mux(is_first, 0, window_sum) + group_sum),
                window_count.eq(Mux(is_first, 0, window_count) + group_count),
            ]

        m.submodules.average = average = Average()
        m.d.comb += [
            average.en.eq(window_en & is_average), average.total.eq(window_sum), average.count.eq(window_count),
            average.is_half_up.eq(job.is_half_up),
        ]
        value = Signal(signed(9))
        m.d.comb += value.eq(Mux(is_average, average.quotient, window_max))
        m.d.sync += [
            self.valid.eq(Mux(is_average, average.valid, window_en)),
            self.result.eq(clamp(value, job)),
            self.result_last.eq(Mux(is_average, average_is_final, window_is_final)),
        ]
        return m


def _tree(values, combine):
    while len(values) > 1:
        values = [combine(*values[i:i + 2]) if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)]
    return values[0]
