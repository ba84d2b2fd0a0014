"""The end of a bilinear interpolation."""

from convoy.hw.tp.blend import Blend
from convoy.spec.cycles import BLEND_CYCLES
from convoy.spec.isa import FRACTION_BITS
from convoy.verif.pysim import simulate


def test_rows_are_added_and_rounded():
    """Two rows a window, one after another; halves go away from zero."""
    dut, one = Blend(), 1 << (2 * FRACTION_BITS)
    windows, results = (
        [((3 * one, 2 * one), 5), ((one, one // 2), 2), ((-one, -one // 2), -2), ((0, one // 2 - 1), 0)],
        [],
    )
    rows = [(row, number % 2) for number, row in enumerate(row for pair, _ in windows for row in pair)]

    async def bench(ctx):
        for cycle in range(len(rows) + BLEND_CYCLES):
            row, is_last = rows[cycle] if cycle < len(rows) else (0, 0)
            ctx.set(dut.en, cycle < len(rows))
            ctx.set(dut.row, row)
            ctx.set(dut.window_last, is_last)
            _, _, valid, result = await ctx.tick().sample(dut.valid, dut.result)
            if valid:
                results.append((cycle, result))

    simulate(dut, bench)
    assert results == [(2 * number + 1 + BLEND_CYCLES, result) for number, (_, result) in enumerate(windows)]
