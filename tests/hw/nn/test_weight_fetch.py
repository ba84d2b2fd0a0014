"""The weight fetcher: tap tables to the banks in turn, every core's streams once per group, never more than a queue
holds.
"""

import random
from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convoy.hw.nn.weight_fetch import FETCH_FIELDS, WeightFetcher
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import BURST_CYCLES, LOW_BEATS, SKIP_CYCLES
from convoy.spec.isa import STREAM
from convoy.verif.pysim import ReadPortMemory, always, send, simulate, sometimes
from convoy.verif.swapped_jobs import SwappedImage, random_swapped, swapped_tokens


@settings(max_examples=15, deadline=None)
@given(
    num_cores=st.sampled_from([1, 2, 4]),
    port_bits=st.sampled_from([32, 64, 128, 256]),
    num_jobs=st.integers(1, 3),
    seed=st.integers(0, 1 << 16),
    stall=st.sampled_from([0.0, 0.4]),
    max_taps=st.sampled_from([30, 511]),
)
@example(
    num_cores=1, port_bits=32, num_jobs=1, seed=0, stall=0.0, max_taps=511
)  # the table of taps is longer than the reader's queue
def test_fetcher_delivers_streams_and_taps(num_cores, port_bits, num_jobs, seed, stall, max_taps):
    config = NpuConfig(num_cores=num_cores, port_bits=port_bits, weight_fifo_beats=32)
    rng = random.Random(seed)
    memory = bytearray(rng.randbytes(1 << 16))
    jobs, taps, streams = [], [], [[] for _ in range(num_cores)]
    for n in range(num_jobs):
        base = 0x4000 * n
        job = {
            "tap_addr": base,
            "stream_addr": base + 0x800,
            "wgt_addr": base + 0x1000,
            "num_taps": rng.randint(max_taps // 2, max_taps),
            "num_sb": rng.randrange(1, 4),
            "num_groups": rng.randrange(1, 4),
        }
        jobs.append(job)
        taps += [
            (n % 2, job["num_taps"] - 1 - tap, int.from_bytes(memory[base + 2 * tap :][:2], "little"))
            for tap in range(job["num_taps"])
        ]
        for s in range(job["num_sb"]):
            for core in range(num_cores):
                offset, num_beats = rng.randrange(0x80) * 32, rng.randrange(1, 40)
                at = job["stream_addr"] + STREAM.num_bytes * (s * num_cores + core)
                memory[at : at + STREAM.num_bytes] = STREAM.encode(offset_bytes=offset, num_beats=num_beats)
                beats = [
                    int.from_bytes(
                        memory[job["wgt_addr"] + offset + i * config.port_bytes :][: config.port_bytes], "little"
                    )
                    for i in range(num_beats)
                ]
                streams[core] += [
                    (beat, i == num_beats - 1, group == job["num_groups"] - 1, s == job["num_sb"] - 1)
                    for group in range(job["num_groups"])
                    for i, beat in enumerate(beats)
                ]

    dut = WeightFetcher(config)
    seen, seen_taps = [[] for _ in range(num_cores)], []
    level = [0] * num_cores

    async def give_jobs(ctx):
        await send(ctx, dut.job, jobs)

    async def watch(ctx):
        while sum(map(len, seen)) < sum(map(len, streams)):
            taken = [level[core] > 0 and rng.random() < 0.5 for core in range(num_cores)]
            ctx.set(dut.taken, sum(take << core for core, take in enumerate(taken)))
            _, _, en, beats, tap = await ctx.tick().sample(dut.beat_en, dut.beats, dut.tap_write)
            level[:] = [have - take for have, take in zip(level, taken, strict=True)]
            if en:
                (core,) = (core for core in range(num_cores) if en >> core & 1)
                assert not beats.is_byte
                seen[core].append((beats.data, beats.last, beats.is_last_group, beats.is_last_sb))
                level[core] += 1
                assert level[core] <= config.weight_fifo_beats
            if tap.en:
                seen_taps.append((tap.bank, tap.taps_left, tap.offset))

    servers = [ReadPortMemory(config, port, memory, go=sometimes(rng, 1 - stall)) for port in (dut.tables, dut.weights)]
    simulate(dut, give_jobs, watch, background=[server.process for server in servers])
    assert seen == streams
    assert seen_taps == taps


def test_bursts_are_chosen_in_turn():
    """Once the short streams of the other cores have been read they are passed over."""
    num_cores, num_beats = 4, (8, 2, 2, 2)
    config = NpuConfig(num_cores=num_cores, max_burst_beats=1)
    memory = bytearray(1 << 12)
    memory[64 : 64 + num_cores * STREAM.num_bytes] = b"".join(
        STREAM.encode(offset_bytes=64 * core, num_beats=beats) for core, beats in enumerate(num_beats)
    )
    dut = WeightFetcher(config)
    job = {"tap_addr": 0, "stream_addr": 64, "wgt_addr": 1024, "num_taps": 1, "num_sb": 1, "num_groups": 1}
    tables, weights = (ReadPortMemory(config, port, memory, max_bursts=32) for port in (dut.tables, dut.weights))

    async def bench(ctx):
        await send(ctx, dut.job, [job])
        await ctx.tick().repeat(150)

    simulate(dut, bench, background=[tables.process, weights.process])
    gaps = [after - before for before, after in pairwise(weights.burst_cycles)]
    assert gaps == [BURST_CYCLES] * 8 + [BURST_CYCLES + (num_cores - 1) * SKIP_CYCLES] * 5


@settings(max_examples=10, deadline=None)
@given(port_bits=st.sampled_from([32, 64, 256]), max_burst_beats=st.sampled_from([1, 16]), seed=st.integers(0, 1 << 16))
@example(port_bits=64, max_burst_beats=16, seed=0)
def test_hostile_directory(port_bits, max_burst_beats, seed):
    """Whatever the directory says, bursts are aligned, within a page, no longer than the limit, and no queue gets
    more than it holds.
    """
    config = NpuConfig(num_cores=2, port_bits=port_bits, weight_fifo_beats=32, max_burst_beats=max_burst_beats)
    rng = random.Random(seed)
    entries = [(0xF00, 0), (1, 1)] + [
        (rng.randrange(1 << 32), rng.choice([0, 0, 1, 17, 255, 256, 257, 1 << 31, (1 << 32) - 1])) for _ in range(4)
    ]
    memory = b"".join(STREAM.encode(offset_bytes=offset, num_beats=num_beats) for offset, num_beats in entries) + bytes(
        16
    )
    dut = WeightFetcher(config)
    level, bursts = [0, 0], []
    due = []

    async def give_job(ctx):
        await send(
            ctx,
            dut.job,
            [{"tap_addr": 0, "stream_addr": 0, "wgt_addr": 0x2000, "num_taps": 1, "num_sb": 3, "num_groups": 2}],
        )

    async def serve(ctx):
        port = dut.weights
        ctx.set(port.bursts.ready, 1)
        while True:
            ctx.set(port.beats.valid, bool(due))
            due[:] = due[1:]
            _, _, valid, burst = await ctx.tick().sample(port.bursts.valid, port.bursts.p)
            if valid:
                bursts.append((burst.addr, burst.last_beat + 1))
                due.extend([0] * (burst.last_beat + 1))

    async def watch(ctx):
        for _ in range(800):
            taken = [level[core] > 0 for core in range(2)]
            ctx.set(dut.taken, sum(take << core for core, take in enumerate(taken)))
            _, _, en = await ctx.tick().sample(dut.beat_en)
            level[:] = [
                have - take + (en >> core & 1) for core, (have, take) in enumerate(zip(level, taken, strict=True))
            ]
            assert max(level) <= config.weight_fifo_beats

    simulate(
        dut, give_job, watch, background=[ReadPortMemory(config, dut.tables, memory, go=lambda: True).process, serve]
    )
    assert bursts
    for addr, num_beats in bursts:
        assert addr % config.port_bytes == 0
        assert num_beats <= max_burst_beats
        assert addr // 4096 == (addr + num_beats * config.port_bytes - 1) // 4096


def test_fetcher_gives_way():
    """While other reads are urgent it asks for no more than it needs soon; then it fills the queues."""
    config = NpuConfig(num_cores=2, weight_fifo_beats=128)
    memory = bytearray(1 << 14)
    for core in range(2):
        at = 0x800 + STREAM.num_bytes * core
        memory[at : at + STREAM.num_bytes] = STREAM.encode(offset_bytes=0, num_beats=100)
    dut = WeightFetcher(config)
    job = {"tap_addr": 0, "stream_addr": 0x800, "wgt_addr": 0x1000, "num_taps": 1, "num_sb": 1, "num_groups": 1}
    levels = []

    async def give_job(ctx):
        ctx.set(dut.gives_way, 1)
        await send(ctx, dut.job, [job])

    async def watch(ctx):
        count = [0, 0]
        for cycle in range(600):
            if cycle == 300:
                levels.extend(count)
                ctx.set(dut.gives_way, 0)
            _, _, en = await ctx.tick().sample(dut.beat_en)
            count[:] = [have + (en >> core & 1) for core, have in enumerate(count)]
        levels.extend(count)

    servers = [ReadPortMemory(config, port, memory, go=lambda: True) for port in (dut.tables, dut.weights)]
    simulate(dut, give_job, watch, background=[server.process for server in servers])
    low, burst = LOW_BEATS, config.max_burst_beats
    assert all(low <= level < low + burst for level in levels[:2])
    assert levels[2:] == [100, 100]


@settings(max_examples=8, deadline=None)
@given(
    num_cores=st.sampled_from([1, 2, 4]),
    port_bits=st.sampled_from([32, 64, 256]),
    seed=st.integers(0, 1 << 16),
    may_start=st.booleans(),
)
def test_activations_come_between_weights(num_cores, port_bits, seed, may_start):
    """A swapped descriptor among others: its tokens come after the beats of the one before, not before the tensor
    processor has made what they are, and, with `wait_nn`, not before all earlier ones are complete.
    """
    config = NpuConfig(num_cores=num_cores, port_bits=port_bits, weight_fifo_beats=32)
    rng = random.Random(seed)
    layer = random_swapped(config, np.random.default_rng(seed), 1 << 10)
    image = SwappedImage(config, layer)
    swapped = {name: image.fields[0][name] for name in FETCH_FIELDS} | {"wait_nn": int(not may_start)}
    plain = dict.fromkeys(FETCH_FIELDS, 0) | {"num_taps": 1, "num_sb": 1, "num_groups": 1}
    plain |= {"tap_addr": swapped["tap_addr"], "stream_addr": image.program_addr, "wgt_addr": image.src_addr & ~31}
    image.put_program([STREAM.encode(offset_bytes=0, num_beats=40)] * num_cores)
    tokens = swapped_tokens(layer, num_cores)
    dut = WeightFetcher(config)
    seen, level = [[] for _ in range(num_cores)], [0] * num_cores
    done_at, made_at = rng.randrange(400, 900), rng.randrange(900)

    async def give_jobs(ctx):
        await send(ctx, dut.job, [plain, swapped, plain])

    async def watch(ctx):
        cycle = 0
        while sum(map(len, seen)) < num_cores * (80 + len(tokens[0])):
            cycle += 1
            ctx.set(dut.is_oldest, cycle > done_at)
            ctx.set(dut.is_made, cycle > made_at)
            taken = [have > 0 and rng.random() < 0.7 for have in level]
            ctx.set(dut.taken, sum(take << core for core, take in enumerate(taken)))
            _, _, en, beats = await ctx.tick().sample(dut.beat_en, dut.beats)
            for core in range(num_cores):
                level[core] += (en >> core & 1) - taken[core]
                assert level[core] <= config.weight_fifo_beats
                if en >> core & 1:
                    assert not beats.is_byte or (cycle > made_at and (may_start or cycle > done_at))
                    assert beats.is_last_group
                    assert beats.is_last_sb
                    seen[core].append((beats.data & 0xFFFF, bool(beats.last)) if beats.is_byte else None)

    servers = [ReadPortMemory(config, port, image.bytes, go=always) for port in (dut.tables, dut.weights)]
    simulate(dut, give_jobs, watch, background=[server.process for server in servers])
    for core in range(num_cores):
        last = [False] * (len(tokens[core]) - 1) + [True]
        assert seen[core] == [None] * 40 + list(zip(tokens[core], last, strict=True)) + [None] * 40
