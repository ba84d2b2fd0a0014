"""Pooling: groups of elements reduced to a maximum or an average."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.narrow import truncate
from convoy.hw.post.add import clamp
from convoy.spec import cycles
from convoy.spec.isa import TP, TpOp

__all__ = ["Average", "PoolReduce"]

_JOB = TP.subset("op", "act_min", "act_max", "is_half_up", "is_wide")
_ELEMENT_BITS = 16
_SUM_BITS = 32
_COUNT_BITS = 16


class Average(wiring.Component):
    """`total / count` by restoring division, halves rounded away from zero or up.

    Latency and throughput: `CYCLES`, or `WIDE_CYCLES`.

    Members
    -------
    en : In(1)
        Strobe, at least the latency after the one before: takes `total` and `count`.
    total, count : In(signed(32)), In(16)
        |total| at most 128 * count, with `is_wide` 32768 * count; count at least 1 (otherwise the quotient is
        arbitrary).
    is_half_up, is_wide : In(1)
        Constant while averages are made.
    valid : Out(1)
        Strobe for `quotient`.
    quotient : Out(signed(17))
    """

    CYCLES, WIDE_CYCLES = cycles.AVERAGE_CYCLES, cycles.AVERAGE_CYCLES_WIDE

    en: In(1)
    total: In(signed(_SUM_BITS))
    count: In(_COUNT_BITS)
    is_half_up: In(1)
    is_wide: In(1)
    valid: Out(1)
    quotient: Out(signed(17))

    def elaborate(self, platform):
        m = Module()
        quotient_bits, narrow_bits = _ELEMENT_BITS, 8
        is_negative = Signal()
        divisor = Signal(_COUNT_BITS)
        remainder = Signal(_COUNT_BITS + quotient_bits + 1, reset_less=True)
        magnitude = Signal(quotient_bits, reset_less=True)
        # A one-hot counter: bit 0 is the cycle after the start, which rounds; then a quotient bit per cycle; then the
        # sign. Of narrow averages only the last bits are made: dividends are shifted left by those that would be zero.
        steps = Signal(quotient_bits + 1)
        aligned, half, dividend = Signal.like(remainder), Signal(_COUNT_BITS), Signal(_SUM_BITS)
        skipped_bits = quotient_bits - narrow_bits
        m.d.comb += [
            aligned.eq(divisor << (quotient_bits - 1)),
            half.eq((divisor - (is_negative & self.is_half_up)) >> 1),
            dividend.eq(Mux(self.total < 0, -self.total, self.total)),
        ]

        m.d.sync += [
            steps.eq(
                truncate(
                    Cat(self.en, steps[:narrow_bits], steps[narrow_bits] & self.is_wide, steps[narrow_bits + 1 :]),
                    steps.shape(),
                )
            ),
            self.valid.eq(Mux(self.is_wide, steps[-1], steps[narrow_bits])),
        ]
        m.d.comb += self.quotient.eq(Mux(is_negative, -magnitude, magnitude))
        with m.If(self.en):
            m.d.sync += [
                is_negative.eq(self.total < 0),
                divisor.eq(self.count),
                remainder.eq(truncate(Mux(self.is_wide, dividend, dividend << skipped_bits), remainder.shape())),
                magnitude.eq(0),
            ]
        with m.Elif(steps[0]):
            m.d.sync += remainder.eq(remainder + Mux(self.is_wide, half, half << skipped_bits))
        with m.Elif(remainder >= aligned):
            m.d.sync += [
                remainder.eq(truncate((remainder - aligned) << 1, remainder.shape())),
                magnitude.eq(truncate(Cat(1, magnitude), magnitude.shape())),
            ]
        with m.Else():
            m.d.sync += [
                remainder.eq(truncate(remainder << 1, remainder.shape())),
                magnitude.eq(truncate(Cat(0, magnitude), magnitude.shape())),
            ]
        return m


class PoolReduce(wiring.Component):
    """Maximum or average of windows that arrive in groups of elements, clamped.

    Latency: `POOL_CYCLES` from the last group of a window, and for averages that of `Average`. Throughput: a group per
    cycle; the ends of windows to be averaged must be at least the latency of `Average` apart.

    Parameters
    ----------
    num_lanes : int
        Elements of a group.

    Members
    -------
    job : In
        Fields of the descriptor, constant while groups are in flight.
    en : In(1)
        Strobe for a group.
    elements : In(num_lanes x signed(16))
        Of int16 with `is_wide`, else of int8.
    count : In
        Elements in use, the first ones; 0 .. num_lanes.
    window_last, last : In(1)
        The group ends its window; it is the last one of the descriptor.
    valid : Out(1)
        Strobe for `result` and `result_last`.
    result : Out(signed(16))
        A window without elements gives act_min for a maximum, and an arbitrary value for an average.
    result_last : Out(1)
        This was the window of the group with `last`.
    """

    def __init__(self, *, num_lanes: int):
        super().__init__(
            {
                "job": In(_JOB),
                "en": In(1),
                "elements": In(data.ArrayLayout(signed(_ELEMENT_BITS), num_lanes)),
                "count": In(range(num_lanes + 1)),
                "window_last": In(1),
                "last": In(1),
                "valid": Out(1),
                "result": Out(signed(_ELEMENT_BITS)),
                "result_last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job = self.job
        is_average = Signal()
        m.d.comb += is_average.eq(job.op == TpOp.AVG_POOL)

        # Elements not in use become neutral: 0 in a sum, the least of all in a maximum.
        least = -(1 << (_ELEMENT_BITS - 1))
        values = [
            Signal(signed(_ELEMENT_BITS), reset_less=True, name=f"value{lane}") for lane in range(len(self.elements))
        ]
        values_en, values_last, values_count = Signal(), Signal(), Signal.like(self.count)
        m.d.sync += [values_en.eq(self.en), values_last.eq(self.window_last), values_count.eq(self.count)]
        m.d.sync += [
            value.eq(Mux(lane < self.count, self.elements[lane], Mux(is_average, 0, least)))
            for lane, value in enumerate(values)
        ]

        # Maxima and sums of pairs, then of the group, then of the window
        pairs_en, pairs_last, pairs_count = Signal(), Signal(), Signal.like(self.count, reset_less=True)
        pairs = [values[lane : lane + 2] for lane in range(0, len(values), 2)]
        pair_maxima = [Signal(signed(_ELEMENT_BITS), reset_less=True, name=f"pair_max{n}") for n in range(len(pairs))]
        pair_sums = [Signal(signed(_ELEMENT_BITS + 1), reset_less=True, name=f"pair_sum{n}") for n in range(len(pairs))]
        m.d.sync += [
            pairs_en.eq(values_en),
            pairs_last.eq(values_last),
            pairs_count.eq(values_count),
            *(maximum.eq(_tree(pair, _larger)) for maximum, pair in zip(pair_maxima, pairs, strict=True)),
            *(total.eq(sum(pair)) for total, pair in zip(pair_sums, pairs, strict=True)),
        ]

        group_en, group_last = Signal(), Signal()
        group_max, group_count = (
            Signal(signed(_ELEMENT_BITS), reset_less=True),
            Signal.like(self.count, reset_less=True),
        )
        group_sum = Signal(signed(_ELEMENT_BITS + len(values).bit_length()), reset_less=True)
        m.d.sync += [
            group_en.eq(pairs_en),
            group_last.eq(pairs_last),
            group_count.eq(pairs_count),
            group_max.eq(_tree(pair_maxima, _larger)),
            group_sum.eq(sum(pair_sums)),
        ]

        window_max, window_sum, window_count = (
            Signal(signed(_ELEMENT_BITS), reset_less=True),
            Signal(signed(_SUM_BITS), reset_less=True),
            Signal(_COUNT_BITS, reset_less=True),
        )
        window_en, is_first = Signal(), Signal(init=1)
        values_is_final, pairs_is_final, group_is_final, window_is_final, average_is_final = (
            Signal(),
            Signal(),
            Signal(),
            Signal(),
            Signal(),
        )
        m.d.sync += [
            window_en.eq(group_en & group_last),
            values_is_final.eq(self.last),
            pairs_is_final.eq(values_is_final),
            group_is_final.eq(pairs_is_final),
            window_is_final.eq(group_is_final),
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
            average.en.eq(window_en & is_average),
            average.total.eq(window_sum),
            average.count.eq(window_count),
            average.is_half_up.eq(job.is_half_up),
            average.is_wide.eq(job.is_wide),
        ]
        value = Signal(signed(_ELEMENT_BITS + 1))
        m.d.comb += value.eq(Mux(is_average, average.quotient, window_max))
        m.d.sync += [
            self.valid.eq(Mux(is_average, average.valid, window_en)),
            self.result.eq(truncate(clamp(value, job), self.result.shape())),
            self.result_last.eq(Mux(is_average, average_is_final, window_is_final)),
        ]
        return m


def _larger(a, b):
    return Mux(a > b, a, b)


def _tree(values, combine):
    while len(values) > 1:
        values = [combine(*values[i : i + 2]) if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)]
    return values[0]
