"""Requantisation: 32-bit accumulators to 8-bit outputs, pairs of them to 16-bit outputs."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.choose import below, one_hot, shifted_late
from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.spec import cycles
from convoy.spec.config import NpuConfig
from convoy.spec.isa import FLOAT_PRODUCT_BITS, PARAM, Rounding

__all__ = ["Requantiser"]

_PART_BITS = 17
_FINE_BITS = 2
"""Of the right shift, the lowest, that the multiplier makes up for."""
_MAX_PRESCALE = (1 << _FINE_BITS) - 1
"""Bits by which it is shifted left for that, at most."""
_MULT_BITS = 31 + _MAX_PRESCALE
_PRODUCT_BITS = 32 + _MULT_BITS
_HALF_BIT = 30 + _MAX_PRESCALE
"""Of a product, with a right shift by 31 + a multiple of four: the bit that is worth one half when that is 0."""
_OUT_BITS = 18
_QUOTIENT_BITS = 43
_FLOAT_DROPPED_BITS = FLOAT_PRODUCT_BITS + _MAX_PRESCALE - _QUOTIENT_BITS
_FRACTION_BITS = _HALF_BIT - _FLOAT_DROPPED_BITS
"""Of a quotient with `is_float`, below the bit that is worth one half."""
_MAX_MAGNITUDE_BITS = 8
"""Of a result that the clamps to 8 bits leave as it is, whatever the zero point."""


def _groups(value, width):
    return [value[at : at + width] for at in range(0, len(value), width)]


def _choose(is_limit, choice, first, second):
    """`second` or `first`, by `choice`; with `is_limit` all bits are `choice`. A LUT of four inputs for each bit."""
    return Mux(is_limit, choice.replicate(len(first)), Mux(choice, second, first))


class _Lane(wiring.Component):
    """One lane of `Requantiser`; the members are its, except that each control input belongs to the stage that uses
    it.
    """

    acc: In(signed(32))
    bias: In(signed(32))
    is_double: In(1)
    is_half_up: In(1)
    is_float: In(1)
    is_wide: In(1)
    shift_left: In(3)
    mult_low: In(_PART_BITS)
    mult_high: In(_MULT_BITS - _PART_BITS)
    below_half: In(_MAX_PRESCALE)
    is_chosen: In(4)
    is_odd: In(1)
    shifted_out: In(7)
    has_shift: In(1)
    zero_point_out: In(signed(9))
    act_min: In(signed(16))
    act_max: In(signed(16))
    out: Out(signed(16))

    def elaborate(self, platform):
        m = Module()
        total = Signal(signed(32), reset_less=True)
        m.d.sync += total.eq(self.acc + self.bias)
        product, high_product = self._multiply(m, self._shift_left(m, total))  # two and three stages

        # In units of 2**8: the product of the low sum, and that of the high sum a cycle later; without is_wide the
        # product alone. The lowest 8 bits matter to ties only, and to what is_float drops.
        low_product, low_bits = Signal(signed(_PRODUCT_BITS - 8), reset_less=True), Signal(8, reset_less=True)
        total_product, total_bits = Signal(signed(_PRODUCT_BITS + 1), reset_less=True), Signal(8, reset_less=True)
        m.d.sync += [
            Cat(low_bits, low_product).eq(product),
            total_product.eq(high_product + low_product),
            total_bits.eq(low_bits),
        ]

        # The right shift by 31 + R, its last bit still to be rounded off, of a product that was shifted left by
        # 3 - R % 4: 33 bits now, R - R % 4 in the next stage, 1 at the end. With is_float 24 bits more stay below, and
        # fewer above. Copies of the quotient, of which all but the one of R // 8 are zero, lie shifted side by side.
        whole = Cat(total_bits, total_product).as_signed()
        quotient, is_negative = Signal(signed(_QUOTIENT_BITS)), Signal(reset_less=True)
        has_rest, is_beyond = Signal(reset_less=True), Signal(reset_less=True)
        shifted, was_negative = Signal(signed(_QUOTIENT_BITS), reset_less=True), Signal(reset_less=True)
        is_more, was_beyond = Signal(reset_less=True), Signal(reset_less=True)
        m.d.comb += quotient.eq(
            Mux(self.is_float, truncate(whole >> _FLOAT_DROPPED_BITS, quotient.shape()), whole >> _HALF_BIT)
        )
        merged = Signal.like(quotient)
        m.d.comb += merged.eq(shifted_late(m, quotient, self.is_chosen, 2 << _FINE_BITS, name="quotient"))
        # Of a product with is_float, and of the R bits of one that is rounded twice, R % 4 are here.
        sign, fits = whole[-1], FLOAT_PRODUCT_BITS - 1
        high, near_half = whole[fits + _MAX_PRESCALE :], whole[_HALF_BIT - _MAX_PRESCALE : _HALF_BIT]
        is_high = (high.any() & ~high.all()) | (
            (whole[fits : fits + _MAX_PRESCALE] ^ sign.replicate(_MAX_PRESCALE)) & self.below_half
        ).any()
        m.d.sync += [
            has_rest.eq(
                Mux(
                    self.is_double,
                    ((near_half ^ ~sign.replicate(_MAX_PRESCALE)) & self.below_half).any(),
                    whole[:_FLOAT_DROPPED_BITS].any() | (~self.is_float & whole[_FLOAT_DROPPED_BITS:_HALF_BIT].any()),
                )
            ),
            is_negative.eq(sign),
            is_beyond.eq(self.is_float & is_high),
            shifted.eq(Mux(self.is_odd, merged >> (1 << _FINE_BITS), merged)),
            was_negative.eq(is_negative),
            was_beyond.eq(is_beyond),
        ]
        # Of the others: whether any is 1; of a positive quotient that is rounded twice, whether any is 0.
        low_quotient = Signal(len(self.shifted_out) << _FINE_BITS, reset_less=True)
        m.d.sync += low_quotient.eq(quotient[: len(low_quotient)])
        is_inverted = self.is_double & ~is_negative
        is_any = Cat(
            Mux(is_inverted, ~group.all(), group.any()) & is_out
            for group, is_out in zip(_groups(low_quotient, 1 << _FINE_BITS), self.shifted_out, strict=True)
        ).any()
        m.d.sync += is_more.eq(is_any | has_rest)

        # One more where what is dropped is at least one half. Rounded once: a negative tie goes down. Rounded twice:
        # the first time adds half a unit of `quotient`, the second takes a unit off a negative result (one that
        # becomes 0 the first time counts as negative: it stays 0), so what is dropped must be a unit less, or more,
        # than one half.
        half, is_up = shifted[0], Signal(reset_less=True)
        with m.If(self.is_float):
            m.d.sync += is_up.eq(self._float_carry(shifted, is_more))
        with m.Elif(~self.is_double):
            m.d.sync += is_up.eq(half & (self.is_half_up | ~was_negative | is_more))
        with m.Elif(self.has_shift):
            m.d.sync += is_up.eq(Mux(was_negative, half & is_more, half | ~is_more))
        with m.Else():
            m.d.sync += is_up.eq(half)

        # A value beyond `small` is clamped whatever the zero point; a product beyond the quotient of is_float too.
        small = Signal(signed(_OUT_BITS), reset_less=True)
        above = shifted[_OUT_BITS:] ^ was_negative.replicate(_QUOTIENT_BITS - _OUT_BITS)
        is_limit = was_beyond | (~self.is_float & above.any())
        choice = Mux(is_limit, ~was_negative, self.is_float)
        magnitude = _choose(is_limit, choice, shifted[1:_OUT_BITS], shifted[_FRACTION_BITS + 1 : -1])
        m.d.sync += small.eq(Cat(magnitude, was_negative).as_signed())
        offset, out = Signal(signed(_OUT_BITS + 1), reset_less=True), data_register(m, self.out)
        m.d.sync += offset.eq((Cat(Const(1, 1), small).as_signed() + Cat(is_up, self.zero_point_out).as_signed()) >> 1)
        with m.If(offset < self.act_min):
            m.d.sync += out.eq(self.act_min)
        with m.Elif(offset > self.act_max):
            m.d.sync += out.eq(self.act_max)
        with m.Else():
            m.d.sync += out.eq(offset[:16].as_signed())
        return m

    def _shift_left(self, m, total):
        """`total << shift_left` two cycles later, wrapped with `is_double`, else saturated."""
        turned, x = Signal(32, reset_less=True), Signal(signed(32), reset_less=True)
        is_limit, choice = Signal(reset_less=True), Signal(reset_less=True)
        is_lost = Cat((total[31 - bit] ^ total[31]) & (self.shift_left >= bit) for bit in range(1, 8)).any()
        m.d.sync += [
            turned.eq(truncate(total << self.shift_left[:2], turned.shape())),
            is_limit.eq(is_lost & ~self.is_double),
            choice.eq(Mux(is_lost & ~self.is_double, ~total[31], self.shift_left[2])),
        ]
        low = _choose(is_limit, choice, turned[:31], Cat(Const(0, 4), turned[:27]))
        m.d.sync += x.eq(Cat(low, Mux(is_limit, ~choice, Mux(choice, turned[27], turned[31]))).as_signed())
        return x

    def _float_carry(self, shifted, has_rest):
        """Whether `shifted`, of which `has_rest` says that something is dropped below, is rounded up with `is_float`.

        A product within half a unit of float32 of a tie becomes that tie, which then goes to the even integer: an odd
        integer part gets one half and this distance, so that such products go up, an even one gets one half less the
        distance and the least bit, so that only those beyond go up. The distance is 2**(p - 24) for results from 2**p,
        at least those from 1/2, which is bit p + 1 of `shifted`.
        """
        fraction, whole = shifted[: _FRACTION_BITS + 1], shifted[_FRACTION_BITS + 1 :]
        is_even = ~whole[0]
        magnitude = whole[:_MAX_MAGNITUDE_BITS] ^ shifted[-1].replicate(_MAX_MAGNITUDE_BITS)
        distance = Cat(
            ~magnitude.any(), *(magnitude[bit] & ~magnitude[bit + 1 :].any() for bit in range(_MAX_MAGNITUDE_BITS))
        )
        addend = Cat(distance, Const(0, _FRACTION_BITS - len(distance)), Const(1, 1)) ^ is_even.replicate(len(fraction))
        return (Cat(Const(1, 1), fraction) + Cat(is_even & has_rest, addend))[-1]

    def _multiply(self, m, x):
        """`x * mult` three cycles later, `mult` shifted left as the right shift asks, from four products of at most
        18 signed bits each (one DSP block per product); and the same with `is_wide`, else zero.
        """
        low = Cat(x[:_PART_BITS], Const(0, 1)).as_signed()
        high = x[_PART_BITS:].as_signed()
        mult_low = Cat(self.mult_low, Const(0, 1)).as_signed()
        mult_high = Cat(self.mult_high, Const(0, 1)).as_signed()
        low_low, low_high, high_low, high_high = (
            Signal(signed(2 * _PART_BITS + 1), reset_less=True, name=f"product_{i}") for i in range(4)
        )
        m.d.sync += [
            low_low.eq(truncate(low * mult_low, low_low.shape())),
            low_high.eq(truncate(low * mult_high, low_high.shape())),
            high_low.eq(high * mult_low),
            high_high.eq(high * mult_high),
        ]
        outer = Signal(signed(_PRODUCT_BITS), reset_less=True)
        inner = Signal(signed(2 * _PART_BITS + 2), reset_less=True)
        m.d.sync += [
            outer.eq(truncate(Cat(low_low[: 2 * _PART_BITS], high_high), outer.shape())),
            inner.eq(truncate(low_high + high_low, inner.shape())),
        ]
        total = Signal(signed(_PRODUCT_BITS))
        product, wide_product = Signal.like(total, reset_less=True), Signal.like(total, reset_less=True)
        m.d.comb += total.eq(truncate(Cat(outer[:_PART_BITS], outer[_PART_BITS:].as_signed() + inner), total.shape()))
        m.d.sync += [product.eq(total), wide_product.eq(Mux(self.is_wide, total, 0))]
        return product, wide_product


class Requantiser(wiring.Component):
    """Bias, scale, round, add the zero point and clamp `num_lanes` accumulators of one output channel.

    As in docs/architecture.md: `x = (acc + bias) << shift_left`, the sum wrapped to 32 bits, the shift wrapped
    (`DOUBLE`) or saturated (others) to 32 bits; then `DOUBLE`: `h = (x*mult + 2^30) >> 31`, `y = (h + 2^(R-1) -
    (h<0)) >> R`; `SINGLE`: `y = (x*mult + 2^(30+R) - (x*mult<0)) >> (31+R)`, `HALF_UP`: the same without `x*mult<0`;
    `FLOAT`: `x*mult` / 2^(31+R) rounded to 24 significant bits, then to an integer, ties to even both times; a product
    beyond `FLOAT_PRODUCT_BITS` bits is clamped; then `clamp(y + zero_point_out, act_min, act_max)`.

    With `is_wide` the accumulators of low bytes (`is_low`) come a cycle before those of high bytes; x*mult is then the
    first product plus 256 times the second. The low bytes of the outputs leave `PIPELINE_CYCLES` cycles after the
    accumulators of low bytes, the high bytes a cycle later; with `is_interleaved` the low and the high byte of each of
    the lower half of the lanes in turn, then those of the upper half.

    A pipeline without stalls: outputs come `PIPELINE_CYCLES` cycles after their inputs, one set per cycle. Each lane
    takes four 18 x 18 multipliers.

    Parameters
    ----------
    config : NpuConfig
        Not used beyond the interface shared by all blocks.
    num_lanes : int
        Accumulators per cycle, at least 1.

    Members
    -------
    valid : In(1)
        Whether `accs` and `param` hold something this cycle.
    accs : In(array of signed(32))
        Accumulators; lane 0 lowest.
    param : In(PARAM.layout)
        The output channel; `is_valid` and `out_offset_bytes` are ignored.
    is_low : In(1)
        These are accumulators of low bytes; those of high bytes follow in the next cycle. Only with `is_wide`.
    is_wide, is_interleaved, rounding, zero_point_out, act_min, act_max : In
        As in `spec.isa.NN`, but for `is_interleaved`, which needs `is_wide`; must not change while anything is in the
        pipeline. `FLOAT` only without `is_wide` and with clamps within -128..127.
    out_valid : Out(1)
        `valid`, `PIPELINE_CYCLES` later.
    outs : Out(array of 8)
        The low 8 bits of the clamped values; with `is_wide` the low and the high 8 bits in turn, ordered as said above.
    """

    PIPELINE_CYCLES = cycles.REQUANTISE_CYCLES
    """Cycles from `valid` to `out_valid`."""

    def __init__(self, config: NpuConfig, num_lanes: int):
        self.num_lanes = num_lanes
        super().__init__(
            {
                "valid": In(1),
                "accs": In(data.ArrayLayout(signed(32), num_lanes)),
                "param": In(PARAM.layout),
                "is_low": In(1),
                "is_wide": In(1),
                "is_interleaved": In(1),
                "rounding": In(Rounding),
                "zero_point_out": In(signed(9)),
                "act_min": In(signed(16)),
                "act_max": In(signed(16)),
                "out_valid": Out(1),
                "outs": Out(data.ArrayLayout(8, num_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        is_double, is_half_up, is_float = Signal(), Signal(), Signal()
        is_late_out = Signal()
        m.d.comb += [
            is_float.eq(self.rounding == Rounding.FLOAT),
            is_half_up.eq(self.rounding == Rounding.HALF_UP),
            is_double.eq(self.rounding == Rounding.DOUBLE),
            self.out_valid.eq(delay(m, self.valid, self.PIPELINE_CYCLES, name="valid")),
            is_late_out.eq(self.is_wide & ~delay(m, self.is_low, self.PIPELINE_CYCLES, name="is_low")),
        ]
        shift_left = delay(m, self.param.shift_left, 1, name="shift_left", reset_less=True)
        mult, mult_shift = (
            delay(m, value, 2, name=name, reset_less=True)
            for value, name in ((self.param.mult, "mult"), (self.param.shift_right, "mult_shift"))
        )
        scaled_mult = Signal(_MULT_BITS, reset_less=True)
        # Each of these from the cycle before the stage that uses it
        shift_right = delay(m, mult_shift, 5, name="shift_right", reset_less=True)
        below_half, is_chosen = Signal(_MAX_PRESCALE, reset_less=True), Signal(4, reset_less=True)
        late_shift = delay(m, shift_right, 1, name="late_shift", reset_less=True)
        is_odd, shifted_out = Signal(reset_less=True), Signal(7, reset_less=True)
        is_shifted, has_shift = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            scaled_mult.eq(mult << ~mult_shift[:_FINE_BITS]),
            below_half.eq(Cat(reversed(below(shift_right[:_FINE_BITS], _MAX_PRESCALE)))),
            is_chosen.eq(one_hot(shift_right[_FINE_BITS + 1 :])),
            is_odd.eq(late_shift[_FINE_BITS]),
            shifted_out.eq(below(late_shift[_FINE_BITS:], len(shifted_out))),
            is_shifted.eq(late_shift.any()),
            has_shift.eq(is_shifted),
        ]
        lanes = [_Lane() for _ in range(self.num_lanes)]
        interleaved = Cat(lane.out for lane in lanes)
        for i, lane in enumerate(lanes):
            m.submodules[f"lane_{i}"] = lane
            late = Signal(8, reset_less=True, name=f"late_{i}")  # for the second of two cycles
            m.d.comb += [
                lane.acc.eq(self.accs[i]),
                lane.bias.eq(self.param.bias),
                lane.is_double.eq(is_double),
                lane.is_half_up.eq(is_half_up),
                lane.is_float.eq(is_float),
                lane.is_wide.eq(self.is_wide),
                lane.shift_left.eq(shift_left),
                lane.mult_low.eq(scaled_mult[:_PART_BITS]),
                lane.mult_high.eq(scaled_mult[_PART_BITS:]),
                lane.below_half.eq(below_half),
                lane.is_chosen.eq(is_chosen),
                lane.is_odd.eq(is_odd),
                lane.has_shift.eq(has_shift),
                lane.shifted_out.eq(shifted_out),
                lane.zero_point_out.eq(self.zero_point_out),
                lane.act_min.eq(self.act_min),
                lane.act_max.eq(self.act_max),
                self.outs[i].eq(
                    Mux(is_late_out, late, Mux(self.is_interleaved, interleaved.word_select(i, 8), lane.out[:8]))
                ),
            ]
            m.d.sync += late.eq(Mux(self.is_interleaved, interleaved.word_select(self.num_lanes + i, 8), lane.out[8:]))
        return m
