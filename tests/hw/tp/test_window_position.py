"""The chapters of `WindowWalk`, each against a line of Python."""

from itertools import groupby, pairwise, product

from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.tp.window_position import Axis, Loops, Multiplier, RowParts
from convoy.spec.isa import FRACTION_BITS

ONE = 1 << FRACTION_BITS
fractions = st.sampled_from([0, 1, ONE // 3, ONE // 2, ONE - 1])


def simulate(dut, bench):
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()


async def strobe(ctx, *signals):
    """A cycle with `signals` at 1."""
    for signal in signals:
        ctx.set(signal, 1)
    await ctx.tick()
    for signal in signals:
        ctx.set(signal, 0)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.booleans())
def test_loops_in_order(extents, is_pool):
    """One `next_*` per step, and `is_last` with the last one; twice, to see that a job leaves nothing behind."""
    dut = Loops()
    num_0, num_1, num_2 = extents
    places = list(product(range(num_0), range(num_1), range(num_2 if is_pool else 1)))
    expected = [
        (after[:2] == before[:2], after[0] == before[0] and after[1] != before[1], after[0] != before[0], False)
        for before, after in pairwise(places)
    ]
    expected.append((False, False, True, True))

    async def bench(ctx):
        ctx.set(dut.job, {"num_0": num_0, "num_1": num_1, "num_2": num_2})
        ctx.set(dut.is_pool, is_pool)
        await ctx.tick()
        for _ in range(2):
            await strobe(ctx, dut.load)
            seen = []
            ctx.set(dut.step, 1)
            for _ in places:
                seen.append(tuple(ctx.get(s) for s in (dut.next_col, dut.next_row, dut.next_plane, dut.is_last)))
                await ctx.tick()
            ctx.set(dut.step, 0)
            assert seen == [tuple(map(int, each)) for each in expected]

    simulate(dut, bench)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    start=st.integers(-6, 6),
    start_frac=fractions,
    stride=st.integers(0, 5),
    stride_frac=fractions,
    kernel=st.integers(1, 8),
    extent=st.integers(0, 12),
)
def test_an_axis_moves_and_clips(**fields):
    """Six places of an axis: where they are, and what of the window is inside the image."""
    dut = Axis()

    async def bench(ctx):
        for name, value in fields.items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.is_window, 1)
        await strobe(ctx, dut.restart)
        place = fields["start"] * ONE + fields["start_frac"]
        step = fields["stride"] * ONE + fields["stride_frac"]
        for _ in range(6):
            first, frac = place >> FRACTION_BITS, place % ONE
            window = range(first, first + fields["kernel"])
            inside = [pixel for pixel in window if 0 <= pixel < fields["extent"]]
            is_whole = first >= 0 and window.stop <= fields["extent"]
            assert ctx.get(dut.is_before) == (first < 0)
            assert ctx.get(dut.is_inside) == (0 <= first < fields["extent"])
            assert ctx.get(dut.frac) == (frac if is_whole else 0)
            assert ctx.get(dut.has_carry) == (frac + fields["stride_frac"] >= ONE)
            await strobe(ctx, dut.clip)
            assert max(0, ctx.get(dut.count)) == len(inside)
            assert not inside or ctx.get(dut.low) == inside[0]
            place += step
            await strobe(ctx, dut.advance)
        await strobe(ctx, dut.restart, dut.advance)
        assert ctx.get(dut.is_before) == (fields["start"] < 0)

    simulate(dut, bench)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(-9, 0), st.integers(0, 9), st.booleans())
def test_a_row_of_copy_in_parts(num_2, start_x, tile_iw, is_inside):
    """Runs of elements inside and outside the image, first to last, as soon as the latency allows."""
    dut = RowParts()
    outside = [not (is_inside and 0 <= start_x + col < tile_iw) for col in range(num_2)]
    expected = [(len(list(part)), int(is_fill)) for is_fill, part in groupby(outside)]

    async def bench(ctx):
        ctx.set(dut.job, {"num_2": num_2, "start_x": start_x, "tile_iw": tile_iw})
        ctx.set(dut.is_copy, 1)
        ctx.set(dut.is_inside, is_inside)
        await ctx.tick().repeat(3)
        for _ in range(2):
            await strobe(ctx, dut.clip)
            seen = []
            while True:
                seen.append((ctx.get(dut.num_cols), ctx.get(dut.is_fill)))
                has_more = ctx.get(dut.has_more)
                await strobe(ctx, dut.take)
                if not has_more:
                    break
            assert seen == expected

    simulate(dut, bench)


def test_the_product_waits_while_it_is_held():
    dut = Multiplier(factor_bits=10, product_bits=20)

    async def bench(ctx):
        ctx.set(dut.a, 3)
        ctx.set(dut.b, 5)
        await strobe(ctx, dut.take_a, dut.take_b)
        await ctx.tick()
        assert ctx.get(dut.product) == 3 * 5
        ctx.set(dut.is_held, 1)
        ctx.set(dut.a, 7)
        await strobe(ctx, dut.take_a)
        await ctx.tick()
        assert (ctx.get(dut.factor_a), ctx.get(dut.factor_b), ctx.get(dut.product)) == (7, 5, 3 * 5)
        ctx.set(dut.is_held, 0)
        await ctx.tick()
        assert ctx.get(dut.product) == 7 * 5

    simulate(dut, bench)
