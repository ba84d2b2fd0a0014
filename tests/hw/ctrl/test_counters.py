"""Totals against a model, cycle for cycle."""

import random

import pytest
from amaranth.sim import Simulator

from convoy.hw.ctrl.counters import Counters
from convoy.spec.config import PRESETS


@pytest.mark.parametrize("port_bits", [32, 64, 256])
def test_totals(port_bits):
    config = PRESETS["S"].with_(port_bits=port_bits)
    dut = Counters(config)
    rng = random.Random(port_bits)

    async def testbench(ctx):
        for _ in range(2):
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            ctx.set(dut.enable, 1)
            expected = dict.fromkeys(("cycle", "read_bytes", "write_bytes", "weight_bytes"), 0)
            for _ in range(200):
                written = rng.randint(0, config.port_bytes)
                reads, weights = rng.getrandbits(1), rng.getrandbits(1)
                ctx.set(dut.write_bytes, written)
                ctx.set(dut.read_beat, reads)
                ctx.set(dut.weight_beat, weights)
                await ctx.tick()
                expected["cycle"] += 1
                expected["read_bytes"] += reads * config.port_bytes
                expected["weight_bytes"] += weights * config.port_bytes
                expected["write_bytes"] += written
            totals = ctx.get(dut.totals)
            assert {name: totals[name] for name in expected} == expected
            ctx.set(dut.enable, 0)
            await ctx.tick().repeat(5)
            totals = ctx.get(dut.totals)
            assert {name: totals[name] for name in expected} == expected

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()
