"""The register in a stream."""

import random

from convoy.hw.lib.stage import Stage
from convoy.verif.pysim import always, monitor, receive, send, simulate, sometimes


def test_order_under_stalls():
    dut, rng, got = Stage(8), random.Random(1), []
    payloads = list(rng.randbytes(100))

    async def sender(ctx):
        await send(ctx, dut.i, payloads, go=sometimes(rng, 0.7))

    async def receiver(ctx):
        got.extend(await receive(ctx, dut.o, len(payloads), go=sometimes(rng, 0.6)))

    simulate(dut, sender, receiver, background=[monitor(dut.o)])
    assert got == payloads


def test_one_payload_per_cycle():
    dut, cycles = Stage(8), []

    async def sender(ctx):
        await send(ctx, dut.i, range(20))

    async def receiver(ctx):
        assert await receive(ctx, dut.o, 20, go=always, cycles=cycles) == list(range(20))

    simulate(dut, sender, receiver)
    assert cycles == list(range(1, 21))
