"""The lookup unit against the table in memory, on ports of every width."""

import random

import pytest

from convoy.hw.post.lut import Lut
from convoy.spec.config import NpuConfig
from convoy.spec.isa import LUT_BYTES
from convoy.verif.pysim import ReadPortMemory, monitor, simulate, sometimes


@pytest.mark.parametrize(("port_bits", "max_burst_beats"), [(32, 16), (64, 16), (64, 1), (128, 256), (256, 4)])
@pytest.mark.parametrize("go", [0.7, 1.0])  # or all beats back to back
def test_bytes_are_looked_up_or_passed_on(port_bits, max_burst_beats, go):
    rng = random.Random(port_bits)
    config = NpuConfig(port_bits=port_bits, max_burst_beats=max_burst_beats)
    dut = Lut(config, 3)
    memory = bytearray(rng.randbytes(8 * LUT_BYTES))
    reader = ReadPortMemory(config, dut.port, memory, latency_cycles=9, go=sometimes(rng, go))

    async def bench(ctx):
        for addr in (512, None, 1024, 1024, None, 0):
            for name, value in (("has_lut", addr is not None), ("lut_addr", addr or 0)):
                ctx.set(dut.job[name], value)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            assert ctx.get(dut.is_ready) == (addr is None)
            while not ctx.get(dut.is_ready):
                await ctx.tick()
            sets = [[rng.randrange(256) for _ in range(3)] for _ in range(40)]
            expected = sets if addr is None else [[memory[addr + byte] for byte in lanes] for lanes in sets]
            found = []
            for cycle in range(len(sets) + dut.PIPELINE_CYCLES):
                ctx.set(dut.valid, cycle < len(sets))
                for lane in range(3):
                    ctx.set(dut.lanes[lane], sets[min(cycle, len(sets) - 1)][lane])
                if ctx.get(dut.out_valid):
                    found.append([ctx.get(out) for out in dut.outs])
                await ctx.tick()
            assert found == expected

    simulate(dut, bench, background=[reader.process, monitor(dut.port.bursts)])
