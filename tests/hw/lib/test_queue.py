# amaranth: UnusedElaboratable=no
import random

import pytest

from convoy.hw.lib.queue import Queue
from convoy.verif.pysim import monitor, receive, send, simulate, sometimes


@pytest.mark.parametrize("is_block", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 5, 16])
def test_order_and_depth(depth, is_block):
    dut = Queue(8, depth, is_block=is_block)
    rng = random.Random(depth)
    payloads = list(rng.randbytes(100))
    got = []

    async def sender(ctx):
        await send(ctx, dut.i, payloads, go=sometimes(rng, 0.8))

    async def receiver(ctx):
        for _ in range(3 * depth + 10):
            await ctx.tick()
        assert ctx.get(dut.level) == depth
        assert not ctx.get(dut.i.ready)
        got.extend(await receive(ctx, dut.o, len(payloads), go=sometimes(rng, 0.6)))

    simulate(dut, sender, receiver, background=[monitor(dut.o)])
    assert got == payloads


@pytest.mark.parametrize(("is_block", "latency_cycles"), [(False, 1), (True, 2)])
def test_one_payload_per_cycle(is_block, latency_cycles):
    dut = Queue(8, 4, is_block=is_block)
    cycles = []

    async def sender(ctx):
        await send(ctx, dut.i, range(50))

    async def receiver(ctx):
        assert await receive(ctx, dut.o, 50, cycles=cycles) == list(range(50))

    simulate(dut, sender, receiver)
    assert cycles == list(range(latency_cycles, latency_cycles + 50))


def test_depth_must_be_positive():
    with pytest.raises(ValueError, match="depth 0"):
        Queue(8, 0)
