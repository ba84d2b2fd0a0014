"""The scaler against its formula, with room for every value and narrow."""

import random

import pytest

from convoy.hw.post.add import ScaleDown
from convoy.verif.pysim import simulate


def scaled(x, mult, drop_bits, shift):
    """Rounded by `drop_bits`, ties up, then by `shift`, ties away from zero."""
    h = (x * mult + (1 << (drop_bits - 1))) >> drop_bits
    return (h + (1 << (shift - 1)) - (h < 0)) >> shift if shift else h


@pytest.mark.parametrize("y_bits", [None, 10, 17, 31])
def test_products_are_rounded_and_saturated(y_bits):
    rng = random.Random(y_bits)
    dut = ScaleDown(x_bits=32, drop_bits=31, y_bits=y_bits)
    top = 1 << (len(dut.y) - 1)

    async def bench(ctx):
        for shift in range(32):
            ctx.set(dut.shift, shift)
            xs = [rng.randrange(-1 << bits, 1 << bits) for bits in range(32) for _ in range(2)]
            # At both ends of the range, and one beyond.
            ends = (value << (shift + 1) for value in (-top - 1, -top, top - 1, top))
            xs += [min(max(end, -1 << 31), (1 << 31) - 1) for end in ends]
            mults = [rng.choice((1 << 30, rng.randrange(1 << 30, 1 << 31))) for _ in xs]
            found = []
            for cycle in range(len(xs) + dut.PIPELINE_CYCLES):
                ctx.set(dut.x, xs[min(cycle, len(xs) - 1)])
                ctx.set(dut.mult, mults[min(max(cycle - 1, 0), len(xs) - 1)] << (3 - shift % 4))
                if cycle >= dut.PIPELINE_CYCLES:
                    found.append(ctx.get(dut.y))
                await ctx.tick()
            exact = [scaled(x, mult, 31, shift) for x, mult in zip(xs, mults, strict=True)]
            for y, value in zip(found, exact, strict=True):
                has_room = -top <= value < top
                assert y == value if has_room else (y < -top // 2 if value < 0 else y >= top // 2)

    simulate(dut, bench)
