"""The divider and the reduction of windows."""

import random

import pytest
from amaranth.sim import Simulator

from convoy.hw.tp.pool import Average, PoolReduce
from convoy.spec.cycles import POOL_CYCLES
from convoy.spec.isa import TpOp


def rounded(total, count):
    """total / count, half away from zero."""
    magnitude = (2 * abs(total) + count) // (2 * count)
    return -magnitude if total < 0 else magnitude


def simulate(dut, *benches):
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


def test_average_rounds_half_away_from_zero_and_takes_its_cycles():
    dut = Average()
    rng = random.Random(1)
    by_hand = [
        ((5, 2), 3),
        ((-5, 2), -3),
        ((1, 3), 0),
        ((-2, 3), -1),
        ((0, 7), 0),
        ((-128 * 32768, 32768), -128),
        ((127 * 125, 125), 127),
    ]
    counts = [rng.choice([1, 2, 4, 25, 125, 32768]) for _ in range(40)]
    cases = by_hand + [
        ((total, count), rounded(total, count))
        for count in counts
        for total in [rng.randint(-128 * count, 127 * count)]
    ]

    async def bench(ctx):
        for (total, count), expected in cases:
            ctx.set(dut.total, total)
            ctx.set(dut.count, count)
            ctx.set(dut.en, 1)
            await ctx.tick()
            ctx.set(dut.en, 0)
            for _ in range(dut.CYCLES - 1):
                assert not ctx.get(dut.valid)
                await ctx.tick()
            assert ctx.get(dut.valid)
            assert ctx.get(dut.quotient) == expected

    simulate(dut, bench)


def test_average_rounds_halves_up():
    """As averages of uint8 do, less 128: every total of up to five pixels around zero, and the ends of the range."""
    dut = Average()
    by_hand = [
        ((5, 2), 3),
        ((-5, 2), -2),
        ((-6, 4), -1),
        ((-7, 4), -2),
        ((-128 * 125, 125), -128),
        ((-128 * 4 + 2, 4), -127),
    ]
    cases = by_hand + [
        ((total, count), (2 * total + count) // (2 * count)) for count in range(1, 6) for total in range(-11, 12)
    ]

    async def bench(ctx):
        ctx.set(dut.is_half_up, 1)
        for (total, count), expected in cases:
            ctx.set(dut.total, total)
            ctx.set(dut.count, count)
            ctx.set(dut.en, 1)
            await ctx.tick()
            ctx.set(dut.en, 0)
            await ctx.tick().repeat(dut.CYCLES - 1)
            assert ctx.get(dut.quotient) == expected

    simulate(dut, bench)


def test_wide_averages_after_narrow_ones():
    """Each takes its own number of cycles, and nothing of one is left for the next."""
    dut = Average()
    by_hand = [
        ((5, 2), 3),
        ((-5, 2), -3),
        ((-32768 * 65535, 65535), -32768),
        ((32767 * 49, 49), 32767),
        ((98301, 3), 32767),
        ((-98303, 3), -32768),
    ]
    rng = random.Random(2)
    counts = [rng.choice([1, 3, 4, 49, 49, 1000, 65535]) for _ in range(40)]
    cases = by_hand + [
        ((total, count), rounded(total, count))
        for count in counts
        for total in [rng.randint(-32768 * count, 32767 * count)]
    ]

    async def bench(ctx):
        for (total, count), expected in cases:
            for is_wide, dividend, quotient in ((0, 127 * count, 127), (1, total, expected)):
                ctx.set(dut.is_wide, is_wide)
                ctx.set(dut.total, dividend)
                ctx.set(dut.count, count)
                ctx.set(dut.en, 1)
                await ctx.tick()
                ctx.set(dut.en, 0)
                for _ in range((dut.WIDE_CYCLES if is_wide else dut.CYCLES) - 1):
                    assert not ctx.get(dut.valid)
                    await ctx.tick()
                assert ctx.get(dut.valid)
                assert ctx.get(dut.quotient) == quotient
                await ctx.tick()

    simulate(dut, bench)


def test_an_average_per_cycle():
    """Averages of int8 follow one another without a gap, each with its own divisor and tag."""
    dut = Average()
    rng = random.Random(3)
    counts = [rng.choice([1, 4, 6, 9, 25, 32768]) for _ in range(60)]
    cases = [(rng.randint(-128 * count, 127 * count), count, rng.randint(0, 1)) for count in counts]

    async def feed(ctx):
        ctx.set(dut.en, 1)
        for total, count, last in cases:
            ctx.set(dut.total, total)
            ctx.set(dut.count, count)
            ctx.set(dut.last, last)
            await ctx.tick()
        ctx.set(dut.en, 0)

    async def watch(ctx):
        await ctx.tick().repeat(dut.CYCLES)
        for total, count, last in cases:
            assert ctx.get(dut.valid)
            assert (ctx.get(dut.quotient), ctx.get(dut.quotient_last)) == (rounded(total, count), last)
            await ctx.tick()
        assert not ctx.get(dut.valid)

    simulate(dut, feed, watch)


def test_maximum_of_back_to_back_windows_ignores_unused_lanes():
    dut = PoolReduce(num_lanes=4)
    windows = [[(-7, -3, 100, 100), 2], [(-100, -90, -80, -70), 4], [(5, 120, 120, 120), 1], [(-128, 0, 0, 0), 1]]

    async def bench(ctx):
        ctx.set(dut.job, {"op": TpOp.MAX_POOL, "act_min": -100, "act_max": 4})
        results, first_cycle = [], None
        for cycle, (values, count) in enumerate([*windows, *[[(0, 0, 0, 0), 0]] * POOL_CYCLES]):
            ctx.set(dut.en, count > 0)
            ctx.set(dut.bytes, [list(values), [0] * 4])
            ctx.set(dut.counts, [count, 0])
            ctx.set(dut.window_last, 1)
            ctx.set(dut.last, values == windows[-1][0])
            _, _, valid, result, last = await ctx.tick().sample(dut.valid, dut.result, dut.result_last)
            if valid:
                first_cycle = first_cycle if results else cycle
                results.append((result, last))
        assert first_cycle == POOL_CYCLES
        assert results == [(-3, 0), (-70, 0), (4, 0), (-100, 1)]

    simulate(dut, bench)


@pytest.mark.parametrize(("op", "is_wide"), [(TpOp.MAX_POOL, 0), (TpOp.MAX_POOL, 1), (TpOp.MEAN, 0), (TpOp.MEAN, 1)])
def test_both_halves_of_a_group(op, is_wide):
    """Windows of one to three groups: twice the elements of int8, or high bytes; the extremes are among them."""
    dut, rng = PoolReduce(num_lanes=4), random.Random(4)
    low, high = (-(1 << 15), (1 << 15) - 1) if is_wide else (-128, 127)
    zero_point = 0 if is_wide else -128
    groups, expected = [], []
    for length in [1, 4, 3, 5, 8, 13, 24, 2, 16] * 4:
        size = min(length, 12) if is_wide else length
        window = [rng.choice([low, low, low + 1, high, rng.randint(low, high)]) for _ in range(size)]
        expected.append(max(window) if op is TpOp.MAX_POOL else sum(window) - size * zero_point)
        step = 4 if is_wide else 8
        for first in range(0, size, step):
            part = window[first : first + step]
            pairs = [[each & 255 for each in part], [each >> 8 for each in part]] if is_wide else [part[:4], part[4:]]
            pairs = [[each - 256 * (each > 127) for each in half] + [99] * (4 - len(half)) for half in pairs]
            groups.append((pairs, (min(len(part), 4), max(len(part) - 4, 0)), first + step >= size))

    async def bench(ctx):
        ctx.set(dut.job, {"op": op, "is_wide": is_wide, "act_min": low, "act_max": high, "a_zero_point": zero_point})
        found = []
        for cycle in range(len(groups) + POOL_CYCLES):
            halves, counts, is_last = groups[min(cycle, len(groups) - 1)]
            ctx.set(dut.en, cycle < len(groups))
            ctx.set(dut.bytes, halves)
            ctx.set(dut.counts, list(counts))
            ctx.set(dut.window_last, is_last)
            signals = (dut.valid, dut.result) if op is TpOp.MAX_POOL else (dut.total_en, dut.total)
            _, _, valid, value = await ctx.tick().sample(*signals)
            found += [value] * valid
        assert found == expected

    simulate(dut, bench)
