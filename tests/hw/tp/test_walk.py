"""Address generation against the loops of the architecture document."""

from itertools import groupby

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.plan.cost import tp_group_bytes
from convoy.hw.tp.walk import GroupWalk, WindowWalk
from convoy.spec.config import NpuConfig
from convoy.spec.isa import TP, TP_TWO_OPERANDS, TP_WIDE, TP_WINDOWS, TpOp

ADDR_BITS, LANES, BANKS = 12, 4, 8


def expected_groups(job):
    """Per window the addresses of its bytes, of A and of B, None outside COPY's image; for BILINEAR its place
    instead of B.
    """
    mask = (1 << ADDR_BITS) - 1
    for i0 in range(job["num_0"]):
        for i1 in range(job["num_1"]):
            if job["op"] in (TpOp.COPY, *TP_TWO_OPERANDS):
                y0, x0 = (job["start_y"], job["start_x"]) if job["op"] is TpOp.COPY else (0, 0)
                row, row_b = [None] * job["num_2"], []
                for i2 in range(job["num_2"]):
                    if job["op"] is not TpOp.COPY or (0 <= y0 + i1 < job["tile_ih"] and 0 <= x0 + i2 < job["tile_iw"]):
                        row[i2] = (i0 * job["step_0"] + (y0 + i1) * job["step_1"] + (x0 + i2) * job["step_2"]) & mask
                    if job["op"] is not TpOp.COPY:
                        row_b.append((i0 * job["b_step_0"] + i1 * job["b_step_1"] + i2 * job["b_step_2"]) & mask)
                yield from ((list(part), row_b) for _, part in groupby(row, key=lambda addr: addr is None))
                continue
            for i2 in range(job["num_2"]):
                places = [
                    (job[f"start_{axis}"] << 10)
                    + job[f"start_{axis}_frac"]
                    + index * ((job[f"stride_{size}"] << 10) + job[f"stride_{size}_frac"])
                    for axis, size, index in (("y", "h", i1), ("x", "w", i2))
                ]
                rows, cols = (
                    range(place >> 10, (place >> 10) + job[f"kernel_{size}"])
                    for place, size in zip(places, "hw", strict=True)
                )
                inside = [
                    [n for n in window if 0 <= n < job[f"tile_i{size}"]] for window, size in ((rows, "h"), (cols, "w"))
                ]
                fractions = [
                    place & 1023 if len(kept) == len(window) else 0
                    for place, kept, window in zip(places, inside, (rows, cols), strict=True)
                ]
                yield (
                    [(i0 * job["step_0"] + y * job["tile_iw"] + x) & mask for y in inside[0] for x in inside[1]],
                    (*fractions, fractions[0] * fractions[1]) if job["op"] is TpOp.BILINEAR else [],
                )


def pair_modes(step):
    """Do the gathers of a copy have half of the lanes each, or one lane each?"""
    is_conflict = step != 0 and len({lane * step % BANKS for lane in range(LANES)}) < LANES
    return is_conflict and step % BANKS != 0, is_conflict and step % BANKS == 0


def walk(job, stall, math_lanes=LANES):
    """The windows that the hardware walks through, as `expected_groups`, and the cycles from start to the last
    group.
    """
    m = Module()
    m.submodules.window = window = WindowWalk(ADDR_BITS)
    m.submodules.group = group = GroupWalk(ADDR_BITS, num_lanes=LANES, num_math_lanes=math_lanes, num_banks=BANKS)
    wiring.connect(m, window.windows, group.windows)
    m.d.comb += group.place_in.eq(window.place)
    windows, cycles = [([], [])], 0
    is_pair = job["op"] in TP_WINDOWS and job["op"] is not TpOp.BILINEAR and not job["is_wide"]
    is_two_rows, is_two_groups = is_pair and job["kernel_w"] <= LANES, is_pair and job["kernel_w"] > LANES

    async def bench(ctx):
        nonlocal cycles
        for target in (window.job, group.job):
            for name, _ in target.shape():
                ctx.set(target[name], job[name])
        await ctx.tick()
        ctx.set(window.start, 1)
        await ctx.tick()
        ctx.set(window.start, 0)
        while cycles < 5000:
            ctx.set(group.groups.ready, stall[cycles % len(stall)])
            _, _, valid, ready, p, steps = await ctx.tick().sample(
                group.groups.valid, group.groups.ready, group.groups.p, group.steps
            )
            cycles += 1
            if valid and ready:
                addrs, addrs_b = (
                    [(first + lane * step) % (1 << ADDR_BITS) for lane in range(p.count)]
                    for first, step in zip((p.addr, p.addr_b), steps, strict=True)
                )
                gathers = [addrs, addrs_b]
                if is_two_rows or is_two_groups:
                    offset = job["tile_iw"] if is_two_rows else LANES
                    gathers[1] = [(p.addr + offset + lane) % (1 << ADDR_BITS) for lane in range(p.count_b)]
                    assert p.count_b <= p.count
                    assert is_two_rows or p.count == LANES or not p.count_b
                else:
                    assert p.count_b == 0 or job["op"] in (TpOp.COPY, *TP_TWO_OPERANDS)
                if job["op"] is TpOp.COPY and any(pair_modes(steps[0])):
                    half = LANES // 2 if pair_modes(steps[0])[0] else 1
                    assert p.is_fill or p.count <= 2 * half
                    gathers = [addrs[:half], addrs[half:]]
                assert p.is_fill or all(len({addr % BANKS for addr in set(each)}) == len(set(each)) for each in gathers)
                assert p.is_row_0 or job["op"] not in (TpOp.COPY, *TP_TWO_OPERANDS)
                window_addrs, window_b = windows[-1]
                window_addrs += [None] * p.count if p.is_fill else addrs
                if is_two_rows or is_two_groups:
                    window_addrs += gathers[1]
                if job["op"] in TP_TWO_OPERANDS:
                    window_b += addrs_b
                elif job["op"] is TpOp.BILINEAR:
                    assert p.is_row_0 == (len(window_addrs) == p.count)
                    windows[-1] = window_addrs, (p.place.frac_y, p.place.frac_x, p.place.product)
                if p.last:
                    assert p.window_last
                    return
                if p.window_last:
                    windows.append(([], []))
        raise AssertionError("no last group")

    sim = Simulator(m)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    return windows, cycles


@st.composite
def jobs(draw):
    def number(low, high):
        return draw(st.integers(low, high))

    job = dict.fromkeys(TP.fields, 0)
    job |= {"op": draw(st.sampled_from(TpOp)), "num_0": number(1, 3), "num_1": number(1, 4), "num_2": number(1, 9)}
    job |= {name: number(-300, 300) for name in ("step_0", "step_1", "step_2", "b_step_0", "b_step_1", "b_step_2")}
    job["b_step_2"] = draw(st.sampled_from([0, 1, job["b_step_2"]]))
    job |= {name: number(1, 12) for name in ("kernel_h", "kernel_w", "tile_ih", "tile_iw")}
    job |= {"stride_h": number(1, 4), "stride_w": number(1, 4), "start_y": number(-6, 4), "start_x": number(-6, 4)}
    job |= {
        name: draw(st.sampled_from([0, 0, 1, 341, 512, 1023]))
        for name in ("stride_h_frac", "stride_w_frac", "start_y_frac", "start_x_frac")
    }
    if job["op"] is TpOp.BILINEAR:
        job |= {"kernel_h": 2, "kernel_w": 2}
    if job["op"] in TP_WIDE:
        job["is_wide"] = number(0, 1)
    if job["op"] is TpOp.COPY:
        job |= {
            "start_y": min(job["start_y"], 0),
            "start_x": min(job["start_x"], 0),
            "tile_ih": number(0, 6),
            "tile_iw": number(0, 9),
        }
    return job


@settings(max_examples=60, deadline=None, derandomize=True)
@given(jobs(), st.sampled_from([[1], [1, 0], [0, 0, 1, 1, 0]]), st.sampled_from([4, 2, 1]))
def test_addresses_are_those_of_the_loops(job, stall, math_lanes):
    windows, _ = walk(job, stall, math_lanes)
    assert windows == list(expected_groups(job))


def test_bilinear_windows_at_the_edges():
    """Half steps over an image of 3 x 4 from one row and column outside to one beyond: a clipped window has no
    fraction, the last whole one has.
    """
    job = dict.fromkeys(TP.fields, 0) | {
        "op": TpOp.BILINEAR,
        "num_0": 1,
        "num_1": 8,
        "num_2": 10,
        "kernel_h": 2,
        "kernel_w": 2,
        "tile_ih": 3,
        "tile_iw": 4,
        "start_y": -1,
        "start_x": -1,
        "stride_h_frac": 512,
        "stride_w_frac": 512,
    }
    windows, _ = walk(job, [1])
    assert windows == list(expected_groups(job))
    assert [windows[10 * row + 2][1][0] for row in range(8)] == [0, 0, 0, 512, 0, 512, 0, 0]
    assert [windows[20 + col][1][1] for col in range(10)] == [0, 0, 0, 512, 0, 512, 0, 512, 0, 0]


def test_the_place_stands_while_the_last_window_waits():
    """A product other than 0, and groups that are taken every seventh cycle: the walk has nothing left to do before
    its last window is taken.
    """
    job = dict.fromkeys(TP.fields, 0) | {
        "op": TpOp.BILINEAR,
        "num_0": 1,
        "num_1": 1,
        "num_2": 2,
        "kernel_h": 2,
        "kernel_w": 2,
        "tile_ih": 9,
        "tile_iw": 9,
        "start_y": 3,
        "start_x": 3,
        "start_y_frac": 512,
        "start_x_frac": 256,
        "stride_w": 1,
    }
    windows, _ = walk(job, [0] * 6 + [1])
    assert [place for _, place in windows] == [(512, 256, 512 * 256)] * 2


def test_first_window_after_six_cycles():
    job = dict.fromkeys(TP.fields, 0) | {
        "op": TpOp.COPY,
        "num_0": 1,
        "num_1": 1,
        "num_2": 1,
        "tile_ih": 1,
        "tile_iw": 1,
    }
    dut = WindowWalk(ADDR_BITS)

    async def bench(ctx):
        for name, _ in dut.job.shape():
            ctx.set(dut.job[name], job[name])
        await ctx.tick()
        ctx.set(dut.start, 1)
        cycles = 0
        while not ctx.get(dut.windows.valid):
            await ctx.tick()
            ctx.set(dut.start, 0)
            cycles += 1
            assert cycles <= 6
        assert cycles == 6

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()


def test_a_long_row_takes_a_cycle_per_group():
    job = dict.fromkeys(TP.fields, 0) | {
        "op": TpOp.COPY,
        "num_0": 1,
        "num_1": 1,
        "num_2": 400,
        "step_2": 3,
        "tile_ih": 1,
        "tile_iw": 400,
    }
    assert walk(job, [1])[1] <= 100 + 8


@pytest.mark.parametrize(("step", "count"), [(3, LANES), (BANKS // 2, LANES), (BANKS, 2), (3 * BANKS, 2)])
def test_both_gathers_read_where_lanes_share_a_bank(step, count):
    job = dict.fromkeys(TP.fields, 0) | {"op": TpOp.COPY, "num_0": 1, "num_1": 1, "num_2": 64, "step_2": step}
    windows, cycles = walk(job | {"tile_ih": 1, "tile_iw": 64}, [1])
    assert windows == list(expected_groups(job | {"tile_ih": 1, "tile_iw": 64}))
    assert cycles <= 64 // count + 10


@pytest.mark.parametrize("math_lanes", [4, 2, 1])
@pytest.mark.parametrize(("step", "step_b"), [(0, 1), (1, 3), (BANKS // 2, 1), (1, BANKS)])
def test_lanes_of_two_operands(step, step_b, math_lanes):
    row = {"op": TpOp.MAXIMUM, "num_0": 1, "num_1": 1, "num_2": 64, "step_2": step, "b_step_2": step_b}
    job = dict.fromkeys(TP.fields, 0) | row
    windows, cycles = walk(job, [1], math_lanes)
    assert windows == list(expected_groups(job))
    lanes = tp_group_bytes([step, step_b], NpuConfig(port_bits=8 * BANKS, tp_lanes=math_lanes))
    assert 64 // lanes <= cycles <= 64 // lanes + 10


@pytest.mark.parametrize("columns", [3, 8])
def test_rows_take_a_cycle_per_group(columns):
    job = dict.fromkeys(TP.fields, 0) | {
        "op": TpOp.COPY,
        "num_0": 4,
        "num_1": 25,
        "num_2": columns,
        "step_0": 200,
        "step_1": 8,
        "step_2": 1,
        "tile_ih": 25,
        "tile_iw": columns,
    }
    assert walk(job, [1])[1] <= 100 * -(-columns // LANES) + 10


@pytest.mark.parametrize(
    ("kernel", "is_wide", "count"),
    [((2, 2), 0, 1), ((2, 2), 1, 2), ((3, 3), 0, 2), ((3, 3), 1, 3), ((4, 5), 0, 4), ((1, 20), 0, 3), ((1, 20), 1, 5)],
)
def test_cycles_of_windows(kernel, is_wide, count):
    """Two rows at once, or eight columns; of int16 the second gather reads high bytes."""
    job = dict.fromkeys(TP.fields, 0) | {
        "op": TpOp.MAX_POOL,
        "is_wide": is_wide,
        "num_0": 2,
        "num_1": 5,
        "num_2": 6,
        "step_0": 800,
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": 2,
        "stride_w": 1,
        "tile_ih": 20,
        "tile_iw": 40,
    }
    windows, cycles = walk(job, [1])
    assert windows == list(expected_groups(job))
    assert cycles <= 60 * count + 10
