"""TFLite's int8 ADD: two operands brought to one scale, added, and scaled to the output; shared by the residual
adder and the TP engine.
"""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

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

    Members
    -------
    x : In(signed(x_bits))
    mult : In(mult_bits)
        From a register; that of a value one cycle after `x`.
    shift : In(5)
        Constant while values are in the pipeline.
    y : Out(signed(x_bits + 32 - drop_bits))
    """

    PIPELINE_CYCLES = cycles.SCALE_CYCLES

    def __init__(self, *, x_bits: int, drop_bits: int, mult_bits: int = 31):
        self._x_bits, self._drop_bits = x_bits, drop_bits
        super().__init__(
            {"x": In(signed(x_bits)), "mult": In(mult_bits), "shift": In(5), "y": Out(signed(x_bits + 32 - drop_bits))}
        )

    def elaborate(self, platform):
        m = Module()
        x_low_bits, mult_low_bits = 17, 16
        total_bits = self._x_bits + 32

        x = Signal.like(self.x, reset_less=True)
        m.d.sync += x.eq(self.x)
        parts = [(x, 0)]
        if self._x_bits > x_low_bits + 1:
            parts = [(x[:x_low_bits], 0), (x[x_low_bits:].as_signed(), x_low_bits)]

        sums = []
        for name, factor in (("low", self.mult[:mult_low_bits]), ("high", self.mult[mult_low_bits:])):
            products = []
            for part, lsb in parts:
                product = Signal(signed(len(part) + len(factor) + 1), reset_less=True, name=f"product_{name}_{lsb}")
                m.d.sync += product.eq(part * factor)
                products.append(product << lsb)
            partial = Signal(signed(total_bits), reset_less=True, name=f"sum_{name}")
            m.d.sync += partial.eq(sum(products))
            sums.append(partial)

        total = Signal(signed(total_bits))
        m.d.comb += total.eq(
            truncate(sums[0] + (sums[1] << mult_low_bits) + (1 << (self._drop_bits - 1)), total.shape())
        )
        high, rounded = Signal(self.y.shape(), reset_less=True), Signal(signed(len(self.y) + 1), reset_less=True)
        half, y = Signal(31, reset_less=True), data_register(m, self.y)
        m.d.sync += [
            half.eq((1 << self.shift) >> 1),
            high.eq(total >> self._drop_bits),
            rounded.eq(high + half - ((high < 0) & (self.shift != 0))),
            y.eq(truncate(rounded >> self.shift, y.shape())),
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
        m.submodules.scale_out = scale_out = ScaleDown(x_bits=32, drop_bits=31)
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
