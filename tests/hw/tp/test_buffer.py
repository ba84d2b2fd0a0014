"""Writes at any alignment, gathers with any step: of lanes in one bank the first is read."""

import random

import pytest
from amaranth.sim import Simulator

from convoy.hw.tp.buffer import TpBuffer


@pytest.mark.parametrize(
    ("num_banks", "step"), [(4, 1), (4, 0), (4, -3), (8, 1), (8, 6), (8, 97), (16, 4), (8, 4), (8, 8)]
)
def test_gathers_read_what_was_written(num_banks, step):
    num_bytes, lanes = 512, 4
    dut = TpBuffer(num_bytes=num_bytes, num_banks=num_banks, num_lanes=lanes)
    rng = random.Random(num_banks + step)
    contents = [0] * num_bytes

    async def bench(ctx):
        addr = 0
        while addr < num_bytes:
            skip = rng.randrange(num_banks)
            count = min(rng.randint(1, num_banks - skip), num_bytes - addr)
            beat = rng.randbytes(num_banks)
            contents[addr : addr + count] = beat[skip : skip + count]
            ctx.set(dut.write_en, 1)
            ctx.set(dut.write_addr, addr)
            ctx.set(dut.write_data, int.from_bytes(beat, "little"))
            ctx.set(dut.write_skip, skip)
            ctx.set(dut.write_count, count)
            await ctx.tick()
            addr += count
        ctx.set(dut.write_en, 0)
        ctx.set(dut.read_step, [step % (num_bytes // 2)] * 2)
        await ctx.tick().repeat(2)
        count = next((lane for lane in range(1, lanes) if step and lane * step % num_banks == 0), lanes)
        requests = [(rng.randrange(num_bytes), rng.randrange(num_bytes)) for _ in range(40)]
        for cycle in range(len(requests) + dut.GATHER_CYCLES):
            ctx.set(dut.read_addr, requests[min(cycle, len(requests) - 1)])
            if cycle >= dut.GATHER_CYCLES:
                for gather, start in enumerate(requests[cycle - dut.GATHER_CYCLES]):
                    half = start // 256 * 256
                    expected = [contents[half + (start + lane * step) % 256] for lane in range(count)]
                    assert [ctx.get(dut.read_data[gather][lane]) % 256 for lane in range(count)] == expected
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
