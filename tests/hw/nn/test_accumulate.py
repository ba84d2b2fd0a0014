"""The accumulators: sums at the ends of their range, two buffers, and clearing."""

import random

from convoy.hw.nn.accumulate import ACC_BITS, Accumulators
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import simulate

CONFIG = NpuConfig(num_lanes=8, post_lanes=4, num_acc_entries=16)
LOWEST, HIGHEST = -(1 << (ACC_BITS - 1)), (1 << (ACC_BITS - 1)) - 1


async def add(ctx, dut, entry, buffer, products):
    """One addition, complete when this ends."""
    ctx.set(dut.add_en, 1)
    ctx.set(dut.add_entry, entry)
    ctx.set(dut.add_buffer, buffer)
    await ctx.tick()
    ctx.set(dut.add_en, 0)
    for cycle in range(1, dut.ADD_CYCLES):
        ctx.set(dut.products, products if cycle == dut.PRODUCT_CYCLES else [0] * CONFIG.num_lanes)
        await ctx.tick()


async def drain(ctx, dut, entry, buffer, *, clear=False):
    """All sums of an entry."""
    sums = []
    for chunk in range(CONFIG.num_lanes // CONFIG.post_lanes):
        ctx.set(dut.drain_en, 1)
        ctx.set(dut.drain_entry, entry)
        ctx.set(dut.drain_buffer, buffer)
        ctx.set(dut.drain_chunk, chunk)
        ctx.set(dut.drain_clear, clear and chunk == CONFIG.num_lanes // CONFIG.post_lanes - 1)
        await ctx.tick()
        ctx.set(dut.drain_en, 0)
        ctx.set(dut.drain_clear, 0)
        for _ in range(dut.DRAIN_CYCLES - 1):
            await ctx.tick()
        raw = ~ctx.get(dut.drain_inverted)
        values = [raw >> ACC_BITS * lane & ((1 << ACC_BITS) - 1) for lane in range(CONFIG.post_lanes)]
        sums += [value - (value > HIGHEST) * (1 << ACC_BITS) for value in values]
    return sums


def test_sums_of_two_buffers():
    dut, rng = Accumulators(CONFIG), random.Random(0)

    async def testbench(ctx):
        await ctx.tick().until(dut.is_clear)
        expected = {}
        for _ in range(60):
            entry, buffer = rng.randrange(CONFIG.num_acc_entries), rng.randrange(2)
            products = [rng.randrange(-(1 << 17), 1 << 17) for _ in range(CONFIG.num_lanes)]
            await add(ctx, dut, entry, buffer, products)
            old = expected.get((entry, buffer), [0] * CONFIG.num_lanes)
            expected[entry, buffer] = [a + b for a, b in zip(old, products, strict=True)]
        for entry in range(CONFIG.num_acc_entries):
            for buffer in range(2):
                sums = expected.get((entry, buffer), [0] * CONFIG.num_lanes)
                assert await drain(ctx, dut, entry, buffer, clear=True) == sums
                assert await drain(ctx, dut, entry, buffer) == [0] * CONFIG.num_lanes

    simulate(dut, testbench)


def test_an_addition_per_cycle_to_any_entry():
    dut, rng = Accumulators(CONFIG), random.Random(1)
    additions = [
        (rng.randrange(3), rng.randrange(2), [rng.randrange(-99, 99) for _ in range(CONFIG.num_lanes)])
        if rng.randrange(4)
        else None
        for _ in range(200)
    ]

    async def testbench(ctx):
        await ctx.tick().until(dut.is_clear)
        expected = {}
        none = [None] * dut.PRODUCT_CYCLES
        for begun, added in zip([*additions, *none], [*none, *additions], strict=True):
            ctx.set(dut.add_en, begun is not None)
            if begun:
                ctx.set(dut.add_entry, begun[0])
                ctx.set(dut.add_buffer, begun[1])
            if added:
                *place, products = added
                ctx.set(dut.products, products)
                old = expected.get(tuple(place), [0] * CONFIG.num_lanes)
                expected[tuple(place)] = [a + b for a, b in zip(old, products, strict=True)]
            await ctx.tick()
        for (entry, buffer), sums in expected.items():
            assert await drain(ctx, dut, entry, buffer) == sums

    simulate(dut, testbench)


def test_ends_of_the_range_wrap():
    dut = Accumulators(CONFIG)

    async def testbench(ctx):
        await ctx.tick().until(dut.is_clear)
        await add(ctx, dut, 3, 0, [HIGHEST] * 4 + [LOWEST] * 4)
        assert await drain(ctx, dut, 3, 0) == [HIGHEST] * 4 + [LOWEST] * 4
        await add(ctx, dut, 3, 0, [1] * 4 + [-1] * 4)
        assert await drain(ctx, dut, 3, 0) == [LOWEST] * 4 + [HIGHEST] * 4

    simulate(dut, testbench)


def test_clear_after_a_reset_takes_a_cycle_per_entry():
    dut = Accumulators(CONFIG)

    async def testbench(ctx):
        cycles = 0
        while not ctx.get(dut.is_clear):
            await ctx.tick()
            cycles += 1
        assert cycles == CONFIG.num_acc_entries

    simulate(dut, testbench)
