# amaranth: UnusedElaboratable=no
import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from convoy.hw.dma.run_reader import RunReader
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import RUN_REQUEST_CYCLES, RUN_RETURN_CYCLES
from convoy.verif.pysim import ReadPortMemory, monitor, receive, send, simulate, sometimes

MEMORY_BYTES = 1 << 14
CONTENTS = bytearray(random.Random(0).randbytes(MEMORY_BYTES))


def read(runs, *, config=None, depth_beats=64, latency_cycles=3, p_go=1.0, seed=0):
    """Reads (addr, num_bytes) runs and checks all bytes; returns the memory and the cycles of the beats."""
    config = config or NpuConfig()
    dut = RunReader(config, depth_beats)
    rng = random.Random(seed)
    memory = ReadPortMemory(
        config, dut.port, CONTENTS, latency_cycles=latency_cycles, go=sometimes(rng, p_go), max_bursts=config.max_reads
    )
    num_beats = sum((addr % config.port_bytes + num_bytes - 1) // config.port_bytes + 1 for addr, num_bytes in runs)
    cycles, beats = [], []

    async def sender(ctx):
        await send(
            ctx, dut.runs, [{"addr": addr, "num_bytes": num_bytes} for addr, num_bytes in runs], go=sometimes(rng, p_go)
        )

    async def receiver(ctx):
        beats.extend(await receive(ctx, dut.beats, num_beats, go=sometimes(rng, p_go), cycles=cycles))

    simulate(dut, sender, receiver, background=[memory.process, monitor(dut.beats)])
    got, run = [], bytearray()
    for beat in beats:
        assert 1 <= beat.count <= config.port_bytes - beat.skip
        run += beat.data.to_bytes(config.port_bytes, "little")[beat.skip : beat.skip + beat.count]
        if beat.last:
            got.append(bytes(run))
            run.clear()
    assert got == [bytes(CONTENTS[addr : addr + num_bytes]) for addr, num_bytes in runs]
    return memory, cycles


def test_a_page_takes_a_cycle_per_beat():
    memory, cycles = read([(4096, 4096)])
    assert memory.bursts == [(4096 + 128 * i, 16) for i in range(32)]
    assert memory.burst_cycles[0] == RUN_REQUEST_CYCLES
    first = RUN_REQUEST_CYCLES + 3 + RUN_RETURN_CYCLES  # in between, the latency of the memory
    assert cycles == list(range(first, first + 512))


def test_short_runs_follow_without_bubbles():
    runs = [(1000 + 100 * i, 8 * 2 + 3) for i in range(40)]  # 3 or 4 beats each
    memory, cycles = read(runs)
    assert len(memory.bursts) == 40
    assert cycles == list(range(9, 9 + len(cycles)))


def test_one_request_per_cycle():
    memory, cycles = read([(64 * i, 8) for i in range(40)], config=NpuConfig(max_reads=32))
    assert memory.burst_cycles == list(range(3, 43))
    assert cycles == list(range(9, 49))


def test_bursts_stop_at_a_page_and_then_are_full():
    memory, _ = read([(4096 - 10, 300)])
    assert memory.bursts == [(4096 - 16, 2), (4096, 16), (4096 + 128, 16), (4096 + 256, 5)]


def test_requests_never_exceed_the_queue():
    config = NpuConfig()
    dut = RunReader(config, 32)
    memory = ReadPortMemory(config, dut.port, CONTENTS)

    async def sender(ctx):
        await send(ctx, dut.runs, [{"addr": 8, "num_bytes": 2048}])
        await ctx.tick().repeat(100)

    simulate(dut, sender, background=[memory.process])
    assert memory.bursts == [(8, 16), (136, 16)]


def test_held_reader_requests_what_is_low_only():
    config = NpuConfig()
    dut = RunReader(config, 64, 24)
    memory = ReadPortMemory(config, dut.port, CONTENTS)

    async def sender(ctx):
        ctx.set(dut.hold, 1)
        assert not ctx.get(dut.is_requesting)
        await send(ctx, dut.runs, [{"addr": 8, "num_bytes": 384}])
        await ctx.tick().repeat(40)
        assert memory.bursts == [(8, 16), (136, 16)]
        assert ctx.get(dut.is_requesting)
        ctx.set(dut.hold, 0)
        await ctx.tick().repeat(6)
        assert memory.bursts[2:] == [(264, 16)]
        assert not ctx.get(dut.is_requesting)

    simulate(dut, sender, background=[memory.process])


def test_queue_must_hold_a_burst():
    with pytest.raises(ValueError, match="depth_beats = 8 cannot hold a burst of 16 beats"):
        RunReader(NpuConfig(), 8)


@given(
    port_bits=st.sampled_from([32, 64, 128, 256]),
    max_burst_log2=st.integers(0, 4),
    max_reads=st.integers(1, 9),
    extra_beats=st.integers(0, 20),
    latency_cycles=st.integers(1, 9),
    p_go=st.sampled_from([0.3, 0.7, 1.0]),
    seed=st.integers(0, 99),
    runs=st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 60) | st.integers(1, 700)), min_size=1, max_size=8),
)
@settings(deadline=None, max_examples=25, derandomize=True, phases=[Phase.generate])
def test_any_runs(port_bits, max_burst_log2, max_reads, extra_beats, latency_cycles, p_go, seed, runs):
    config = NpuConfig(port_bits=port_bits, max_burst_beats=1 << max_burst_log2, max_reads=max_reads)
    read(
        runs,
        config=config,
        depth_beats=config.max_burst_beats + extra_beats,
        latency_cycles=latency_cycles,
        p_go=p_go,
        seed=seed,
    )


def test_a_burst_may_be_a_whole_page():
    config = NpuConfig(port_bits=256, max_burst_beats=128)
    memory, _ = read([(31, 6000)], config=config, depth_beats=128)
    assert memory.bursts == [(0, 128), (4096, 61)]
