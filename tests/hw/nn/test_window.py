"""The window memory against the formula of its docstring."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.nn.window import WindowMemory
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import simulate


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.sampled_from([8, 16, 32]), st.sampled_from([16, 64]), st.integers(0, 99))
def test_vectors_of_any_place_and_shape(num_lanes, window_words, seed):
    config = NpuConfig(num_lanes=num_lanes, post_lanes=4, window_words=window_words)
    dut, rng = WindowMemory(config), random.Random(seed)
    size = num_lanes * window_words
    pixels = rng.randbytes(size)
    reads = [(rng.randrange(size), rng.randrange(3), rng.randrange(8)) for _ in range(30)]
    found = []

    async def testbench(ctx):
        ctx.set(dut.write.en, 1)
        for word in range(window_words):
            ctx.set(dut.write.word, word)
            ctx.set(dut.write.data, list(pixels[word * num_lanes :][:num_lanes]))
            await ctx.tick()
        ctx.set(dut.write.en, 0)
        for cycle in range(len(reads) + dut.READ_CYCLES):
            if cycle >= dut.READ_CYCLES:
                found.append([ctx.get(pixel) for pixel in dut.pixels])
            pixel, split_log2, split_words = reads[min(cycle, len(reads) - 1)]
            ctx.set(dut.pixel, pixel)
            ctx.set(dut.split_log2, split_log2)
            ctx.set(dut.split_words, split_words)
            await ctx.tick()

    simulate(dut, testbench)
    assert found == [
        [
            pixels[(pixel + lane + lane // (num_lanes >> split_log2) * split_words * num_lanes) % size]
            for lane in range(num_lanes)
        ]
        for pixel, split_log2, split_words in reads
    ]
