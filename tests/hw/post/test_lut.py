"""The lookup unit against the table in memory, on ports of every width."""

import random

import pytest

from convoy.hw.post.lut import Lut
from convoy.spec.config import NpuConfig
from convoy.spec.isa import LUT_BYTES
from convoy.verif.pysim import ReadPortMemory, monitor, simulate, sometimes


@pytest.mark.parametrize(("port_bits", "max_burst_beats"), [(32, 16), (64, 16), (64, 1), (128, 256), (256, 4)])
def test_bytes_are_looked_up_or_passed_on(port_bits, max_burst_beats):
    rng = random.Random(port_bits)
    config = NpuConfig(port_bits=port_bits, max_burst_beats=max_burst_beats)
    dut = Lut(config, 3)
    memory = bytearray(rng.randbytes(8 * LUT_BYTES))
    reader = ReadPortMemory(config, dut.port, memory, latency_cycles=9, go=sometimes(rng, 0.7))

    async def offer(ctx, addr):
        for name, value in (("has_lut", addr is not None), ("lut_addr", addr or 0)):
            ctx.set(dut.next_job[name], value)
        ctx.set(dut.has_next, 1)

    async def bench(ctx):
        addrs = (512, None, 1024, 1024, None, 0, 256, 768)
        await offer(ctx, addrs[0])
        for number, addr in enumerate(addrs):
            await ctx.tick()
            ctx.set(dut.has_next, 0)
            ctx.set(dut.start, 1)
            ctx.set(dut.has_lut, addr is not None)
            is_late = number + 1 < len(addrs) and rng.random() < 0.5
            if number + 1 < len(addrs) and not is_late:
                await offer(ctx, addrs[number + 1])
            await ctx.tick()
            ctx.set(dut.start, 0)
            assert ctx.get(dut.is_ready) or addr is not None
            while not ctx.get(dut.is_ready):
                await ctx.tick()
            sets = [[rng.randrange(256) for _ in range(3)] for _ in range(rng.choice([40, 400]))]
            expected = sets if addr is None else [[memory[addr + byte] for byte in lanes] for lanes in sets]
            found, waiting = [], sets[:]
            while len(found) < len(sets):
                is_valid = bool(waiting) and rng.random() < 0.6
                ctx.set(dut.valid, is_valid)
                if is_valid:
                    for lane, byte in enumerate(waiting.pop(0)):
                        ctx.set(dut.lanes[lane], byte)
                if ctx.get(dut.out_valid):
                    found.append([ctx.get(out) for out in dut.outs])
                await ctx.tick()
            ctx.set(dut.valid, 0)
            assert found == expected
            if is_late:
                await offer(ctx, addrs[number + 1])

    simulate(dut, bench, background=[reader.process, monitor(dut.port.bursts)])
