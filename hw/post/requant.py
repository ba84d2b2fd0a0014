"""Requantisation: 32-bit accumulators to 8-bit outputs, pairs of them to 16-bit outputs."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import saturate, truncate
from convoy.hw.lib.register import data_register
from convoy.spec import cycles
from convoy.spec.config import NpuConfig
from convoy.spec.isa import FLOAT_PRODUCT_BITS, PARAM, Rounding

__all__ = ["Requantiser"]

_PART_BITS = 17
_OUT_BITS = 19
_QUOTIENT_BITS = 43
_FLOAT_DROPPED_BITS = FLOAT_PRODUCT_BITS - _QUOTIENT_BITS
_FRACTION_BITS = 30 - _FLOAT_DROPPED_BITS
"""Of a quotient with `is_float`, below the bit that is worth one half."""
_MAX_MAGNITUDE_BITS = 8
"""Of a result that the clamps to 8 bits leave as it is, whatever the zero point."""


class _Lane(wiring.Component):
    """One lane of `Requantiser`; the members are its, except that each control input belongs to the stage that uses
    it.
    """

    acc: In(signed(32))
    bias: In(signed(32))
    is_single: In(1)
    is_half_up: In(1)
    is_float: In(1)
    is_wide: In(1)
    shift_left: In(3)
    mult_low: In(_PART_BITS)
    mult_high: In(31 - _PART_BITS)
    shift_right: In(5)
    shifted_out: In(31)
    has_shift: In(1)
    zero_point_out: In(signed(9))
    act_min: In(signed(16))
    act_max: In(signed(16))
    out: Out(signed(16))

    def elaborate(self, platform):
        m = Module()
        total = Signal(signed(32), reset_less=True)
        m.d.sync += total.eq(self.acc + self.bias)

        wide = Signal(signed(39))
        x = Signal(signed(32), reset_less=True)
        m.d.comb += wide.eq(total << self.shift_left)
        m.d.sync += x.eq(Mux(self.is_single, saturate(wide, x.shape()), truncate(wide, x.shape())))

        product = self._multiply(m, x)  # three stages

        # The product of the high sum, 8 bits up, and that of the low sum a cycle before; the lowest 8 bits only matter
        # to a tie.
        low_product, has_low_rest = Signal(signed(55), reset_less=True), Signal(reset_less=True)
        total_product, has_rest_below = Signal(signed(64), reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            low_product.eq(Mux(self.is_wide, product >> 8, 0)),
            has_low_rest.eq(self.is_wide & product[:8].any()),
            total_product.eq(product + low_product),
            has_rest_below.eq(has_low_rest),
        ]

        # The right shift by 31 + R, its last bit still to be rounded off: 30 bits now, R later, 1 at the end.
        # With is_float 24 bits more stay below, and fewer above.
        quotient = Signal(signed(_QUOTIENT_BITS), reset_less=True)
        is_tie_below, has_rest = Signal(reset_less=True), Signal()
        m.d.comb += has_rest.eq(
            total_product[:22].any() | has_rest_below | (~self.is_wide & total_product[22:30].any())
        )
        m.d.sync += [
            quotient.eq(
                Mux(
                    self.is_float,
                    truncate(total_product >> _FLOAT_DROPPED_BITS, quotient.shape()),
                    Mux(self.is_wide, total_product >> 22, total_product >> 30),
                )
            ),
            is_tie_below.eq((total_product < 0) & ~has_rest & ~self.is_half_up),
        ]
        # Rounded once: a negative tie goes down. Rounded twice: one half for the first time, and a negative result is
        # one less for the second. (One that becomes 0 the first time counts as negative: it stays 0.)
        is_less = Mux(self.is_single, is_tie_below, (quotient < 0) & self.has_shift)
        nudged, halves = Signal(signed(_QUOTIENT_BITS)), Signal(signed(_QUOTIENT_BITS), reset_less=True)
        m.d.comb += nudged.eq(
            truncate(quotient + Cat(is_tie_below | ~self.is_single, is_less).as_signed(), nudged.shape())
        )
        m.d.sync += halves.eq(Cat(nudged[0] & self.is_single, nudged[1:]).as_signed())
        shifted = Signal(signed(_QUOTIENT_BITS), reset_less=True)
        m.d.sync += shifted.eq(halves >> self.shift_right)
        has_float_rest = Signal(reset_less=True)
        dropped = delay(m, total_product[:_FLOAT_DROPPED_BITS].any(), 2, name="dropped", reset_less=True)
        m.d.sync += has_float_rest.eq(dropped | (halves[:31] & self.shifted_out).any())
        addend, has_carry = self._addend(m, shifted, has_float_rest)
        total_shifted = Signal(signed(_QUOTIENT_BITS + 1), reset_less=True)
        m.d.sync += total_shifted.eq((Cat(Const(1, 1), shifted).as_signed() + Cat(has_carry, addend)) >> 1)

        # A value beyond `small` is clamped whatever the zero point; a product beyond the quotient of is_float too.
        fits = total_product[FLOAT_PRODUCT_BITS - 1 :].all() | ~total_product[FLOAT_PRODUCT_BITS - 1 :].any()
        is_beyond = delay(m, ~fits, 4, name="is_beyond", reset_less=True)
        is_below = delay(m, total_product[-1], 4, name="is_below", reset_less=True)
        small = Signal(signed(_OUT_BITS), reset_less=True)
        with m.If(~self.is_float):
            m.d.sync += small.eq(saturate(total_shifted >> 1, small.shape()))
        with m.Elif(is_beyond):
            m.d.sync += small.eq(Mux(is_below, Const(-1 << (_OUT_BITS - 1)), Const((1 << (_OUT_BITS - 1)) - 1)))
        with m.Else():
            m.d.sync += small.eq(total_shifted >> (1 + _FRACTION_BITS))
        offset, out = Signal(signed(_OUT_BITS + 1), reset_less=True), data_register(m, self.out)
        m.d.sync += offset.eq(small + self.zero_point_out)
        with m.If(offset < self.act_min):
            m.d.sync += out.eq(self.act_min)
        with m.Elif(offset > self.act_max):
            m.d.sync += out.eq(self.act_max)
        with m.Else():
            m.d.sync += out.eq(offset[:16].as_signed())
        return m

    def _addend(self, m, shifted, has_rest):
        """What is added to `shifted` before its last bits are dropped, and whether a half of its unit more.

        One half, of the last bit. With `is_float` a product within half a unit of float32 of a tie becomes that tie,
        which then goes to the even integer: an odd integer part gets one half and this distance, so that such products
        go up, an even one gets one half less the distance and the least bit, so that only those beyond go up. The
        distance is 2**(p - 24) for results from 2**p, at least those from 1/2, which is bit p + 1 of `shifted`.
        """
        whole = shifted[_FRACTION_BITS + 1 :]
        is_odd = whole[0]
        magnitude = whole[:_MAX_MAGNITUDE_BITS] ^ shifted[-1].replicate(_MAX_MAGNITUDE_BITS)
        distance = Cat(
            ~magnitude.any(), *(magnitude[bit] & ~magnitude[bit + 1 :].any() for bit in range(_MAX_MAGNITUDE_BITS))
        )
        sum_of_odd = Cat(distance, Const(0, _FRACTION_BITS - len(distance)), Const(1, 1))
        addend, has_carry = Signal(_FRACTION_BITS + 1), Signal()
        m.d.comb += [
            addend.eq(Mux(self.is_float, sum_of_odd ^ (~is_odd).replicate(len(addend)), 1)),
            has_carry.eq(self.is_float & ~is_odd & has_rest),
        ]
        return addend, has_carry

    def _multiply(self, m, x):
        """`x * mult` three cycles later, from four products of at most 18 signed bits each (one DSP block per
        product).
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
            low_high.eq(low * mult_high),
            high_low.eq(high * mult_low),
            high_high.eq(high * mult_high),
        ]
        outer = Signal(signed(63), reset_less=True)
        inner = Signal(signed(2 * _PART_BITS + 1), reset_less=True)
        m.d.sync += [
            outer.eq(truncate(Cat(low_low[: 2 * _PART_BITS], high_high), outer.shape())),
            inner.eq(truncate(low_high + high_low, inner.shape())),
        ]
        product = Signal(signed(63), reset_less=True)
        m.d.sync += product.eq(
            truncate(Cat(outer[:_PART_BITS], outer[_PART_BITS:].as_signed() + inner), product.shape())
        )
        return product


class Requantiser(wiring.Component):
    """Bias, scale, round, add the zero point and clamp `num_lanes` accumulators of one output channel.

    As in docs/architecture.md: `x = (acc + bias) << shift_left`, the sum wrapped to 32 bits, the shift wrapped
    (`DOUBLE`) or saturated (others) to 32 bits; then `DOUBLE`: `h = (x*mult + 2^30) >> 31`, `y = (h + 2^(R-1) -
    (h<0)) >> R`; `SINGLE`: `y = (x*mult + 2^(30+R) - (x*mult<0)) >> (31+R)`, `HALF_UP`: the same without `x*mult<0`;
    `FLOAT`: `x*mult` / 2^(31+R) rounded to 24 significant bits, then to an integer, ties to even both times; a product
    beyond `FLOAT_PRODUCT_BITS` bits is clamped; then `clamp(y + zero_point_out, act_min, act_max)`.

    With `is_wide` the accumulators of low bytes (`is_low`) come a cycle before those of high bytes; x*mult is then the
    first product plus 256 times the second. The low bytes of the outputs leave `PIPELINE_CYCLES + 1` cycles after the
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
        `valid`, `PIPELINE_CYCLES` later, one more if `is_wide`.
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
        is_single, is_half_up, is_float = Signal(), Signal(), Signal()
        out_valid, is_late_valid, is_late_out = (
            delay(m, self.valid, self.PIPELINE_CYCLES, name="valid"),
            Signal(),
            Signal(),
        )
        m.d.comb += [
            is_float.eq(self.rounding == Rounding.FLOAT),
            is_half_up.eq((self.rounding == Rounding.HALF_UP) | is_float),
            is_single.eq((self.rounding == Rounding.SINGLE) | is_half_up),
            self.out_valid.eq(Mux(self.is_wide, is_late_valid, out_valid)),
        ]
        m.d.sync += [
            is_late_valid.eq(out_valid),
            is_late_out.eq(self.is_wide & ~delay(m, self.is_low, self.PIPELINE_CYCLES, name="is_low")),
        ]
        shift_left = delay(m, self.param.shift_left, 1, name="shift_left", reset_less=True)
        mult = delay(m, self.param.mult, 2, name="mult", reset_less=True)
        shift_right = delay(m, self.param.shift_right, 6, name="shift_right", reset_less=True)
        has_shift = Signal()
        m.d.sync += has_shift.eq(shift_right != 0)
        shift_right_next = delay(m, shift_right, 1, name="shift_right_next", reset_less=True)
        shift_right_late, shifted_out = (
            delay(m, shift_right_next, 1, name="shift_right_late", reset_less=True),
            Signal(31, reset_less=True),
        )
        m.d.sync += shifted_out.eq(Cat(shift_right_next > bit for bit in range(len(shifted_out))))
        lanes = [_Lane() for _ in range(self.num_lanes)]
        interleaved = Cat(lane.out for lane in lanes)
        for i, lane in enumerate(lanes):
            m.submodules[f"lane_{i}"] = lane
            late = Signal(8, reset_less=True, name=f"late_{i}")  # for the second of two cycles
            m.d.comb += [
                lane.acc.eq(self.accs[i]),
                lane.bias.eq(self.param.bias),
                lane.is_single.eq(is_single),
                lane.is_half_up.eq(is_half_up),
                lane.is_float.eq(is_float),
                lane.is_wide.eq(self.is_wide),
                lane.shift_left.eq(shift_left),
                lane.mult_low.eq(mult[:_PART_BITS]),
                lane.mult_high.eq(mult[_PART_BITS:]),
                lane.has_shift.eq(has_shift),
                lane.shift_right.eq(shift_right_late),
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
