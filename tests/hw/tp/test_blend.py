"""`BlendWeights` and `Blend`: weights of a window, and sums of its rows, worked out by hand."""

import pytest

from convoy.hw.tp.blend import Blend, BlendWeights
from convoy.verif.pysim import simulate

ONE = 1 << 10


@pytest.mark.parametrize(("y", "x"), [(0, 0), (ONE // 2, ONE // 4), (ONE - 1, ONE - 1), (1, 1023)])
def test_weights_of_a_window(y, x):
    """Together they are one, and each is the area opposite to its pixel."""
    dut, seen = BlendWeights(), []

    async def bench(ctx):
        ctx.set(dut.place, {"frac_y": y, "frac_x": x, "product": y * x})
        for is_row_0 in (1, 0):
            ctx.set(dut.is_row_0, is_row_0)
            await ctx.tick().repeat(dut.PIPELINE_CYCLES)
            seen.extend((ctx.get(dut.weight_0), ctx.get(dut.weight_1)))

    simulate(dut, bench)
    assert seen == [(ONE - y) * (ONE - x), (ONE - y) * x, y * (ONE - x), y * x]


@pytest.mark.parametrize(
    ("rows", "result"),
    [
        ([3 << 20, 4 << 20], 7),
        ([(1 << 19) - 1], 0),
        ([1 << 19], 1),
        ([-(1 << 19)], -1),
        ([-(1 << 19) + 1], 0),
        ([-(128 << 19), -(128 << 19)], -128),
    ],
)
def test_halves_are_rounded_away_from_zero(rows, result):
    """Two windows in a row: nothing is left of the first one."""
    dut, seen = Blend(), []

    async def watch(ctx):
        async for _, _, valid, value, last in ctx.tick().sample(dut.valid, dut.result, dut.result_last):
            if valid:
                seen.append((value, last))

    async def bench(ctx):
        ctx.set(dut.en, 1)
        for window in range(2):
            for number, row in enumerate(rows):
                ctx.set(dut.row, row)
                ctx.set(dut.window_last, number == len(rows) - 1)
                ctx.set(dut.last, window)
                await ctx.tick()
        ctx.set(dut.en, 0)
        await ctx.tick().repeat(5)

    simulate(dut, bench, background=[watch])
    assert seen == [(result, 0), (result, 1)]
