"""Descriptor fetch: order, content, look-ahead, stopping half-way."""

import random

import pytest

from convoy.hw.ctrl.descriptor_fetch import Fetch
from convoy.spec.config import PRESETS
from convoy.spec.isa import DESCRIPTOR_BYTES
from convoy.verif.pysim import ReadPortMemory, sometimes
from convoy.verif.pysim import simulate as run

BASE = 4096 - DESCRIPTOR_BYTES


def simulate(config, testbench, *, stall=0.0):
    """Run `testbench(ctx, dut, memory)` with random bytes in memory."""
    dut = Fetch(config)
    rng = random.Random(1)
    contents = rng.randbytes(8192)
    memory = ReadPortMemory(config, dut.read, contents, latency_cycles=5, go=sometimes(rng, 1 - stall))

    async def main(ctx):
        await testbench(ctx, dut, contents)

    run(dut, main, background=[memory.process])


async def start(ctx, dut, base, count):
    ctx.set(dut.base, base)
    ctx.set(dut.count, count)
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    ctx.set(dut.enable, 1)


async def take(ctx, dut):
    ctx.set(dut.descriptors.ready, 1)
    (fetched,) = await ctx.tick().sample(dut.descriptors.payload).until(dut.descriptors.valid)
    ctx.set(dut.descriptors.ready, 0)
    return fetched


@pytest.mark.parametrize(("port_bits", "max_burst_beats"), [(32, 16), (64, 16), (64, 1), (128, 4), (256, 128)])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_sequence(port_bits, max_burst_beats, stall):
    config = PRESETS["S"].with_(port_bits=port_bits, max_burst_beats=max_burst_beats)

    async def testbench(ctx, dut, memory):
        for base, count in ((BASE, 4), (0, 1), (256, 0), (512, 2)):
            await start(ctx, dut, base, count)
            for index in range(count):
                assert not ctx.get(dut.is_idle)
                fetched = await take(ctx, dut)
                addr = base + index * DESCRIPTOR_BYTES
                assert (fetched.index, fetched.addr) == (index, addr)
                assert fetched.raw.to_bytes(DESCRIPTOR_BYTES, "little") == memory[addr : addr + DESCRIPTOR_BYTES]
            assert ctx.get(dut.is_idle)
            await ctx.tick().repeat(40)
            assert not ctx.get(dut.descriptors.valid)

    simulate(config, testbench, stall=stall)


def test_next_one_is_ready():
    """After a pause the queue holds a whole descriptor: it stands at the output a beat per cycle later, whatever the
    latency.
    """
    config = PRESETS["S"]

    async def testbench(ctx, dut, memory):
        await start(ctx, dut, 0, 3)
        await take(ctx, dut)
        await ctx.tick().repeat(100)
        await take(ctx, dut)
        cycles = 0
        while not ctx.get(dut.descriptors.valid):
            await ctx.tick()
            cycles += 1
        assert cycles == DESCRIPTOR_BYTES // config.port_bytes

    simulate(config, testbench)


@pytest.mark.parametrize("pause", [1, 3, 9, 25, 60])
def test_disable_drops_everything(pause):
    async def testbench(ctx, dut, memory):
        await start(ctx, dut, 0, 20)
        await take(ctx, dut)
        await ctx.tick().repeat(pause)
        ctx.set(dut.enable, 0)
        assert not ctx.get(dut.descriptors.valid)
        await ctx.tick().repeat(60)
        assert ctx.get(dut.is_idle)
        await start(ctx, dut, BASE, 1)
        fetched = await take(ctx, dut)
        assert fetched.raw.to_bytes(DESCRIPTOR_BYTES, "little") == memory[BASE : BASE + DESCRIPTOR_BYTES]
        assert ctx.get(dut.is_idle)

    simulate(PRESETS["S"], testbench)
