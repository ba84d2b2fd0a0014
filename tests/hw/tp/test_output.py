"""`Output`: results cut at the ends of runs, each byte at its place."""

import random
from itertools import pairwise

import pytest

from convoy.hw.tp.output import Output
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import WritePortMemory, always, send, simulate, sometimes

NUM_BYTES = 24


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("run_bytes", [1, 3, 4, 8, NUM_BYTES])
def test_runs_of_any_length(run_bytes, seed):
    """24 bytes in results of four, then in results of one to four; what lies between the runs stays."""
    config, rng = NpuConfig(), random.Random(seed)
    dut, go = Output(config), always if seed is None else sometimes(rng, 0.6)
    memory, expected = bytearray(b"\xee" * 1024), bytearray(b"\xee" * 1024)
    jobs, results = [], []
    for out_addr, sizes in ((5, [4] * 6), (516, [1, 4, 2, 3, 4, 4, 1, 1, 4])):
        pitch = run_bytes + 7
        jobs.append({"out_addr": out_addr, "out_run_bytes": run_bytes, "out_pitch_bytes": pitch})
        content = rng.randbytes(NUM_BYTES)
        for index, byte in enumerate(content):
            expected[out_addr + index // run_bytes * pitch + index % run_bytes] = byte
        while sizes:
            size, *sizes = sizes
            part, content = content[:size], content[size:]
            results.append({"data": int.from_bytes(part, "little"), "count": size, "last": not sizes})
    writer = WritePortMemory(config, dut.port, memory, go=go)
    num_done = 0

    async def give_jobs(ctx):
        await send(ctx, dut.job, jobs)

    async def give_results(ctx):
        await send(ctx, dut.results, results, go=go)

    async def watch(ctx):
        nonlocal num_done
        while num_done < len(jobs):
            _, _, done = await ctx.tick().sample(dut.done)
            num_done += done

    simulate(dut, give_jobs, give_results, watch, background=[writer.process])
    assert memory == expected


@pytest.mark.parametrize(("run_bytes", "cycles"), [(4, 1), (8, 1), (NUM_BYTES, 1), (3, 2), (2, 2)])
def test_cycles_per_result(run_bytes, cycles):
    """One for each result of four bytes, and one more where a run ends within it."""
    config = NpuConfig()
    dut, taken = Output(config), []
    writer = WritePortMemory(config, dut.port, bytearray(256))
    last = NUM_BYTES // 4 - 1

    async def give(ctx):
        await send(ctx, dut.job, [{"out_addr": 0, "out_run_bytes": run_bytes, "out_pitch_bytes": run_bytes}])
        await send(ctx, dut.results, [{"data": 0, "count": 4, "last": number == last} for number in range(last + 1)])

    async def watch(ctx):
        cycle = 0
        async for _, _, valid, ready in ctx.tick().sample(dut.results.valid, dut.results.ready):
            if valid and ready:
                taken.append(cycle)
            cycle += 1

    async def finish(ctx):
        await ctx.tick().until(dut.done)

    simulate(dut, give, finish, background=[watch, writer.process])
    steps = [after - before for before, after in pairwise(taken[1:])]  # the first one waits in a register
    assert len(taken) == last + 1
    assert max(steps) == cycles
