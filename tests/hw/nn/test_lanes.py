"""The multipliers, at the ends of their ranges."""

import pytest

from convoy.hw.nn.lanes import Lanes
from convoy.verif.pysim import simulate

BYTES = (0, 1, 127, 128, 255, 129, 2, 254)


@pytest.mark.parametrize("is_low", [0, 1])
@pytest.mark.parametrize("weight", [-256, -128, -1, 0, 1, 255])
def test_products(weight, is_low):
    dut = Lanes(len(BYTES))

    async def testbench(ctx):
        ctx.set(dut.pixels, BYTES)
        ctx.set(dut.weight, weight)
        ctx.set(dut.is_low, is_low)
        for _ in range(dut.PIPELINE_CYCLES):
            await ctx.tick()
        found = [ctx.get(product) for product in dut.products]
        assert found == [(value if is_low or value < 128 else value - 256) * weight for value in BYTES]

    simulate(dut, testbench)
