"""`Stage`: order, latency, and the path from one `ready` to the other."""

import random

from convoy.hw.lib.stage import Stage
from convoy.verif.pysim import monitor, receive, send, simulate, sometimes


def test_one_payload_per_cycle_after_one_cycle():
    dut, cycles = Stage(8), []

    async def sender(ctx):
        await send(ctx, dut.i, range(20))

    async def receiver(ctx):
        assert await receive(ctx, dut.o, 20, cycles=cycles) == list(range(20))

    simulate(dut, sender, receiver)
    assert cycles == list(range(1, 21))


def test_order_whichever_side_stalls():
    dut, rng, got = Stage(8), random.Random(1), []

    async def sender(ctx):
        await send(ctx, dut.i, range(100), go=sometimes(rng, 0.6))

    async def receiver(ctx):
        got.extend(await receive(ctx, dut.o, 100, go=sometimes(rng, 0.5)))

    simulate(dut, sender, receiver, background=[monitor(dut.o)])
    assert got == list(range(100))


def test_ready_follows_in_the_same_cycle():
    """Where a `Queue` of two would go on being ready."""
    dut, seen = Stage(8), []

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        await ctx.tick().repeat(2)
        for ready in (0, 1, 0):
            ctx.set(dut.o.ready, ready)
            seen.append(ctx.get(dut.i.ready))

    simulate(dut, bench)
    assert seen == [0, 1, 0]
