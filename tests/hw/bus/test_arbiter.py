import random

import pytest

from convoy.hw.bus.arbiter import RoundRobin
from convoy.verif.pysim import simulate


@pytest.mark.parametrize("num_requests", [1, 2, 3, 6])
def test_the_next_one_after_the_last_is_chosen(num_requests):
    dut = RoundRobin(num_requests)
    rng = random.Random(num_requests)
    choices = []

    async def check(ctx):
        last = 0
        for _ in range(200):
            requests, is_taken = rng.getrandbits(num_requests), rng.random() < 0.7
            ctx.set(dut.requests, requests)
            ctx.set(dut.next_en, is_taken)
            assert ctx.get(dut.is_any) == bool(requests)
            if requests:
                order = [(last + 1 + i) % num_requests for i in range(num_requests)]
                expected = next(i for i in order if requests >> i & 1)
                assert (ctx.get(dut.index), ctx.get(dut.chosen)) == (expected, 1 << expected)
                if is_taken:
                    choices.append(expected)
                    last = expected
            await ctx.tick()

    simulate(dut, check)
    assert set(choices) == set(range(num_requests))
