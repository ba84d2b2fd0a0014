"""The requantiser against the formulas of docs/architecture.md in Python integers."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.post.requant import Requantiser
from convoy.spec.config import PRESETS
from convoy.spec.isa import FLOAT_PRODUCT_BITS, Rounding
from convoy.verif.pysim import simulate

WIDE_ROUNDINGS = [rounding for rounding in Rounding if rounding != Rounding.FLOAT]


def wrap(value):
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def expected(acc, param, rounding, zero_point_out, act_min, act_max):
    x = wrap(acc + param["bias"]) << param["shift_left"]
    r = param["shift_right"]
    if rounding == Rounding.DOUBLE:
        h = (wrap(x) * param["mult"] + (1 << 30)) >> 31
        y = (h + (1 << (r - 1)) - (h < 0)) >> r if r else h
    else:
        y = single(min(max(x, -1 << 31), (1 << 31) - 1) * param["mult"], r, rounding)
    return min(max(y + zero_point_out, act_min), act_max) & 0xFF


def single(product, r, rounding):
    """One rounding of the exact product, or two as in float32."""
    if rounding == Rounding.FLOAT:
        if not -1 << (FLOAT_PRODUCT_BITS - 1) <= product < 1 << (FLOAT_PRODUCT_BITS - 1):
            return product
        return int(np.rint(np.float32(product / 2.0 ** (31 + r))))
    return (product + (1 << (30 + r)) - (product < 0 and rounding == Rounding.SINGLE)) >> (31 + r)


def expected_wide(low, high, param, rounding, act_min, act_max):
    """From sums with bias that do not overflow; 16 bits."""
    acc, r = (low + param["bias_low"] + ((high + param["bias"]) << 8)) << param["shift_left"], param["shift_right"]
    if rounding == Rounding.DOUBLE:
        h = (acc * param["mult"] + (1 << 30)) >> 31
        y = (h + (1 << (r - 1)) - (h < 0)) >> r if r else h
    else:
        y = single(acc * param["mult"], r, rounding)
    return min(max(y, act_min), act_max) & 0xFFFF


def run(num_lanes, sets, rounding, zero_point_out=0, act_min=-128, act_max=127):
    """Outputs of `sets`, (accumulators, parameters) or None for a cycle without."""
    dut = Requantiser(PRESETS["Q"], num_lanes)
    seen = []

    async def bench(ctx):
        ctx.set(dut.rounding, rounding)
        ctx.set(dut.zero_point_out, zero_point_out)
        ctx.set(dut.act_min, act_min)
        ctx.set(dut.act_max, act_max)
        for cycle in range(len(sets) + dut.PIPELINE_CYCLES):
            entry = sets[cycle] if cycle < len(sets) else None
            ctx.set(dut.valid, entry is not None)
            if entry is not None:
                for i, acc in enumerate(entry[0]):
                    ctx.set(dut.accs[i], acc)
                for name, value in entry[1].items():
                    ctx.set(dut.param[name], value)
            _, _, valid, outs = await ctx.tick().sample(dut.out_valid, dut.outs)
            if cycle >= dut.PIPELINE_CYCLES:
                seen.append([outs[i] for i in range(num_lanes)] if valid else None)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    return seen


def check(num_lanes, sets, rounding, **scale):
    scale = {"zero_point_out": 0, "act_min": -128, "act_max": 127} | scale
    model = [entry and [expected(acc, entry[1], rounding, **scale) for acc in entry[0]] for entry in sets]
    assert run(num_lanes, sets, rounding, **scale) == model


int32 = st.one_of(
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.integers(-2000, 2000),
    st.sampled_from([-(1 << 31), (1 << 31) - 1, -1, 0, 1]),
)
mults = st.one_of(
    st.integers(1 << 30, (1 << 31) - 1),
    st.integers(0, (1 << 31) - 1),
    st.sampled_from([1 << 30, 3 << 29, (1 << 31) - 1]),
)
params = st.fixed_dictionaries(
    {"bias": int32, "mult": mults, "shift_left": st.integers(0, 7), "shift_right": st.integers(0, 31)}
)


def run_wide(pairs, rounding, act_min=-(1 << 15), act_max=(1 << 15) - 1):
    """Outputs of `pairs` of sums, (low, high, parameters) or None for a cycle without."""
    dut = Requantiser(PRESETS["Q"], 1)
    cycles = []
    for pair in pairs:
        if pair is None:
            cycles.append(None)
        else:
            low, high, param = pair
            scale = {name: param[name] for name in ("mult", "shift_left", "shift_right")}
            cycles += [(1, low, scale | {"bias": param["bias_low"]}), (0, high, scale | {"bias": param["bias"]})]
    seen = []

    async def bench(ctx):
        ctx.set(dut.is_wide, 1)
        ctx.set(dut.rounding, rounding)
        ctx.set(dut.act_min, act_min)
        ctx.set(dut.act_max, act_max)
        for cycle in range(len(cycles) + dut.PIPELINE_CYCLES):
            entry = cycles[cycle] if cycle < len(cycles) else None
            ctx.set(dut.valid, entry is not None)
            if entry is not None:
                ctx.set(dut.is_low, entry[0])
                ctx.set(dut.accs[0], entry[1])
                for name, value in entry[2].items():
                    ctx.set(dut.param[name], value)
            _, _, valid, outs = await ctx.tick().sample(dut.out_valid, dut.outs)
            if cycle >= dut.PIPELINE_CYCLES and valid:
                seen.append(outs[0])

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    assert len(seen) == 2 * sum(pair is not None for pair in pairs)
    return [low | high << 8 for low, high in zip(seen[::2], seen[1::2], strict=True)]


@pytest.mark.parametrize("rounding", Rounding)
def test_ties(rounding):
    """0.5, 1.5, ... after a scale of 2**-1 .. 2**-5, both signs: away from zero, up, or to even."""
    sets = [
        ([acc, -acc], {"bias": 0, "mult": 1 << 30, "shift_left": 0, "shift_right": r})
        for r in range(5)
        for acc in range(70)
    ]
    outs = run(2, sets, rounding)
    is_even = rounding == Rounding.FLOAT
    assert [out[0] for out in outs[:8]] == ([0, 0, 1, 2, 2, 2, 3, 4] if is_even else [0, 1, 1, 2, 2, 3, 3, 4])
    assert outs[7][1] == (0x100 - 4 if is_even or rounding == Rounding.SINGLE else 0x100 - 3)
    check(2, sets, rounding)


@pytest.mark.parametrize("rounding", Rounding)
def test_every_right_shift_around_ties(rounding):
    """1/2 and 3/2, some halves of the unit that the first of two roundings leaves more or less, and the least bit of
    such a product; both signs.
    """
    sets = []
    for shift_right in range(29):
        unit = min(30, shift_right)  # of the factor
        for odd in (1, 3):
            tie = odd << (30 + shift_right - unit)
            for halves in range(-3, 4):
                for least in (-1, 0, 1):
                    acc = tie + (halves << (30 - unit)) + least
                    scale = {"bias": 0, "mult": 1 << unit, "shift_left": 0, "shift_right": shift_right}
                    sets.append(([wrap(acc), wrap(-acc)], scale))
    check(2, sets, rounding)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.data(), st.sampled_from([1, 2, 4]), st.sampled_from(Rounding))
def test_matches_formula(data, num_lanes, rounding):
    accs = st.lists(int32, min_size=num_lanes, max_size=num_lanes)
    sets = data.draw(st.lists(st.one_of(st.none(), st.tuples(accs, params)), min_size=1, max_size=24))
    act_min, act_max = sorted([data.draw(st.integers(-128, 127)), data.draw(st.integers(-128, 127))])
    check(num_lanes, sets, rounding, zero_point_out=data.draw(st.integers(-128, 127)), act_min=act_min, act_max=act_max)


@settings(deadline=None, max_examples=12, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 31), st.integers(-2, 2), mults),
        min_size=30,
        max_size=30,
    ),
    st.sampled_from(Rounding),
)
def test_small_results_and_near_ties(entries, rounding):
    """Accumulators chosen so that the result is near a tie of an 8-bit output."""
    sets = []
    for seed, shift_right, nudge, mult in entries:
        acc = (2 * (seed % 256 - 128) + 1) * (1 << (30 + shift_right)) // max(mult, 1) + nudge
        sets.append(([wrap(acc)], {"bias": 0, "mult": mult, "shift_left": 0, "shift_right": shift_right}))
    check(1, sets, rounding)


@pytest.mark.parametrize("rounding", Rounding)
def test_left_shifts_at_the_ends_of_32_bits(rounding):
    """Sums whose shifted value is just inside and just outside: one rounding saturates, two wrap."""
    sets = []
    for shift_left in range(8):
        end = 1 << (31 - shift_left)
        values = [min(value, (1 << 31) - 1) for value in (end - 1, end, end + 1, 2 * end - 1)] + [
            -end,
            max(-end - 1, -1 << 31),
            max(-2 * end, -1 << 31),
        ]
        sets += [
            ([value], {"bias": 0, "mult": 1 << 30, "shift_left": shift_left, "shift_right": 24}) for value in values
        ]
    check(1, sets, rounding)
    if rounding in (Rounding.SINGLE, Rounding.HALF_UP):
        assert run(1, [([1 << 30], {"bias": 0, "mult": 1 << 30, "shift_left": 1, "shift_right": 24})], rounding) == [
            [64]
        ]


def test_any_bit_below_makes_a_tie_none():
    """-1/2 and the least bits more: the exact tie goes away from zero, with any lower bit of the product set it goes
    up; of single sums and of pairs.
    """
    scale = {"bias": 0, "bias_low": 0, "shift_left": 0, "shift_right": 0}
    near = [(1 - (1 << (30 - bit)), scale | {"mult": 1 << bit}) for bit in range(30)]
    tie = -(1 << 10), scale | {"mult": 1 << 20}
    assert run(
        1,
        [([acc], {name: value for name, value in param.items() if name != "bias_low"}) for acc, param in [*near, tie]],
        Rounding.SINGLE,
    ) == [[0]] * 30 + [[0xFF]]
    assert run_wide([(acc & 255, acc >> 8, param) for acc, param in [*near, tie]], Rounding.SINGLE) == [0] * 30 + [
        0xFFFF
    ]


def near_ties():
    """Sums and float32 factors, as significand and exponent, of which the product is next to a tie: all ties that an
    output can see, the factors that float32 has there and their neighbours, small and large sums.
    """
    rng = np.random.default_rng(5)
    for value in range(-256, 256):
        for bits in (1, 5, 9, 12, 15, 24):
            acc = int(rng.integers(1 << (bits - 1), 1 << bits)) * (1 if value >= 0 else -1)
            significand, exponent = np.frexp((value + 0.5) / acc)
            for nudge in (-1, 0, 1):
                mult = round(significand * (1 << 24)) + nudge
                if -16 <= exponent <= 7 and 1 << 23 <= mult < 1 << 24:
                    yield acc, mult, int(exponent)


def test_float_is_exact_around_all_ties():
    """As numpy computes in float32; among them sums that a single rounding gets wrong, in both directions."""
    sets, outs, single_differs = [], [], set()
    for acc, mult, exponent in near_ties():
        up = min(max(exponent + 7, 0), 7)
        shift = exponent + 7 - up
        sets.append(
            ([acc], {"bias": 0, "mult": mult << up, "shift_left": max(shift, 0), "shift_right": max(-shift, 0)})
        )
        value = int(np.rint(np.float32(acc) * np.float32(mult * 2.0 ** (exponent - 24))))
        outs.append([min(max(value, -128), 127) & 0xFF])
        exact = acc * mult * 2 * 2.0 ** (exponent - 24)
        if exact != 2 * value and abs(exact - 2 * value) > 1:
            single_differs.add(exact > 2 * value)
    assert run(1, sets, Rounding.FLOAT) == outs
    assert single_differs == {False, True}


def test_float_product_that_is_too_long():
    """The last products that count, and those beyond, of small scales; the last ones of the largest."""
    limit = 1 << (FLOAT_PRODUCT_BITS - 1)
    sums = [limit // (1 << 24) - 1, limit // (1 << 24), -limit // (1 << 24), -limit // (1 << 24) - 1]
    sets = [
        ([acc], {"bias": 0, "mult": 1 << 24, "shift_left": 0, "shift_right": shift_right})
        for shift_right in range(24, 32)
        for acc in sums
    ]
    assert run(1, sets, Rounding.FLOAT) == [[0], [127], [0], [0x80]] * 8
    scale = {"bias": 0, "mult": (1 << 31) - 1, "shift_left": 0, "shift_right": 0}
    assert run(1, [([acc], scale) for acc in (limit >> 31, -(limit >> 31))], Rounding.FLOAT) == [[127], [0x80]]


def test_unsigned_outputs():
    """uint8: zero point and clamps up to 255."""
    sets = [([acc], {"bias": 3, "mult": 1 << 30, "shift_left": 1, "shift_right": 0}) for acc in (-400, -3, 0, 100, 300)]
    assert [out[0] for out in run(1, sets, Rounding.DOUBLE, zero_point_out=128, act_min=0, act_max=255)] == [
        0,
        128,
        131,
        231,
        255,
    ]


def test_pairs_by_hand():
    """Halves of 16-bit sums: 0x234; -1 as low 255 and high -1, whose half is a tie; clamped ends; a bias over both."""
    param = {"bias": 0, "bias_low": 0, "mult": 1 << 30, "shift_left": 0, "shift_right": 0}
    pairs = [
        (0x34, 2, param),
        None,
        (255, -1, param),
        (0, 1 << 20, param),
        (0, -(1 << 20), param),
        (1, 0, param | {"bias": -1, "bias_low": 253}),
    ]
    assert run_wide(pairs, Rounding.SINGLE) == [0x11A, 0xFFFF, 0x7FFF, 0x8000, 0xFFFF]
    assert run_wide(pairs, Rounding.HALF_UP) == [0x11A, 0, 0x7FFF, 0x8000, 0xFFFF]


@pytest.mark.parametrize(
    ("is_interleaved", "first", "second"), [(0, (1, 3, 5, 7), (2, 4, 6, 8)), (1, (1, 2, 3, 4), (5, 6, 7, 8))]
)
def test_order_of_the_bytes_of_pairs(is_interleaved, first, second):
    """0x201, 0x403, 0x605 and 0x807, twice without a gap: all low bytes and all high bytes, or output by output."""
    dut, outs = Requantiser(PRESETS["Q"], 4), []

    async def bench(ctx):
        for name, value in {
            "is_wide": 1,
            "is_interleaved": is_interleaved,
            "rounding": Rounding.HALF_UP,
            "act_min": -(1 << 15),
            "act_max": (1 << 15) - 1,
        }.items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.param.mult, 1 << 30)
        for cycle in range(4 + dut.PIPELINE_CYCLES):
            is_low = 1 - cycle % 2
            ctx.set(dut.valid, cycle < 4)
            ctx.set(dut.is_low, is_low)
            for lane, value in enumerate((0x201, 0x403, 0x605, 0x807)):
                ctx.set(dut.accs[lane], 2 * value & 255 if is_low else 2 * value >> 8)
            _, _, valid, lanes = await ctx.tick().sample(dut.out_valid, dut.outs)
            if valid:
                outs.append(tuple(lanes))

    simulate(dut, bench)
    assert outs == [first, second] * 2


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.data(), st.sampled_from(WIDE_ROUNDINGS))
def test_pairs_match_formula(data, rounding):
    high_limit = 1 << (22 if rounding == Rounding.DOUBLE else 30)
    highs = st.one_of(st.integers(-high_limit, high_limit), st.integers(-300, 300))
    lows = (
        st.one_of(st.integers(0, (1 << 31) - 256), st.integers(0, 255))
        if rounding != Rounding.DOUBLE
        else st.integers(0, 1 << 30)
    )
    scales = st.fixed_dictionaries(
        {
            "bias": st.integers(-(1 << 10), 1 << 10),
            "bias_low": st.integers(0, 255),
            "mult": mults,
            "shift_left": st.just(0),
            "shift_right": st.integers(0, 31),
        }
    )
    pairs = data.draw(st.lists(st.one_of(st.none(), st.tuples(lows, highs, scales)), min_size=1, max_size=24))
    act_min, act_max = sorted(data.draw(st.tuples(*[st.integers(-(1 << 15), (1 << 15) - 1)] * 2)))
    assert run_wide(pairs, rounding, act_min, act_max) == [
        expected_wide(*pair, rounding, act_min, act_max) for pair in pairs if pair is not None
    ]


@settings(deadline=None, max_examples=10, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(-32769, 32768), st.integers(0, 31), st.integers(-2, 2), mults), min_size=30, max_size=30
    ),
    st.sampled_from(WIDE_ROUNDINGS),
)
def test_pairs_near_ties(entries, rounding):
    """Sums chosen so that the result is near a tie of a 16-bit output."""
    pairs = []
    for value, shift_right, nudge, mult in entries:
        acc = (2 * value + 1) * (1 << (30 + shift_right)) // max(mult, 1) + nudge
        limit = (1 << 30) if rounding == Rounding.DOUBLE else (1 << 37)
        acc = min(max(acc, -limit), limit)
        pairs.append(
            (acc & 255, acc >> 8, {"bias": 0, "bias_low": 0, "mult": mult, "shift_left": 0, "shift_right": shift_right})
        )
    assert run_wide(pairs, rounding) == [expected_wide(*pair, rounding, -(1 << 15), (1 << 15) - 1) for pair in pairs]


def test_pairs_are_shifted_left_first():
    param = {"bias": 1, "bias_low": 7, "mult": 3 << 29, "shift_left": 3, "shift_right": 0}
    pairs = [(n * 77 & 0xFFF, n - 20, param) for n in range(40)]
    for rounding in WIDE_ROUNDINGS:
        assert run_wide(pairs, rounding) == [
            expected_wide(*pair, rounding, -(1 << 15), (1 << 15) - 1) for pair in pairs
        ]
