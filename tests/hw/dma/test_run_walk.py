import random

import pytest

from convoy.hw.dma.run_walk import RunWalk
from convoy.verif.pysim import monitor, receive, send, simulate, sometimes


def expected_runs(job):
    return [
        ((job["addr"] + o * job["pitch_outer_bytes"] + i * job["pitch_inner_bytes"]) % 2**32, job["run_bytes"])
        for o in range(job["num_outer"])
        for i in range(job["num_inner"])
    ]


def walk(jobs, p_send, p_receive, seed):
    dut = RunWalk()
    rng = random.Random(seed)
    expected = [run for job in jobs for run in expected_runs(job)]
    cycles, runs = [], []

    async def sender(ctx):
        await send(ctx, dut.jobs, jobs, go=sometimes(rng, p_send))

    async def receiver(ctx):
        runs.extend(await receive(ctx, dut.runs, len(expected), go=sometimes(rng, p_receive), cycles=cycles))

    simulate(dut, sender, receiver, background=[monitor(dut.runs)])
    assert [(run.addr, run.num_bytes) for run in runs] == expected
    return cycles


JOBS = [
    dict(addr=0x1003, run_bytes=5, num_inner=3, pitch_inner_bytes=100, num_outer=2, pitch_outer_bytes=1000),
    dict(addr=7, run_bytes=1, num_inner=1, pitch_inner_bytes=0, num_outer=1, pitch_outer_bytes=0),
    dict(addr=9, run_bytes=70000, num_inner=1, pitch_inner_bytes=3, num_outer=4, pitch_outer_bytes=2**32 - 2),
    dict(addr=0xFFFF_FFFF, run_bytes=2, num_inner=5, pitch_inner_bytes=1, num_outer=3, pitch_outer_bytes=64),
]


def test_one_run_per_cycle_and_one_cycle_between_jobs():
    cycles = walk(JOBS, 1, 1, 0)
    ends = [sum(len(expected_runs(job)) for job in JOBS[:n]) for n in range(1, len(JOBS))]
    assert cycles == [1 + run + sum(run >= end for end in ends) for run in range(len(cycles))]


@pytest.mark.parametrize("seed", range(3))
def test_stalls(seed):
    assert len(walk(JOBS * 2, 0.5, 0.4, seed)) == 2 * (6 + 1 + 4 + 15)
