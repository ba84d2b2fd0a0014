"""The multipliers of a core."""

from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PRODUCT_BITS", "Lanes"]

PRODUCT_BITS = 18
"""Width of a product of two 9-bit signed operands."""


class Lanes(wiring.Component):
    """`num_lanes` multipliers of 9 x 9 bits, signed; pixels and weight are 8-bit signed today.

    Latency: `PIPELINE_CYCLES`. Throughput: one vector per cycle.
    """

    PIPELINE_CYCLES = 1

    def __init__(self, num_lanes: int):
        super().__init__({
            "pixels": In(data.ArrayLayout(unsigned(8), num_lanes)), "weight": In(signed(9)),
            "products": Out(data.ArrayLayout(signed(PRODUCT_BITS), num_lanes)),
        })

    def elaborate(self, platform):
        m = Module()
        for lane, product in enumerate(self.products):
            pixel = Signal(signed(9), name=f"pixel_{lane}")
            m.d.comb += pixel.eq(self.pixels[lane].as_signed())
            m.d.sync += product.eq(pixel * self.weight)
        return m
