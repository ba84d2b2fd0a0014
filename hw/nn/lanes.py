"""The multipliers of a core."""

from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PRODUCT_BITS", "Lanes"]

PRODUCT_BITS = 32
"""Width of a product as it is handed on: sign-extended to the accumulator's, which costs nothing in hardware and is
fast to simulate.
"""
_FACTOR_BITS = 9


class Lanes(wiring.Component):
    """`num_lanes` multipliers of 9 x 9 bits, signed; pixels are bytes, signed unless `is_low`.

    Latency: `PIPELINE_CYCLES`. Throughput: one vector per cycle.
    """

    PIPELINE_CYCLES = 1

    def __init__(self, num_lanes: int):
        super().__init__(
            {
                "pixels": In(data.ArrayLayout(unsigned(8), num_lanes)),
                "weight": In(signed(_FACTOR_BITS)),
                "is_low": In(1),
                "products": Out(data.ArrayLayout(signed(PRODUCT_BITS), num_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for lane, product in enumerate(self.products):
            result = Signal(signed(2 * _FACTOR_BITS), reset_less=True, name=f"result_{lane}")
            pixel = Signal(signed(_FACTOR_BITS), name=f"pixel_{lane}")
            m.d.comb += pixel.eq(Cat(self.pixels[lane], self.pixels[lane][7] & ~self.is_low))
            m.d.sync += result.eq(pixel * self.weight)
            m.d.comb += product.eq(result)
        return m
