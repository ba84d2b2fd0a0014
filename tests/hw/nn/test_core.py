"""The core against the loops of docs/architecture.md: random weights, windows, geometries and arrival times."""

import random

import numpy as np
from amaranth.hdl import Const
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.nn.core import Core
from convoy.hw.nn.decoder import TapWrite
from convoy.spec.config import NpuConfig
from convoy.spec.isa import MAX_RUN_BITS, MAX_STEP_KERNELS


def encode(weights: np.ndarray, run_bits: int, port_bits: int) -> list[int]:
    """The beats of a weight stream; `weights` in stream order, kept modulo 256."""
    word, num_bits, run = 0, 0, 0
    for position, weight in enumerate(weights):
        if weight == 0 and run < (1 << run_bits) - 1 and position != len(weights) - 1:
            run += 1
            continue
        word |= ((int(weight) & 255) | run << 8) << num_bits
        num_bits += 8 + run_bits
        run = 0
    return [(word >> n) & ((1 << port_bits) - 1) for n in range(0, num_bits, port_bits)]


@st.composite
def cases(draw):
    config = NpuConfig(num_cores=1, num_lanes=draw(st.sampled_from([8, 16])), num_acc_entries=16, port_bits=draw(st.sampled_from([32, 64, 128])),
                       window_words=32, weight_fifo_beats=32, post_lanes=draw(st.sampled_from([1, 2, 4])))
    is_depthwise, is_wide = draw(st.booleans()), draw(st.booleans())
    num_vec = draw(st.integers(1, 5))
    num_entries = num_vec << is_wide
    num_z = draw(st.integers(1, 4))
    kernels_per_z = draw(st.integers(1, max(1, 16 // num_entries // (num_z if is_depthwise else 1))))
    if is_depthwise and num_entries * num_z * kernels_per_z > 16:
        num_z = 1
    num_taps = draw(st.sampled_from([1, 2, 3, 4, 6, 9]))
    limit = num_taps * min(kernels_per_z, MAX_STEP_KERNELS) if num_taps > 1 else kernels_per_z
    split = draw(st.integers(0, 2))
    return dict(
        config=config, is_depthwise=int(is_depthwise), is_wide=int(is_wide), num_vec=num_vec, num_vec_last=draw(st.integers(1, num_vec)), num_z=num_z, num_z_last=num_z,
        kernels_per_z=kernels_per_z, kernels_per_z_last=kernels_per_z, num_taps=num_taps,
        run_bits=draw(st.integers(0, min(MAX_RUN_BITS, limit.bit_length() - 1))), num_sb=draw(st.integers(1, 2)), num_groups=draw(st.integers(1, 3)),
        group_step=draw(st.integers(0, 40)), num_phases=1, seg_words=draw(st.integers(6, 8 if is_wide else 16)), num_slots=draw(st.integers(1, 2)),
        num_vec_x=draw(st.integers(1, num_vec)), step_vec_x=draw(st.integers(0, 9)), step_vec_y=draw(st.integers(0, 9)),
        wgt_zero_point=draw(st.sampled_from([0, 0, -128, 127, -3])),
        split_log2=split, split_words=draw(st.integers(0, 1)) if split else 0,
        density=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])), seed=draw(st.integers(0, 1 << 16)),
    )


def check_core(case):
    case = dict(case)
    config, density, seed = case.pop("config"), case.pop("density"), case.pop("seed")
    num_lanes, num_vec = config.num_lanes, case["num_vec"]
    rng, rand = np.random.default_rng(seed), random.Random(seed)
    taps = rng.integers(0, 24, case["num_taps"])
    shape = (case["num_sb"], case["num_z"], case["kernels_per_z"], case["num_taps"])
    weights = np.where(rng.random(shape) < density, rng.integers(-128, 128, shape) - case["wgt_zero_point"], 0)
    num_kernels = case["kernels_per_z"] * (case["num_z"] if case["is_depthwise"] else 1)
    groups = [(s, g) for s in range(case["num_sb"]) for g in range(case["num_groups"])]
    num_bytes = 1 + case["is_wide"]
    windows = rng.integers(-128, 128, (len(groups), case["num_z"], num_bytes, case["seg_words"] * num_lanes))
    if case["is_wide"]:
        windows[:, :, 0] &= 255

    expected = []
    for n, (s, g) in enumerate(groups):
        acc = np.zeros((num_kernels, num_vec, num_bytes, num_lanes), np.int64)
        for z in range(case["num_z"]):
            for kz in range(case["kernels_per_z"]):
                kernel = z * case["kernels_per_z"] + kz if case["is_depthwise"] else kz
                for v in range(case["num_vec_last"] if g == case["num_groups"] - 1 else num_vec):
                    for tap in range(case["num_taps"]):
                        base = (g * case["group_step"]) % num_lanes + taps[tap] + v % case["num_vec_x"] * case["step_vec_x"] + v // case["num_vec_x"] * case["step_vec_y"]
                        lane = np.arange(num_lanes)
                        pixel = base + lane + lane // (num_lanes >> case["split_log2"]) * case["split_words"] * num_lanes
                        inside = pixel < case["seg_words"] * num_lanes
                        pixels = windows[n, z][:, np.minimum(pixel, case["seg_words"] * num_lanes - 1)]
                        acc[kernel, v] += np.where(inside, weights[s, z, kz, tap] * pixels, 0)
                        if weights[s, z, kz, tap]:
                            acc[kernel, v][:, ~inside] = 1 << 40
        expected.append(acc.reshape(num_kernels, num_vec * num_bytes, num_lanes))

    dut = Core(config)
    streams = [encode(weights[s].ravel(), case["run_bits"], config.port_bits) for s, _ in groups]

    async def jobs(ctx):
        for n, offset in enumerate(taps):
            ctx.set(dut.tap_write, {"en": 1, "bank": 0, "tap": n, "offset": int(offset)})
            await ctx.tick()
        ctx.set(dut.tap_write, TapWrite.const({}))
        ctx.set(dut.job.payload, {name: value for name, value in case.items()})
        ctx.set(dut.job.valid, 1)
        await ctx.tick().until(dut.job.ready)
        ctx.set(dut.job.valid, 0)

    async def beats(ctx):
        for stream in streams:
            for n, beat in enumerate(stream):
                if rand.random() < 0.3:
                    await ctx.tick().repeat(rand.randrange(1, 4))
                ctx.set(dut.beats.payload, {"data": beat, "last": n == len(stream) - 1})
                ctx.set(dut.beats.valid, 1)
                await ctx.tick().until(dut.beats.ready)
                ctx.set(dut.beats.valid, 0)

    free = [case["num_slots"]]

    async def watch_release(ctx):
        async for _, _, released in ctx.tick().sample(dut.window_released):
            free[0] += released

    async def fill(ctx):
        slot = 0
        num_words = case["seg_words"] * num_bytes
        for window in windows.reshape(-1, num_words, num_lanes):
            while not free[0]:
                await ctx.tick()
            free[0] -= 1
            for n, word in enumerate(window):
                ctx.set(dut.window_write, {"en": 1, "word": slot * num_words + n, "data": [int(pixel) & 255 for pixel in word]})
                ctx.set(dut.window_filled, 0)
                await ctx.tick()
            ctx.set(dut.window_write.en, 0)
            ctx.set(dut.window_filled, 1)
            slot = (slot + 1) % case["num_slots"]
            await ctx.tick()
            ctx.set(dut.window_filled, 0)

    num_done = [0]

    async def watch_done(ctx):
        async for _, _, done in ctx.tick().sample(dut.group_done):
            num_done[0] += done

    async def drain(ctx):
        num_chunks = num_lanes // config.post_lanes
        for n, (_, g) in enumerate(groups):
            for _ in range(20_000):
                if num_done[0] > n:
                    break
                await ctx.tick()
            assert num_done[0] > n, f"group {n} does not end"
            for kernel in range(num_kernels):
                for v in range((case["num_vec_last"] if g == case["num_groups"] - 1 else num_vec) * num_bytes):
                    for chunk in range(num_chunks):
                        ctx.set(dut.drain_en, 1)
                        ctx.set(dut.drain_entry, kernel * num_vec * num_bytes + v)
                        ctx.set(dut.drain_chunk, chunk)
                        ctx.set(dut.drain_clear, chunk == num_chunks - 1)
                        await ctx.tick()
                        ctx.set(dut.drain_en, 0)
                        ctx.set(dut.drain_clear, 0)
                        for _ in range(Core.DRAIN_CYCLES - 1):
                            await ctx.tick()
                        sums = ctx.get(dut.drain_sums)
                        for lane in range(config.post_lanes):
                            want = expected[n][kernel, v, chunk * config.post_lanes + lane]
                            if want < 1 << 30:
                                got = Const(sums >> (32 * lane) & 0xFFFFFFFF, 32).as_signed()
                                assert ctx.get(got) == want, (n, kernel, v, chunk, lane)
            ctx.set(dut.group_drained, 1)
            await ctx.tick()
            ctx.set(dut.group_drained, 0)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    for process in (beats, fill):
        sim.add_testbench(process, background=True)
    for process in (watch_release, watch_done):
        sim.add_testbench(process, background=True)
    sim.add_testbench(jobs)
    sim.add_testbench(drain)
    sim.run()
    assert num_done[0] == len(groups)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_core_computes_the_loops(case):
    check_core(case)
