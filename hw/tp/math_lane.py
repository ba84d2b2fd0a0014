"""TFLite's int8 ADD, SUB and MUL, and weighted sums, on one set of multipliers."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.hw.post.add import ADD_FIELDS, MAX_PRESCALE, SCALED_MULT_BITS, AddLane, ScaleDown, clamp, prescaled
from convoy.spec.isa import ADD_SHIFT, ADD_SHIFT_WIDE, MAX_PRODUCT_SHIFT, TP, TpOp

from .blend import PIXEL_WEIGHT_BITS

__all__ = ["MathLane"]

_SUM_BITS = 17
"""Of the scaled sum: a value that has no room is clamped to 16 bits whatever the zero point."""


class MathLane(wiring.Component):
    """One element of `ADD`, `SUB` or `MUL` per cycle, or a row of a `BILINEAR` window:
    `a * weight_a + pixel_b * weight_b`.

    The multipliers take what is to be multiplied for `MUL`, and weights for `BILINEAR`, in place of `a_mult` and
    `b_mult`. For `MEAN` a sum of pixels takes the place of the sum of two. With `is_wide` elements are int16: `ADD` and
    `SUB` scale them by 2^15 where those of int8 are scaled by 2^20; `MUL` does not shift their product left.

    Latency: `PIPELINE_CYCLES`; of `row`: `ROW_CYCLES`; from `total` to y: `TOTAL_CYCLES`. Throughput: one element per
    cycle.

    Parameters
    ----------
    has_windows : bool
        Whether the lane does `BILINEAR` and `MEAN`; `pixel_b`, `weight_a`, `weight_b`, `total` and `row` are for those.

    Members
    -------
    job : In
        Fields of the descriptor, constant from two cycles before the first element.
    a, b : In(signed(16))
        Elements of int8 are their high bytes.
    pixel_b : In(signed(8))
        For `BILINEAR`, in place of b; with a.
    weight_a, weight_b : In(PIXEL_WEIGHT_BITS)
        With a and `pixel_b`; at most 2^20.
    total : In(signed(32))
        For `MEAN`; the first one at least `ROW_CYCLES` + 2 cycles after the job, for it is added to what comes of b.
    y : Out(signed(16))
    row : Out(signed(32))
    """

    ROW_CYCLES = ScaleDown.PIPELINE_CYCLES
    PIPELINE_CYCLES = AddLane.PIPELINE_CYCLES
    TOTAL_CYCLES = PIPELINE_CYCLES - ROW_CYCLES

    def __init__(self, *, has_windows: bool):
        self._has_windows = has_windows
        windows = {
            "pixel_b": In(signed(8)),
            "weight_a": In(PIXEL_WEIGHT_BITS),
            "weight_b": In(PIXEL_WEIGHT_BITS),
            "total": In(signed(32)),
            "row": Out(signed(32)),
        }
        super().__init__(
            {
                "job": In(TP.subset("op", "is_wide", *ADD_FIELDS)),
                "a": In(signed(16)),
                "b": In(signed(16)),
                "y": Out(signed(16)),
            }
            | (windows if has_windows else {})
        )

    def elaborate(self, platform):
        m = Module()
        job = self.job
        # (x << 15) * mult rounded by 31 bits is x * mult rounded by 16, and (x << 20) * mult is that of x << 5.
        drop_bits, narrow_shift = 31 - ADD_SHIFT_WIDE, ADD_SHIFT - ADD_SHIFT_WIDE
        m.submodules.scale_a = scale_a = ScaleDown(x_bits=16, drop_bits=drop_bits, mult_bits=32)
        m.submodules.scale_b = scale_b = ScaleDown(x_bits=16, drop_bits=drop_bits, mult_bits=32)
        m.submodules.scale_out = scale_out = ScaleDown(x_bits=32, drop_bits=31, y_bits=_SUM_BITS)
        subtracts, is_mul, is_weighted, is_mean = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            subtracts.eq(job.op == TpOp.SUB),
            is_mul.eq(job.op == TpOp.MUL),
            is_weighted.eq(job.op == TpOp.BILINEAR),
            is_mean.eq(job.op == TpOp.MEAN),
        ]

        # The product of two elements is a * b with b in place of a's multiplier, and nothing of b. Factors shifted left
        # by what is dropped are exact.
        a, b, product_factor = Signal(signed(10)), Signal(signed(10)), Signal(signed(SCALED_MULT_BITS))
        product_shift, factor_shift = job.b_shift[: MAX_PRODUCT_SHIFT.bit_length()], drop_bits - narrow_shift
        m.d.comb += [
            a.eq(self.a[8:].as_signed() - job.a_zero_point),
            b.eq(self.b[8:].as_signed() - job.b_zero_point),
            product_factor.eq(
                Mux(job.is_wide, self.b << drop_bits, b << product_shift << factor_shift) << MAX_PRESCALE
            ),
            scale_a.x.eq(Mux(job.is_wide, self.a, a << narrow_shift)),
            scale_b.x.eq(Mux(job.is_wide, self.b, b << narrow_shift)),
            scale_a.shift.eq(Mux(is_mul, 0, job.a_shift)),
            scale_b.shift.eq(job.b_shift),
        ]
        augend = Signal.like(scale_a.y)
        mult_a, mult_b = data_register(m, scale_a.mult), data_register(m, scale_b.mult)
        job_mult_a = prescaled(m, job.a_mult, job.a_shift, name="job_mult_a")
        job_mult_b = prescaled(m, job.b_mult, job.b_shift, name="job_mult_b")
        m.d.sync += [
            mult_a.eq(Mux(is_mul, product_factor, job_mult_a)),
            mult_b.eq(Mux(is_mul | is_mean, 0, job_mult_b)),
        ]
        m.d.comb += [augend.eq(scale_a.y), scale_b.inverts.eq(subtracts)]
        if self._has_windows:
            pixel_b = Signal.like(b)
            m.d.comb += pixel_b.eq(self.pixel_b - job.b_zero_point)
            with m.If(is_weighted):
                # A weight of 1 has no room with all the places by which factors are shifted: the element takes one.
                m.d.comb += [scale_a.x.eq(a << (narrow_shift + 1)), scale_b.x.eq(pixel_b << (narrow_shift + 1))]
                m.d.sync += [
                    mult_a.eq(self.weight_a << (factor_shift - 1 + MAX_PRESCALE)),
                    mult_b.eq(self.weight_b << (factor_shift - 1 + MAX_PRESCALE)),
                ]
            with m.If(is_mean):
                m.d.comb += augend.eq(self.total)
            m.d.comb += self.row.eq(scale_out.x)
        m.d.comb += [
            # One adder, with a carry into its lowest bit.
            scale_out.x.eq(truncate((Cat(1, augend) + Cat(subtracts, scale_b.y)) >> 1, scale_out.x.shape())),
            scale_out.mult.eq(prescaled(m, job.out_mult, job.out_shift, name="mult_out")),
            scale_out.shift.eq(job.out_shift),
        ]
        result, y = Signal(signed(len(scale_out.y) + 1), reset_less=True), data_register(m, self.y)
        m.d.sync += [
            result.eq(truncate(scale_out.y + job.zero_point_out, result.shape())),
            y.eq(truncate(clamp(result, job), y.shape())),
        ]
        return m
