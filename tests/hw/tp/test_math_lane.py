"""The arithmetic lanes against TFLite's arithmetic in plain integers."""

import random

import pytest
from amaranth.sim import Simulator

from convoy.hw.post.add import AddLane
from convoy.hw.tp.math_lane import MathLane
from convoy.spec.isa import TpOp


def high_mul(x, mult):
    """gemmlowp's SaturatingRoundingDoublingHighMul for a positive multiplier: nudged, truncated towards zero."""
    product = x * mult
    nudged = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    return nudged // (1 << 31) if nudged >= 0 else -(-nudged // (1 << 31))


def divide_by_power_of_two(x, shift):
    """gemmlowp's RoundingDivideByPOT."""
    mask = (1 << shift) - 1
    return (x >> shift) + ((x & mask) > (mask >> 1) + (x < 0))


def compute(job, a, b):
    shift = 15 if job.get("is_wide") else 20

    def scale(x, name):
        return divide_by_power_of_two(high_mul(x, job[f"{name}_mult"]), job[f"{name}_shift"])

    a, b = a - job["a_zero_point"], b - job["b_zero_point"]
    if job["op"] is TpOp.MUL:
        total = (a * b) << job["b_shift"]
    else:
        total = scale(a << shift, "a") + (-1 if job["op"] is TpOp.SUB else 1) * scale(b << shift, "b")
    return min(max(scale(total, "out") + job["zero_point_out"], job["act_min"]), job["act_max"])


def test_scaling_matches_a_value_worked_out_by_hand():
    assert high_mul(-(1 << 30), 1) == 0
    assert high_mul(-3 << 30, 1) == -1
    assert divide_by_power_of_two(-3, 1) == -2
    assert divide_by_power_of_two(3, 1) == 2


@pytest.mark.parametrize(
    ("lane", "op", "is_wide"),
    [
        (AddLane, TpOp.ADD, 0),
        (MathLane, TpOp.ADD, 0),
        (MathLane, TpOp.SUB, 0),
        (MathLane, TpOp.MUL, 0),
        (MathLane, TpOp.ADD, 1),
        (MathLane, TpOp.SUB, 1),
        (MathLane, TpOp.MUL, 1),
    ],
)
def test_lanes_match_tflite(lane, op, is_wide):
    rng = random.Random(1)
    dut = lane(has_windows=is_wide == 0) if lane is MathLane else lane()
    least, most = (-32768, 32767) if is_wide else (-128, 127)
    place = 1 << (8 if lane is MathLane and not is_wide else 0)  # of an element of int8 in the lane's operand

    def job():
        low, high = sorted(rng.sample(range(least, most + 1), 2)) if rng.random() < 0.5 else (least, most)
        values = {
            f"{name}_mult": rng.choice([1 << 30, (1 << 31) - 1, 3 << 29, rng.randrange(1 << 30, 1 << 31)])
            for name in ("a", "b", "out")
        }
        values |= {
            "a_shift": rng.choice([0, 0, 1, 3, 31]),
            "b_shift": rng.choice([0, 0, 1, 8]),
            "out_shift": rng.choice([13, 14, 15, 31] if is_wide else [17, 18, 19, 20, 31]),
        }
        values |= {
            name: 0 if is_wide else rng.randint(-128, 127)
            for name in ("a_zero_point", "b_zero_point", "zero_point_out")
        }
        if op is TpOp.MUL:
            values |= {
                "b_shift": 0 if is_wide else rng.choice([0, 0, 1, 7]),
                "out_shift": rng.choice([0, 12, 15, 31] if is_wide else [0, 5, 8, 31]),
            }
        return values | {"op": op, "is_wide": is_wide, "act_min": low, "act_max": high}

    async def bench(ctx):
        for _ in range(25):
            values = job()
            for name, _ in dut.job.shape():
                ctx.set(dut.job[name], values[name])
            await ctx.tick().repeat(2)
            pairs = [(rng.randint(least, most), rng.randint(least, most)) for _ in range(30)] + [
                (least, least),
                (most, most),
                (least, most),
                (most, least),
            ]
            results = []
            for cycle in range(len(pairs) + dut.PIPELINE_CYCLES):
                a, b = pairs[min(cycle, len(pairs) - 1)]
                ctx.set(dut.a, a * place)
                ctx.set(dut.b, b * place)
                if cycle >= dut.PIPELINE_CYCLES:
                    results.append(ctx.get(dut.y))
                await ctx.tick()
            assert results == [compute(values, a, b) for a, b in pairs]

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()


def test_weighted_rows():
    """By hand: half of 100 and half of -27, exactly; all of -128."""
    dut = MathLane(has_windows=True)
    cases = [(100, -27, 1 << 19, 1 << 19), (-128, 99, 1 << 20, 0), (127, -128, 341 * 1023, 683 * 1023)]
    operands = [(a << 8, b, weight_a, weight_b) for a, b, weight_a, weight_b in cases]

    async def bench(ctx):
        ctx.set(dut.job.op, TpOp.BILINEAR)
        await ctx.tick().repeat(2)
        rows = []
        for cycle in range(len(cases) + dut.ROW_CYCLES):
            for target, value in zip(
                (dut.a, dut.pixel_b, dut.weight_a, dut.weight_b), operands[min(cycle, len(cases) - 1)], strict=True
            ):
                ctx.set(target, value)
            if cycle >= dut.ROW_CYCLES:
                rows.append(ctx.get(dut.row))
            await ctx.tick()
        assert rows == [73 << 19, -128 << 20, 127 * 341 * 1023 - 128 * 683 * 1023]

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
