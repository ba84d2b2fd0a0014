"""The parameter fetcher against the order of the drain's loops."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.nn.param_fetch import ParamFetcher
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import LOW_PARAM_RECORDS
from convoy.spec.isa import PARAM
from convoy.verif.pysim import ReadPortMemory, always, receive, send, simulate, sometimes


def run(config, jobs, *, seed=0, stall=0.0):
    """Memory with random records, what the drain expects, what it gets, and the cycle of each record."""
    rng = random.Random(seed)
    raw = bytearray(rng.randbytes(1 << 13))
    wanted = []
    for job in jobs:
        addr = job["param_addr"]
        for s in range(job["num_sb"]):
            kernels = job["num_kernels_last"] if s == job["num_sb"] - 1 else job["num_kernels"]
            offsets = [addr + 16 * i for i in range(kernels * config.num_cores)]
            wanted += job["num_groups"] * [PARAM.decode(raw[offset : offset + 16]) for offset in offsets]
            addr += 16 * kernels * config.num_cores
    dut = ParamFetcher(config)
    go = sometimes(rng, 1 - stall) if stall else always
    memory = ReadPortMemory(config, dut.port, raw, go=go)
    seen, cycles = [], []

    async def jobs_in(ctx):
        await send(ctx, dut.job, jobs)

    async def params_out(ctx):
        for param in await receive(ctx, dut.params, len(wanted), go=go, cycles=cycles):
            seen.append({name: getattr(param, name) for name in PARAM.fields})

    simulate(dut, jobs_in, params_out, background=[memory.process])
    return wanted, seen, cycles


counts = st.integers(1, 3)
jobs = st.fixed_dictionaries(
    {
        "param_addr": st.integers(0, 100).map(lambda n: 32 * n),
        "num_sb": counts,
        "num_groups": counts,
        "num_kernels": counts,
        "num_kernels_last": counts,
    }
)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    st.lists(jobs, min_size=1, max_size=3),
    st.sampled_from([32, 64, 128, 256]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0.0, 0.4]),
    st.integers(0, 9),
)
def test_order(jobs, port_bits, num_cores, stall, seed):
    wanted, seen, _ = run(NpuConfig(port_bits=port_bits, num_cores=num_cores), jobs, seed=seed, stall=stall)
    assert seen == wanted


@pytest.mark.parametrize(("port_bits", "cycles_per_record"), [(64, 2), (128, 1), (256, 1)])
def test_throughput(port_bits, cycles_per_record):
    job = {"param_addr": 64, "num_sb": 1, "num_groups": 4, "num_kernels": 8, "num_kernels_last": 8}
    wanted, seen, cycles = run(NpuConfig(port_bits=port_bits), [job])
    assert seen == wanted
    assert cycles[-1] - cycles[0] <= cycles_per_record * (len(wanted) - 1)


def test_pixels_go_first():
    config, beats = NpuConfig(), LOW_PARAM_RECORDS * PARAM.num_bytes // NpuConfig().port_bytes
    dut = ParamFetcher(config)
    memory = ReadPortMemory(config, dut.port, bytearray(1 << 13))
    job = {"param_addr": 0, "num_sb": 1, "num_groups": 4, "num_kernels": 8, "num_kernels_last": 8}

    async def testbench(ctx):
        ctx.set(dut.gives_way, 1)
        await send(ctx, dut.job, [job])
        await ctx.tick().repeat(60)
        held = sum(length for _, length in memory.bursts)
        assert beats <= held <= beats + config.max_burst_beats  # the first record has left the queue
        ctx.set(dut.gives_way, 0)
        await ctx.tick().repeat(60)
        assert sum(length for _, length in memory.bursts) > held

    simulate(dut, testbench, background=[memory.process])
