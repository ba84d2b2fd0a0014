"""TFLite's int8 ADD: two operands brought to one scale, added, and scaled to the output; shared by the residual
adder and the TP engine.
"""

import itertools

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.choose import any_of, below, gated, one_hot
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.spec import cycles
from convoy.spec.isa import ADD_SHIFT, TP

__all__ = ["ADD_FIELDS", "AddLane", "ScaleDown", "clamp"]

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
_FINE_BITS = 3
"""Of a shift, that are left to the cycle after that of the others."""
_SUM_BITS = 10
"""Of the scaled sum: a value that has no room is clamped to 8 bits whatever the zero point."""


class ScaleDown(wiring.Component):
    """`h = (x*mult + 2^(drop_bits-1)) >> drop_bits`, then `y = h / 2^shift` rounded half away from zero.

    Latency: `PIPELINE_CYCLES`. Throughput: one value per cycle. Multipliers of at most 18 x 17 bits, registered on both
    sides.

    Parameters
    ----------
    x_bits : int
        Width of `x`, at most 34.
    mult_bits : int
        Width of `mult`, at most 32.
    drop_bits : int
        Bits of the product that the first rounding drops, at least 1.
    y_bits : int, optional
        Width of `y`, which is saturated to that; without, `y` has room for every value.

    Members
    -------
    x : In(signed(x_bits))
    mult : In(mult_bits)
        From a register; that of a value one cycle after `x`.
    shift : In(5)
        Constant while values are in the pipeline.
    y : Out(signed(y_bits)), of x_bits + mult_bits - drop_bits bits by default
    """

    PIPELINE_CYCLES = cycles.SCALE_CYCLES

    def __init__(self, *, x_bits: int, drop_bits: int, mult_bits: int = 31, y_bits: int | None = None):
        self._x_bits, self._total_bits, self._drop_bits = x_bits, x_bits + mult_bits, drop_bits
        self._is_narrow = y_bits is not None
        y_shape = signed(y_bits if self._is_narrow else self._total_bits - drop_bits)
        super().__init__({"x": In(signed(x_bits)), "mult": In(mult_bits), "shift": In(5), "y": Out(y_shape)})

    def elaborate(self, platform):
        m = Module()
        x_low_bits, mult_low_bits = 17, 16
        total_bits = self._total_bits

        x = Signal.like(self.x, reset_less=True)
        m.d.sync += x.eq(self.x)
        factors = self.mult[:mult_low_bits], self.mult[mult_low_bits:]
        has_parts = self._x_bits > x_low_bits + 1
        x_parts = (x[:x_low_bits], x[x_low_bits:].as_signed()) if has_parts else (x,)
        pairs = list(itertools.product(x_parts, factors))
        products = [
            Signal(signed(len(part) + len(factor) + 1), reset_less=True, name=f"product_{i}")
            for i, (part, factor) in enumerate(pairs)
        ]
        m.d.sync += [product.eq(part * factor) for product, (part, factor) in zip(products, pairs, strict=True)]

        # Of four products the lowest and the highest lie side by side.
        outer = Signal(signed(total_bits), reset_less=True)
        inner = Signal(signed(total_bits - mult_low_bits), reset_less=True)
        if has_parts:
            low_low, low_high, high_low, high_high = products
            m.d.sync += [
                outer.eq(truncate(Cat(low_low[: x_low_bits + mult_low_bits], high_high).as_signed(), outer.shape())),
                inner.eq(low_high + (high_low << (x_low_bits - mult_low_bits))),
            ]
        else:
            m.d.sync += [outer.eq(truncate(products[0], outer.shape())), inner.eq(truncate(products[1], inner.shape()))]
        total = Signal(signed(total_bits))
        m.d.comb += total.eq(
            Cat(
                outer[:mult_low_bits],
                truncate(outer[mult_low_bits:].as_signed() + inner, signed(total_bits - mult_low_bits)),
            ).as_signed()
        )

        # Both roundings in one sum, in units of half an `h`: 1 for the first and 2**shift for the second, 2 less of a
        # negative `h`. (A negative product that the first one makes 0 counts as negative: the second leaves it 0.)
        doubled = Signal(signed(total_bits - self._drop_bits + 1), reset_less=True)
        under = Signal(32, reset_less=True)  # the bits below that of 2**shift
        at = Cat(~under[:1], under[:-1] & ~under[1:])
        # The sum goes to one of four registers, by the upper bits of the shift; the others are zero.
        fine, is_coarse = self.shift[:_FINE_BITS], Signal(4, reset_less=True)
        rounded, shifted, y = Signal.like(doubled), Signal.like(doubled), data_register(m, self.y)
        coarse = [
            gated(m, rounded, is_one, name=f"coarse_{n}").as_signed() >> (n << _FINE_BITS)
            for n, is_one in enumerate(is_coarse)
        ]
        # Of a value that has room in a narrower `y` all bits from its sign on are alike.
        y_low, sign, above = truncate(shifted >> fine, y.shape()), shifted[-1], shifted[len(y) - 1 : -1]
        is_alike = ~(above ^ sign.replicate(len(above)))
        is_dropped = below(fine, len(above))
        is_beyond = ~(is_alike | is_dropped).all() if self._is_narrow else 0
        m.d.comb += [
            rounded.eq((doubled + (Mux(doubled < 0, under, at) | 1)) >> 1),
            shifted.eq(any_of(Cat(value, value[-1].replicate(len(shifted) - len(value))) for value in coarse)),
        ]
        m.d.sync += [
            doubled.eq(total >> (self._drop_bits - 1)),
            under.eq(below(self.shift, len(under))),
            is_coarse.eq(one_hot(self.shift[_FINE_BITS:])),
            y.eq(Mux(is_beyond, Cat((~sign).replicate(len(y) - 1), sign).as_signed(), y_low)),
        ]
        return m


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
            scale_a.mult.eq(job.a_mult),
            scale_a.shift.eq(job.a_shift),
            scale_b.x.eq(self.b - job.b_zero_point),
            scale_b.mult.eq(job.b_mult),
            scale_b.shift.eq(job.b_shift),
            scale_out.x.eq(scale_a.y + scale_b.y),
            scale_out.mult.eq(job.out_mult),
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
