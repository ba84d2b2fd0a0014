# amaranth: UnusedElaboratable=no
import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from convoy.hw.dma.chunk_writer import ChunkWriter
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import WritePortMemory, always, send, simulate, sometimes

MEMORY_BYTES = 1 << 14


def chunks_of(jobs, num_lanes, rng, *, is_ragged=False):
    """Cuts jobs, lists of (addr, bytes), into chunks; `is_ragged`: of any length, with an empty one at the end."""
    for job in jobs:
        for n, (addr, content) in enumerate(job):
            position = 0
            while position < len(content):
                count = min(num_lanes, len(content) - position)
                if is_ragged:
                    count = rng.randint(0, count)
                part = content[position : position + count]
                junk = rng.randbytes(num_lanes - count)
                yield {
                    "data": int.from_bytes(part + junk, "little"),
                    "count": count,
                    "addr": addr if position == 0 else rng.getrandbits(32),
                    "start": position == 0,
                    "last": not is_ragged and n == len(job) - 1 and position + count == len(content),
                }
                position += count
        if is_ragged:
            yield {"data": 0, "count": 0, "addr": 0, "start": 0, "last": 1}


def write(jobs, *, config=None, num_lanes=8, latency_cycles=3, p_go=1.0, seed=0, is_ragged=False):
    """Writes the jobs, checks their bytes at each `done`; returns the memory model and the cycles of `done`."""
    config = config or NpuConfig()
    dut = ChunkWriter(config, num_lanes)
    rng = random.Random(seed)
    go = sometimes(rng, p_go) if p_go < 1 else always
    contents = bytearray(MEMORY_BYTES)
    memory = WritePortMemory(config, dut.port, contents, latency_cycles=latency_cycles, go=go)
    done_cycles = []

    async def sender(ctx):
        await send(ctx, dut.chunks, chunks_of(jobs, num_lanes, rng, is_ragged=is_ragged), go=go)

    async def checker(ctx):
        cycle = 0
        while len(done_cycles) < len(jobs):
            _, _, done = await ctx.tick().sample(dut.done)
            if done:
                written = {addr + i: byte for addr, content in jobs[len(done_cycles)] for i, byte in enumerate(content)}
                later = {
                    addr + i
                    for job in jobs[len(done_cycles) + 1 :]
                    for addr, content in job
                    for i in range(len(content))
                }
                assert all(contents[addr] == byte for addr, byte in written.items() if addr not in later)
                done_cycles.append(cycle)
            cycle += 1
        for _ in range(20 + latency_cycles):
            _, _, done = await ctx.tick().sample(dut.done)
            assert not done

    simulate(dut, sender, checker, background=[memory.process])
    expected = bytearray(MEMORY_BYTES)
    for addr, content in (piece for job in jobs for piece in job):
        expected[addr : addr + len(content)] = content
    assert contents == expected
    return memory, done_cycles


def noise(num_bytes, seed=1):
    return random.Random(seed).randbytes(num_bytes)


def test_a_page_takes_a_cycle_per_beat():
    memory, _ = write([[(4096, noise(4096))]])
    assert memory.bursts == [(4096 + 128 * i, 16) for i in range(32)]
    assert memory.beat_cycles[-1] - memory.beat_cycles[0] == 512 - 1 + 31  # the model takes a request between bursts


def test_unaligned_bytes():
    memory, _ = write([[(4096 - 203, noise(300))]])
    assert memory.bursts == [(3888, 16), (4016, 10), (4096, 13)]


def test_pieces_that_touch_are_joined():
    memory, _ = write([[(100, b"abc"), (103, b"defgh"), (108, noise(20))]])
    assert memory.bursts == [(96, 4)]


def test_pieces_in_successive_beats_share_a_burst():
    memory, _ = write([[(8 * i + 1, b"xyz") for i in range(10)]])
    assert memory.bursts == [(0, 10)]


def test_a_beat_written_twice():
    memory, _ = write([[(3, b"a"), (1, b"b"), (6, b"c"), (3, b"d")]])
    assert memory.bursts == [(0, 1)] * 4


def test_a_page_is_not_crossed():
    memory, _ = write([[(4096 - 8, noise(16))]])
    assert memory.bursts == [(4088, 1), (4096, 1)]


def test_jobs_overlap_and_finish_in_order():
    jobs = [[(1024 * i, noise(64, i))] for i in range(6)]
    _, done_cycles = write(jobs, latency_cycles=40)
    assert done_cycles[3] - done_cycles[0] < 40


def test_a_change_of_address_costs_one_cycle_at_most():
    rows = [(256 * i + 5, noise(32, i)) for i in range(60)]  # four chunks, five beats each
    memory, _ = write([rows])
    assert memory.bursts == [(256 * i, 5) for i in range(60)]
    assert memory.beat_cycles[-1] - memory.beat_cycles[0] == 60 * 6 - 2


def test_lanes_must_exist():
    with pytest.raises(ValueError, match="num_lanes = 0 is less than 1"):
        ChunkWriter(NpuConfig(), 0)


pieces = st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 40) | st.integers(1, 300)), min_size=1, max_size=5)


@given(
    port_bits=st.sampled_from([32, 64, 128, 256]),
    max_burst_log2=st.integers(0, 4),
    num_lanes=st.sampled_from([1, 2, 4, 8, 16]),
    latency_cycles=st.integers(1, 20),
    p_go=st.sampled_from([0.3, 0.7, 1.0]),
    seed=st.integers(0, 99),
    is_ragged=st.booleans(),
    jobs=st.lists(pieces, min_size=1, max_size=6),
    is_packed=st.booleans(),
)
@settings(deadline=None, max_examples=15, derandomize=True, phases=[Phase.generate])
def test_any_jobs(port_bits, max_burst_log2, num_lanes, latency_cycles, p_go, seed, is_ragged, jobs, is_packed):
    config = NpuConfig(port_bits=port_bits, max_burst_beats=1 << max_burst_log2)
    end, filled = 0, []
    for job in jobs:
        filled.append([])
        for addr, num_bytes in job:
            addr = end if is_packed else addr
            filled[-1].append((addr, noise(num_bytes, addr)))
            end = addr + num_bytes
    write(
        filled,
        config=config,
        num_lanes=num_lanes,
        latency_cycles=latency_cycles,
        p_go=p_go,
        seed=seed,
        is_ragged=is_ragged,
    )


def test_jobs_without_bytes_are_done_too():
    config = NpuConfig()
    dut = ChunkWriter(config, 8)
    memory = WritePortMemory(config, dut.port, bytearray(64))
    num_jobs = num_done = 0

    async def run(ctx):
        nonlocal num_jobs, num_done
        ctx.set(dut.chunks.payload, {"data": 0, "count": 0, "addr": 32, "start": 1, "last": 1})
        for cycle in range(40):
            ctx.set(dut.chunks.valid, cycle < 9)
            _, _, ready, done = await ctx.tick().sample(dut.chunks.ready, dut.done)
            num_jobs += ready and cycle < 9
            num_done += done

    simulate(dut, run, background=[memory.process])
    assert num_done == num_jobs > 1
    assert memory.bursts == []
