"""A difference from the one of three numbers that is not all ones, and a sum of inverted ones."""

import random

import pytest
from amaranth.sim import Simulator

from convoy.hw.lib.joined import JoinedDifference


@pytest.mark.parametrize("num_bits", [4, 32])
def test_joined_difference(num_bits):
    dut, rng, ones = JoinedDifference(num_bits), random.Random(num_bits), (1 << num_bits) - 1

    async def bench(ctx):
        for number in range(200):
            total, addend = (rng.choice((0, 1, ones, rng.randrange(ones))) for _ in range(2))
            for place, name in enumerate("abc"):
                ctx.set(getattr(dut, name), total ^ ones if place == number % 3 else ones)
            ctx.set(dut.subtrahend, addend)
            assert ctx.get(dut.difference) == (total + addend & ones) ^ ones

    sim = Simulator(dut)
    sim.add_testbench(bench)
    sim.run()
