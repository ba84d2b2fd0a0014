"""Constant multiples."""

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from convoy.hw.lib.multiple import multiple


def test_multiples():
    m = Module()
    value, products = Signal(9), [Signal(16, name=f"product_{count}") for count in range(1, 9)]
    m.d.comb += [product.eq(multiple(value, count)) for count, product in enumerate(products, 1)]

    async def testbench(ctx):
        for number in (0, 1, 37, 511):
            ctx.set(value, number)
            assert [ctx.get(product) for product in products] == [number * count for count in range(1, 9)]

    sim = Simulator(m)
    sim.add_testbench(testbench)
    sim.run()


def test_refusal():
    with pytest.raises(ValueError, match="count = 0: use at least 1"):
        multiple(Signal(3), 0)
