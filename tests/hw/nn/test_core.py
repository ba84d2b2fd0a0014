"""The core against the loops of docs/architecture.md: random weights, windows, geometries and arrival times."""

import random
from itertools import product

import numpy as np
from amaranth.hdl import Const
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.nn.core import CORE_FIELDS, Core
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
    config = NpuConfig(
        num_cores=1,
        num_lanes=draw(st.sampled_from([8, 16])),
        num_acc_entries=16,
        port_bits=draw(st.sampled_from([32, 64, 128])),
        window_words=32,
        weight_fifo_beats=32,
        post_lanes=draw(st.sampled_from([1, 2, 4])),
    )
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
        config=config,
        is_depthwise=int(is_depthwise),
        is_wide=int(is_wide),
        num_vec=num_vec,
        num_vec_last=draw(st.integers(1, num_vec)),
        num_z=num_z,
        num_z_last=num_z,
        kernels_per_z=kernels_per_z,
        kernels_per_z_last=kernels_per_z,
        num_taps=num_taps,
        run_bits=draw(st.integers(0, min(MAX_RUN_BITS, limit.bit_length() - 1))),
        num_sb=draw(st.integers(1, 2)),
        num_groups=draw(st.integers(1, 3)),
        group_step=draw(st.integers(0, 40)),
        num_phases=1,
        seg_words=draw(st.integers(6, 8 if is_wide else 16)),
        num_slots=draw(st.integers(1, 2)),
        num_vec_x=draw(st.integers(1, num_vec)),
        step_vec_x=draw(st.integers(0, 9)),
        step_vec_y=draw(st.integers(0, 9)),
        wgt_zero_point=draw(st.sampled_from([0, 0, -128, 127, -3])),
        split_log2=split,
        split_words=draw(st.integers(0, 1)) if split else 0,
        density=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        seed=draw(st.integers(0, 1 << 16)),
    )


class Scenario:
    """What a core is given: random taps, weights and windows of a case."""

    def __init__(self, case):
        self.fields = dict(case)
        self.config, density, self.seed = (self.fields.pop(name) for name in ("config", "density", "seed"))
        fields, rng = self.fields, np.random.default_rng(self.seed)
        self.taps = rng.integers(0, 24, fields["num_taps"])
        shape = (fields["num_sb"], fields["num_z"], fields["kernels_per_z"], fields["num_taps"])
        self.weights = np.where(
            rng.random(shape) < density, rng.integers(-128, 128, shape) - fields["wgt_zero_point"], 0
        )
        self.num_kernels = fields["kernels_per_z"] * (fields["num_z"] if fields["is_depthwise"] else 1)
        self.groups = [(s, g) for s in range(fields["num_sb"]) for g in range(fields["num_groups"])]
        self.num_bytes = 1 + fields["is_wide"]
        self.windows = rng.integers(
            -128, 128, (len(self.groups), fields["num_z"], self.num_bytes, fields["seg_words"] * self.config.num_lanes)
        )
        if fields["is_wide"]:
            self.windows[:, :, 0] &= 255

    def num_vec(self, group):
        """Lane vectors of a group."""
        return self.fields["num_vec_last" if group == self.fields["num_groups"] - 1 else "num_vec"]

    def pixels(self, group, vec, tap):
        """The pixel of each lane."""
        fields, num_lanes = self.fields, self.config.num_lanes
        base = (group * fields["group_step"]) % num_lanes + self.taps[tap]
        base += vec % fields["num_vec_x"] * fields["step_vec_x"] + vec // fields["num_vec_x"] * fields["step_vec_y"]
        lane = np.arange(num_lanes)
        return base + lane + lane // (num_lanes >> fields["split_log2"]) * fields["split_words"] * num_lanes

    def sums(self, n):
        """The accumulators of group n by the loops of docs/architecture.md; those of lanes beyond the window are
        huge.
        """
        fields, num_lanes, (s, g) = self.fields, self.config.num_lanes, self.groups[n]
        num_pixels = fields["seg_words"] * num_lanes
        acc = np.zeros((self.num_kernels, fields["num_vec"], self.num_bytes, num_lanes), np.int64)
        for z, kz, v, tap in product(
            *map(range, (fields["num_z"], fields["kernels_per_z"], self.num_vec(g), fields["num_taps"]))
        ):
            kernel, weight = (
                z * fields["kernels_per_z"] + kz if fields["is_depthwise"] else kz,
                self.weights[s, z, kz, tap],
            )
            pixel = self.pixels(g, v, tap)
            inside = pixel < num_pixels
            acc[kernel, v] += np.where(inside, weight * self.windows[n, z][:, np.minimum(pixel, num_pixels - 1)], 0)
            if weight:
                acc[kernel, v][:, ~inside] = 1 << 40
        return acc.reshape(self.num_kernels, fields["num_vec"] * self.num_bytes, num_lanes)


class Bench:
    """A core, what feeds it, and what drains it and compares."""

    def __init__(self, scenario):
        self.scenario, self.dut, self.rand = scenario, Core(scenario.config), random.Random(scenario.seed)
        self.num_free, self.num_done = scenario.fields["num_slots"], 0

    def run(self):
        sim = Simulator(self.dut)
        sim.add_clock(1e-8)
        for process in (self.beats, self.fill, self.watch_release, self.watch_done):
            sim.add_testbench(process, background=True)
        for process in (self.jobs, self.drain):
            sim.add_testbench(process)
        sim.run()
        assert self.num_done == len(self.scenario.groups)

    async def jobs(self, ctx):
        dut = self.dut
        for taps_left, offset in enumerate(reversed(self.scenario.taps)):
            ctx.set(dut.tap_write, {"en": 1, "bank": 0, "taps_left": taps_left, "offset": int(offset)})
            await ctx.tick()
        ctx.set(dut.tap_write, TapWrite.const({}))
        ctx.set(dut.job.payload, {name: self.scenario.fields[name] for name in CORE_FIELDS})
        ctx.set(dut.job.valid, 1)
        await ctx.tick().until(dut.job.ready)
        ctx.set(dut.job.valid, 0)

    async def beats(self, ctx):
        dut, scenario = self.dut, self.scenario
        last_sb, last_group = scenario.groups[-1]
        for s, group in scenario.groups:
            flags = {"is_last_group": group == last_group, "is_last_sb": s == last_sb}
            stream = encode(scenario.weights[s].ravel(), scenario.fields["run_bits"], scenario.config.port_bits)
            for n, beat in enumerate(stream):
                if self.rand.random() < 0.3:
                    await ctx.tick().repeat(self.rand.randrange(1, 4))
                ctx.set(dut.beats.payload, flags | {"data": beat, "last": n == len(stream) - 1})
                ctx.set(dut.beats.valid, 1)
                await ctx.tick().until(dut.beats.ready)
                ctx.set(dut.beats.valid, 0)

    async def watch_release(self, ctx):
        async for _, _, released in ctx.tick().sample(self.dut.window_released):
            self.num_free += released

    async def fill(self, ctx):
        dut, scenario, slot = self.dut, self.scenario, 0
        num_words = scenario.fields["seg_words"] * scenario.num_bytes
        for window in scenario.windows.reshape(-1, num_words, scenario.config.num_lanes):
            while not self.num_free:
                await ctx.tick()
            self.num_free -= 1
            for n, word in enumerate(window):
                ctx.set(
                    dut.window_write,
                    {"en": 1, "word": slot * num_words + n, "data": [int(pixel) & 255 for pixel in word]},
                )
                ctx.set(dut.window_filled, 0)
                await ctx.tick()
            ctx.set(dut.window_write.en, 0)
            ctx.set(dut.window_filled, 1)
            slot = (slot + 1) % scenario.fields["num_slots"]
            await ctx.tick()
            ctx.set(dut.window_filled, 0)

    async def watch_done(self, ctx):
        async for _, _, done in ctx.tick().sample(self.dut.group_done):
            self.num_done += done

    async def drain(self, ctx):
        scenario = self.scenario
        for n, (_, g) in enumerate(scenario.groups):
            for _ in range(20_000):
                if self.num_done > n:
                    break
                await ctx.tick()
            assert self.num_done > n, f"group {n} does not end"
            expected, num_entries = scenario.sums(n), scenario.num_vec(g) * scenario.num_bytes
            for kernel, v in product(range(scenario.num_kernels), range(num_entries)):
                await self.drain_entry(ctx, kernel * expected.shape[1] + v, expected[kernel, v], (n, kernel, v))
            ctx.set(self.dut.group_drained, 1)
            await ctx.tick()
            ctx.set(self.dut.group_drained, 0)

    async def drain_entry(self, ctx, entry, expected, name):
        """Read an accumulator entry chunk by chunk, clear it, and compare the lanes within the window."""
        dut, post_lanes = self.dut, self.scenario.config.post_lanes
        num_chunks = len(expected) // post_lanes
        for chunk in range(num_chunks):
            ctx.set(dut.drain_en, 1)
            ctx.set(dut.drain_entry, entry)
            ctx.set(dut.drain_chunk, chunk)
            ctx.set(dut.drain_clear, chunk == num_chunks - 1)
            await ctx.tick()
            ctx.set(dut.drain_en, 0)
            ctx.set(dut.drain_clear, 0)
            for _ in range(Core.DRAIN_CYCLES - 1):
                await ctx.tick()
            sums = ~ctx.get(dut.drain_inverted)
            for lane in range(post_lanes):
                want = expected[chunk * post_lanes + lane]
                if want < 1 << 30:
                    got = Const(sums >> (32 * lane) & 0xFFFFFFFF, 32).as_signed()
                    assert ctx.get(got) == want, (*name, chunk, lane)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_core_computes_the_loops(case):
    Bench(Scenario(case)).run()
