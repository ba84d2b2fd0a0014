"""TFLite's int8 ADD: two operands brought to one scale, added, and scaled to the output; shared by the residual
adder and the TP engine.
"""

import itertools

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.choose import below, one_hot, shifted_late
from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.spec import cycles
from convoy.spec.isa import ADD_SHIFT, TP

__all__ = ["ADD_FIELDS", "MAX_PRESCALE", "SCALED_MULT_BITS", "AddLane", "ScaleDown", "clamp", "prescaled"]

ADD_FIELDS = (
    "a_zero_point",
    "b_zero_point",
    "a_mult",
    "b_mult",
    "out_mult",
    "a_shift",
    "b_shift",
    "out_shift",
    "zero_point_out",
    "act_min",
    "act_max",
)
"""What an addition needs of a TP descriptor."""

_ADD_JOB = TP.subset(*ADD_FIELDS)
_FINE_BITS = 2
"""Of a shift, the lowest, that the multiplier makes up for."""
MAX_PRESCALE = (1 << _FINE_BITS) - 1
"""Bits by which a multiplier is shifted left for that, at most."""
_PART_BITS = 17
"""Of an operand that is too wide for a multiplier, in its low part."""
SCALED_MULT_BITS = _PART_BITS + 18
"""Of a multiplier that has been shifted left, with a sign."""
_SUM_BITS = 10
"""Of the scaled sum: a value that has no room is clamped to 8 bits whatever the zero point."""


class ScaleDown(wiring.Component):
    """`h = (x*mult + 2^(drop_bits-1)) >> drop_bits`, then `y = h / 2^shift` rounded half away from zero.

    The two lowest bits of the shift are made up for in the multiplier, which is the same for many values: `prescaled`
    shifts that left by 3 - shift % 4, and what is left is a right shift by a multiple of four.

    Latency: `PIPELINE_CYCLES`. Throughput: one value per cycle. Multipliers of at most 18 x 18 bits, registered on both
    sides.

    Parameters
    ----------
    x_bits : int
        Width of `x`, at most 34.
    mult_bits : int
        Bits of `mult` before it is scaled, a sign not counted.
    drop_bits : int
        Bits of the product that the first rounding drops, at least 1.
    y_bits : int, optional
        Width of `y`, at least 2: a value that has no room becomes one of its sign that is at least 2^(y_bits-2), or
        less than -2^(y_bits-2). Without, `y` has room for every value.

    Members
    -------
    x : In(signed(x_bits))
    mult : In(signed(SCALED_MULT_BITS))
        `prescaled`, from a register; that of a value one cycle after `x`. Negative only while `shift` is 0.
    shift : In(5)
        Constant while values are in the pipeline.
    inverts : In(1)
        `y` is inverted bit by bit; constant as well.
    y : Out(signed(y_bits)), of x_bits + mult_bits - drop_bits bits by default
    """

    PIPELINE_CYCLES = cycles.SCALE_CYCLES

    def __init__(self, *, x_bits: int, drop_bits: int, mult_bits: int = 31, y_bits: int | None = None):
        self._x_bits, self._total_bits, self._drop_bits = x_bits, x_bits + mult_bits + MAX_PRESCALE, drop_bits
        self._is_narrow = y_bits is not None
        y_shape = signed(y_bits if self._is_narrow else x_bits + mult_bits - drop_bits)
        super().__init__(
            {
                "x": In(signed(x_bits)),
                "mult": In(signed(SCALED_MULT_BITS)),
                "shift": In(5),
                "inverts": In(1),
                "y": Out(y_shape),
            }
        )

    def elaborate(self, platform):
        m = Module()
        total_bits = self._total_bits

        x = Signal.like(self.x, reset_less=True)
        m.d.sync += x.eq(self.x)
        factors = self.mult[:_PART_BITS], self.mult[_PART_BITS:].as_signed()
        has_parts = self._x_bits > _PART_BITS + 1
        x_parts = (x[:_PART_BITS], x[_PART_BITS:].as_signed()) if has_parts else (x,)
        pairs = list(itertools.product(x_parts, factors))
        products = [
            Signal(signed(len(part) + len(factor) + 1), reset_less=True, name=f"product_{i}")
            for i, (part, factor) in enumerate(pairs)
        ]
        m.d.sync += [product.eq(part * factor) for product, (part, factor) in zip(products, pairs, strict=True)]

        # Of four products the lowest and the highest lie side by side.
        outer = Signal(signed(total_bits), reset_less=True)
        inner = Signal(signed(total_bits - _PART_BITS), reset_less=True)
        if has_parts:
            low_low, low_high, high_low, high_high = products
            m.d.sync += [
                outer.eq(truncate(Cat(low_low[: 2 * _PART_BITS], high_high).as_signed(), outer.shape())),
                inner.eq(truncate(low_high + high_low, inner.shape())),
            ]
        else:
            m.d.sync += [outer.eq(truncate(products[0], outer.shape())), inner.eq(truncate(products[1], inner.shape()))]
        total = Signal(signed(total_bits))
        m.d.comb += total.eq(
            Cat(
                outer[:_PART_BITS], truncate(outer[_PART_BITS:].as_signed() + inner, signed(total_bits - _PART_BITS))
            ).as_signed()
        )

        # Both roundings in one sum, in units of half an `h`, which is bit 3 - shift % 4: 1 for the first and 2**shift
        # for the second, 2 less of a negative `x`. (A negative product that the first one makes 0 counts as negative:
        # the second leaves it 0.) What is added ends at one of eight places, bit 3 of a group of four.
        doubled = Signal(signed(total_bits - self._drop_bits + 1), reset_less=True)
        half, half_positive, half_negative = (
            Signal(32, reset_less=True, name=name) for name in ("half", "half_positive", "half_negative")
        )
        prescale, coarse = ~self.shift[:_FINE_BITS], self.shift[_FINE_BITS:]
        unit, last_group = one_hot(prescale), one_hot(coarse)
        is_below = below(coarse, len(last_group))
        ends = Cat(Cat(Const(0, MAX_PRESCALE), is_last) for is_last in last_group)
        from_unit = Cat(~below(prescale, len(unit)), Const(-1, len(ends) - len(unit)))
        under = Cat(
            Cat((is_less | is_last).replicate(MAX_PRESCALE), is_less)
            for is_less, is_last in zip(is_below, last_group, strict=True)
        )
        is_negative = delay(m, x[-1], 2, name="is_negative", reset_less=True)
        m.d.sync += [
            doubled.eq(total >> (self._drop_bits - 1)),
            half_positive.eq(unit | ends),
            half_negative.eq(unit | (from_unit & under)),
            half.eq(Mux(is_negative, half_negative, half_positive)),
        ]

        # The sum goes to one of four registers, by the upper bits of the shift; the others are zero.
        rounded, is_chosen = Signal(signed(len(doubled) + 1)), Signal(4, reset_less=True)
        m.d.comb += rounded.eq(doubled + half)
        m.d.sync += is_chosen.eq(one_hot(coarse[1:]))
        shifted, group_bits = Signal(signed(len(rounded) - MAX_PRESCALE - 1)), 1 << _FINE_BITS
        m.d.comb += shifted.eq(shifted_late(m, rounded[group_bits:], is_chosen, 2 * group_bits, name="rounded"))

        y, y_low, sign = data_register(m, self.y), Signal.like(self.y), shifted[-1]
        m.d.comb += y_low.eq(truncate(Mux(coarse[0], shifted >> group_bits, shifted), y.shape()))
        y_sized = y_low
        if self._is_narrow:
            # Of a value that has room all bits from its sign on are alike.
            others = shifted[len(y) - 1 : -1] ^ sign.replicate(len(shifted) - len(y))
            is_beyond = others[group_bits:].any() | (others[:group_bits].any() & ~coarse[0])
            y_sized = Cat(y_low[:-2], Mux(is_beyond, ~sign, y_low[-2]), sign)
        m.d.sync += y.eq(y_sized ^ self.inverts.replicate(len(y)))
        return m


def prescaled(m: Module, mult: Value, shift: Value, *, name: str) -> Signal:
    """A register of `mult` shifted left by 3 - shift % 4, for a `ScaleDown` with that `shift`."""
    register = Signal(signed(SCALED_MULT_BITS), reset_less=True, name=name)
    m.d.sync += register.eq(mult << ~shift[:_FINE_BITS])
    return register


class AddLane(wiring.Component):
    """One element of `ADD` per cycle: `clamp(D(sa + sb) + zero_point_out)` with `sa = D((a - a_zero_point) << 20)`,
    sb likewise.

    Latency: `PIPELINE_CYCLES`. Throughput: one element per cycle.

    Members
    -------
    job : In
        Fields of the descriptor, constant from two cycles before the first element.
    a, b : In(signed(8))
    y : Out(signed(8))
    """

    PIPELINE_CYCLES = cycles.ARITHMETIC_CYCLES

    def __init__(self):
        super().__init__({"job": In(_ADD_JOB), "a": In(signed(8)), "b": In(signed(8)), "y": Out(signed(8))})

    def elaborate(self, platform):
        m = Module()
        job = self.job

        # (x << 20) * mult rounded by 31 bits is x * mult rounded by 11.
        m.submodules.scale_a = scale_a = ScaleDown(x_bits=10, drop_bits=31 - ADD_SHIFT)
        m.submodules.scale_b = scale_b = ScaleDown(x_bits=10, drop_bits=31 - ADD_SHIFT)
        m.submodules.scale_out = scale_out = ScaleDown(x_bits=32, drop_bits=31, y_bits=_SUM_BITS)
        m.d.comb += [
            scale_a.x.eq(self.a - job.a_zero_point),
            scale_a.mult.eq(prescaled(m, job.a_mult, job.a_shift, name="mult_a")),
            scale_a.shift.eq(job.a_shift),
            scale_b.x.eq(self.b - job.b_zero_point),
            scale_b.mult.eq(prescaled(m, job.b_mult, job.b_shift, name="mult_b")),
            scale_b.shift.eq(job.b_shift),
            scale_out.x.eq(scale_a.y + scale_b.y),
            scale_out.mult.eq(prescaled(m, job.out_mult, job.out_shift, name="mult_out")),
            scale_out.shift.eq(job.out_shift),
        ]
        result, y = Signal(signed(len(scale_out.y) + 1), reset_less=True), data_register(m, self.y)
        m.d.sync += [
            result.eq(truncate(scale_out.y + job.zero_point_out, result.shape())),
            y.eq(truncate(clamp(result, job), y.shape())),
        ]
        return m


def clamp(value, job) -> Value:
    """`value` limited to `act_min` .. `act_max` of a descriptor."""
    return Mux(value < job.act_min, job.act_min, Mux(value > job.act_max, job.act_max, value))
