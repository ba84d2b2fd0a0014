"""The look-ahead of one job."""

import random

from amaranth.lib import data

from convoy.hw.nn.job import JobSlot
from convoy.verif.pysim import monitor, receive, send, simulate, sometimes


def test_jobs_pass_in_order():
    dut, rng, got = JobSlot(data.StructLayout({"a": 5, "b": 1})), random.Random(3), []
    jobs = [{"a": n, "b": n & 1} for n in range(32)]

    async def sender(ctx):
        await send(ctx, dut.i, jobs, go=sometimes(rng, 0.8))

    async def receiver(ctx):
        got.extend(await receive(ctx, dut.o, len(jobs), go=sometimes(rng, 0.5)))

    simulate(dut, sender, receiver, background=[monitor(dut.o)])
    assert [(job.a, job.b) for job in got] == [(job["a"], job["b"]) for job in jobs]


def test_one_job_every_two_cycles():
    dut, cycles = JobSlot(data.StructLayout({"a": 5})), []

    async def sender(ctx):
        await send(ctx, dut.i, [{"a": n} for n in range(8)])

    async def receiver(ctx):
        await receive(ctx, dut.o, 8, cycles=cycles)

    simulate(dut, sender, receiver)
    assert cycles == list(range(1, 17, 2))
