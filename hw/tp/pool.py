"""Pooling: groups of elements reduced to a maximum or an average."""

from functools import reduce

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.narrow import truncate
from convoy.hw.post.add import clamp
from convoy.spec import cycles
from convoy.spec.isa import TP, TpOp

__all__ = ["Average", "PoolReduce"]

_JOB = TP.subset("op", "act_min", "act_max", "is_half_up", "is_wide", "a_zero_point")
_ELEMENT_BITS = 16
_SUM_BITS = 32
_COUNT_BITS = 16
_STAGES = cycles.AVERAGE_CYCLES_WIDE - cycles.AVERAGE_CYCLES
"""Of the divider: bits of an average of int8."""


class Average(wiring.Component):
    """`total / count` by restoring division in a pipeline of `_STAGES` bits, which averages of int16 go through twice;
    halves rounded away from zero or up.

    Latency: `CYCLES`, or `WIDE_CYCLES`. Throughput: an average per cycle, of int16 one in `WIDE_CYCLES`.

    Members
    -------
    en : In(1)
        Strobe: takes `total`, `count` and `last`.
    total, count : In(signed(32)), In(16)
        |total| at most 128 * count, with `is_wide` 32768 * count; count at least 1 (otherwise the quotient is
        arbitrary).
    last : In(1)
    is_half_up, is_wide : In(1)
        Constant while averages are made.
    valid : Out(1)
        Strobe for `quotient` and `quotient_last`.
    quotient : Out(signed(17))
    quotient_last : Out(1)
        What `last` was.
    """

    CYCLES, WIDE_CYCLES = cycles.AVERAGE_CYCLES, cycles.AVERAGE_CYCLES_WIDE

    en: In(1)
    total: In(signed(_SUM_BITS))
    count: In(_COUNT_BITS)
    last: In(1)
    is_half_up: In(1)
    is_wide: In(1)
    valid: Out(1)
    quotient: Out(signed(17))
    quotient_last: Out(1)

    def elaborate(self, platform):
        m = Module()
        quotient_bits = _ELEMENT_BITS
        # The remainder, and below it the bits of the dividend that have not come down to it, which those of the
        # quotient replace. Of narrow averages only the last bits of the quotient are made.
        work_bits = _COUNT_BITS + quotient_bits
        state = data.StructLayout(
            {"work": work_bits, "divisor": _COUNT_BITS, "is_negative": 1, "last": 1, "is_second": 1}
        )
        taken, taken_en, dividend = Signal(state, reset_less=True), Signal(), Signal(work_bits)
        # |total| and half of the divisor in one sum: -x is ~x + 1, and the half of a negative total that is rounded up
        # is that of the divisor less 1.
        one = Mux(taken.is_negative, ~self.is_half_up | taken.divisor[0], 0)
        m.d.sync += [
            taken_en.eq(self.en),
            taken.work.eq(self.total ^ (self.total < 0).replicate(work_bits)),
            taken.divisor.eq(self.count),
            taken.is_negative.eq(self.total < 0),
            taken.last.eq(self.last),
        ]
        m.d.comb += dividend.eq(truncate((Cat(1, taken.work) + Cat(one, taken.divisor >> 1)) >> 1, work_bits))

        stages = [Signal(state, reset_less=True, name=f"stage{n}") for n in range(_STAGES + 1)]
        stages_en = [Signal(name=f"stage{n}_en") for n in range(_STAGES + 1)]
        again = Signal()
        m.d.comb += again.eq(stages_en[-1] & self.is_wide & ~stages[-1].is_second)
        m.d.sync += [
            stages_en[0].eq(taken_en),
            stages[0].eq(taken),
            stages[0].work.eq(truncate(Mux(self.is_wide, dividend, dividend << (quotient_bits - _STAGES)), work_bits)),
            stages[0].is_second.eq(0),
        ]
        for n, (now, now_en) in enumerate(zip(stages[1:], stages_en[1:], strict=True)):
            before, before_en = stages[n], stages_en[n]
            if n == 0:
                before, before_en = Signal(state), Signal()
                m.d.comb += [
                    before.eq(Mux(again, stages[-1], stages[0])),
                    before.is_second.eq(again),
                    before_en.eq(again | stages_en[0]),
                ]
            remainder = before.work[quotient_bits - 1 :]
            is_one = remainder >= before.divisor
            left = truncate(Mux(is_one, remainder - before.divisor, remainder), _COUNT_BITS)
            m.d.sync += [
                now_en.eq(before_en),
                now.eq(before),
                now.work.eq(Cat(is_one, before.work[: quotient_bits - 1], left)),
            ]

        end = stages[-1]
        m.d.comb += [
            self.valid.eq(stages_en[-1] & ~again),
            self.quotient.eq(Mux(end.is_negative, -end.work[:quotient_bits], end.work[:quotient_bits])),
            self.quotient_last.eq(end.last),
        ]
        return m


class PoolReduce(wiring.Component):
    """Maximum or average of windows that arrive in groups of elements, clamped, or their sum.

    Latency: `POOL_CYCLES` from the last group of a window, and for averages that of `Average`; of `total` two cycles
    less.
    Throughput: a group per cycle; the ends of windows of int16 to be averaged must be at least the latency of `Average`
    apart.

    Parameters
    ----------
    num_lanes : int
        Elements of a group of int16; a group of int8 has up to twice as many.

    Members
    -------
    job : In
        Fields of the descriptor, constant while groups are in flight.
    en : In(1)
        Strobe for a group.
    bytes : In(2 x num_lanes x signed(8))
        Elements of int8; with `is_wide` low and high bytes of int16.
    counts : In(2 x 0 .. num_lanes)
        Bytes in use of each half, the first ones; of int16 the second is 0.
    window_last, last : In(1)
        The group ends its window; it is the last one of the descriptor.
    valid : Out(1)
        Strobe for `result` and `result_last`.
    result : Out(signed(16))
        A window without elements gives act_min for a maximum, and an arbitrary value for an average.
    result_last : Out(1)
        This was the window of the group with `last`.
    total_en : Out(1)
        Strobe for `total` and `total_last`, which are those of `result` otherwise.
    total : Out(signed(32))
        Sum of the elements of a window; for `MEAN` each less the zero point.
    total_last : Out(1)
    """

    def __init__(self, *, num_lanes: int):
        super().__init__(
            {
                "job": In(_JOB),
                "en": In(1),
                "bytes": In(data.ArrayLayout(data.ArrayLayout(signed(8), num_lanes), 2)),
                "counts": In(data.ArrayLayout(range(num_lanes + 1), 2)),
                "window_last": In(1),
                "last": In(1),
                "valid": Out(1),
                "result": Out(signed(_ELEMENT_BITS)),
                "result_last": Out(1),
                "total_en": Out(1),
                "total": Out(signed(_SUM_BITS)),
                "total_last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job = self.job
        is_average, is_maximum, zero_point = Signal(), Signal(), Signal.like(job.a_zero_point)
        m.d.comb += [is_average.eq(job.op == TpOp.AVG_POOL), is_maximum.eq(job.op == TpOp.MAX_POOL)]
        m.d.sync += zero_point.eq(Mux(job.op == TpOp.MEAN, job.a_zero_point, 0))

        # Bytes not in use become neutral: 0 in a sum, the least of all in a maximum.
        lanes, least = len(self.bytes[0]), -(1 << 7)
        num_seconds = Mux(job.is_wide, self.counts[0], self.counts[1])
        neutrals = Mux(is_maximum & ~job.is_wide, least, 0), Mux(is_maximum, least, 0)
        firsts, seconds = (
            [Signal(signed(9), reset_less=True, name=f"{name}{lane}") for lane in range(lanes)]
            for name in ("first", "second")
        )
        values_en, values_last = Signal(), Signal()
        values_count = Signal((2 * lanes).bit_length(), reset_less=True)
        m.d.sync += [
            values_en.eq(self.en),
            values_last.eq(self.window_last),
            values_count.eq(self.counts[0] + self.counts[1]),
        ]
        for lane, (first, second) in enumerate(zip(*self.bytes, strict=True)):
            low = Cat(first, first[-1] & ~job.is_wide).as_signed()
            for value, byte, count, neutral in (
                (firsts[lane], low, self.counts[0], neutrals[0]),
                (seconds[lane], second, num_seconds, neutrals[1]),
            ):
                m.d.sync += value.eq(Mux(lane < count, byte, neutral))

        # Maxima and sums of pairs, then of the group, then of the window; of the firsts and of the seconds, which
        # become one at the end of the group.
        pairs_en, pairs_last, pairs_count = Signal(), Signal(), Signal.like(values_count)
        m.d.sync += [pairs_en.eq(values_en), pairs_last.eq(values_last), pairs_count.eq(values_count)]
        pair_maxima, pair_sums = [], []
        for lane in range(0, lanes, 2):
            here = [(firsts[n], seconds[n]) for n in (lane, lane + 1)]
            maxima, sums = (
                [Signal(signed(bits), reset_less=True, name=f"{name}{lane // 2}_{half}") for half in range(2)]
                for name, bits in (("pair_max", 9), ("pair_sum", 10))
            )
            m.d.sync += [
                *(
                    register.eq(value)
                    for register, value in zip(maxima, _larger(here[0], here[1], job.is_wide), strict=True)
                ),
                *(register.eq(sum(values)) for register, values in zip(sums, zip(*here, strict=True), strict=True)),
            ]
            pair_maxima.append(tuple(maxima))
            pair_sums.append(sums)

        # The best and the sum of the firsts and of the seconds.
        halves_en, halves_last, halves_count = Signal(), Signal(), Signal.like(values_count)
        maxima = [Signal(signed(9), reset_less=True, name=f"half_max{half}") for half in range(2)]
        sums = [Signal(signed(9 + lanes.bit_length()), reset_less=True, name=f"half_sum{half}") for half in range(2)]
        m.d.sync += [halves_en.eq(pairs_en), halves_last.eq(pairs_last), halves_count.eq(pairs_count)]
        for register, value in zip(maxima, reduce(lambda a, b: _larger(a, b, job.is_wide), pair_maxima), strict=True):
            m.d.sync += register.eq(value)
        for register, values in zip(sums, zip(*pair_sums, strict=True), strict=True):
            m.d.sync += register.eq(sum(values))

        group_en, group_last, group_count = Signal(), Signal(), Signal.like(values_count)
        group_max = Signal(signed(_ELEMENT_BITS), reset_less=True)
        group_sum = Signal(signed(_ELEMENT_BITS + lanes.bit_length()), reset_less=True)
        zero_points = Signal(signed(len(zero_point) + len(values_count)), reset_less=True)
        (first_max, second_max), (first_sum, second_sum) = maxima, sums
        m.d.sync += [
            zero_points.eq(zero_point * pairs_count),
            group_en.eq(halves_en),
            group_last.eq(halves_last),
            group_count.eq(halves_count),
            group_max.eq(
                Mux(
                    job.is_wide,
                    Cat(first_max[:8], second_max[:8]).as_signed(),
                    Mux(first_max > second_max, first_max, second_max),
                )
            ),
            group_sum.eq(
                truncate(first_sum - zero_points + Mux(job.is_wide, second_sum << 8, second_sum), group_sum.shape())
            ),
        ]

        window_max, window_sum, window_count = (
            Signal(signed(_ELEMENT_BITS), reset_less=True),
            Signal(signed(_SUM_BITS), reset_less=True),
            Signal(_COUNT_BITS, reset_less=True),
        )
        window_en, is_first = Signal(), Signal(init=1)
        values_is_final, pairs_is_final, halves_is_final, group_is_final, window_is_final = (
            Signal(name=f"{name}_is_final") for name in ("values", "pairs", "halves", "group", "window")
        )
        m.d.sync += [
            window_en.eq(group_en & group_last),
            values_is_final.eq(self.last),
            pairs_is_final.eq(values_is_final),
            halves_is_final.eq(pairs_is_final),
            group_is_final.eq(halves_is_final),
            window_is_final.eq(group_is_final),
        ]
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
            average.last.eq(window_is_final),
            average.is_half_up.eq(job.is_half_up),
            average.is_wide.eq(job.is_wide),
        ]
        value, value_en, value_last = Signal(signed(_ELEMENT_BITS + 1), reset_less=True), Signal(), Signal()
        m.d.sync += [
            value_en.eq(Mux(is_average, average.valid, window_en)),
            value.eq(Mux(is_average, average.quotient, window_max)),
            value_last.eq(Mux(is_average, average.quotient_last, window_is_final)),
            self.valid.eq(value_en),
            self.result.eq(truncate(clamp(value, job), self.result.shape())),
            self.result_last.eq(value_last),
        ]
        m.d.comb += [self.total_en.eq(window_en), self.total.eq(window_sum), self.total_last.eq(window_is_final)]
        return m


def _larger(a, b, is_wide):
    """The larger first and the larger second of two pairs, or the larger pair of low and high bytes."""
    (first_a, second_a), (first_b, second_b) = a, b
    is_first_a, is_second_a = first_a > first_b, second_a > second_b
    is_a = is_second_a | ((second_a == second_b) & is_first_a)
    return (
        Mux(Mux(is_wide, is_a, is_first_a), first_a, first_b),
        Mux(Mux(is_wide, is_a, is_second_a), second_a, second_b),
    )
