"""How long a job waits for the tensor processor."""

import random

from convoy.hw.nn.tp_wait import TpWait
from convoy.verif.pysim import simulate


def test_counts_what_is_done_from_the_first_cycle_on():
    dut, rng = TpWait(), random.Random(5)

    async def testbench(ctx):
        for _ in range(40):
            due = rng.randrange(9)
            ctx.set(dut.due, due)
            ctx.set(dut.load, 1)
            while True:
                done = rng.random() < 0.5
                ctx.set(dut.done, done)
                await ctx.tick()
                ctx.set(dut.load, 0)
                due = max(0, due - done)
                assert ctx.get(dut.left) == due
                assert ctx.get(dut.is_over) == (due == 0)
                if rng.random() < 0.1:
                    break

    simulate(dut, testbench)
