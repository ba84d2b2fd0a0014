"""Address generation against the loops of the architecture document."""

from itertools import groupby

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.tp.walk import GroupWalk, WindowWalk
from convoy.spec.isa import TP, TpOp

ADDR_BITS, LANES, BANKS = 12, 4, 8


def expected_groups(job):
    """Per window the addresses of its bytes, None outside COPY's image."""
    for i0 in range(job["num_0"]):
        for i1 in range(job["num_1"]):
            if job["op"] in (TpOp.COPY, TpOp.ADD):
                y0, x0 = (job["start_y"], job["start_x"]) if job["op"] is TpOp.COPY else (0, 0)
                row = [None] * job["num_2"]
                for i2 in range(job["num_2"]):
                    if job["op"] is TpOp.ADD or (0 <= y0 + i1 < job["tile_ih"] and 0 <= x0 + i2 < job["tile_iw"]):
                        row[i2] = (i0 * job["step_0"] + (y0 + i1) * job["step_1"] + (x0 + i2) * job["step_2"]) % (1 << ADDR_BITS)
                yield from (list(part) for _, part in groupby(row, key=lambda addr: addr is None))
                continue
            for i2 in range(job["num_2"]):
                rows = range(job["start_y"] + i1 * job["stride_h"], job["start_y"] + i1 * job["stride_h"] + job["kernel_h"])
                cols = range(job["start_x"] + i2 * job["stride_w"], job["start_x"] + i2 * job["stride_w"] + job["kernel_w"])
                yield [(i0 * job["step_0"] + y * job["tile_iw"] + x) % (1 << ADDR_BITS)
                       for y in rows if 0 <= y < job["tile_ih"] for x in cols if 0 <= x < job["tile_iw"]]


def walk(job, stall):
    """The windows that the hardware walks through, as lists of addresses, and the cycles from start to the last group."""
    m = Module()
    m.submodules.window = window = WindowWalk(ADDR_BITS)
    m.submodules.group = group = GroupWalk(ADDR_BITS, num_lanes=LANES, num_banks=BANKS)
    wiring.connect(m, window.windows, group.windows)
    windows, cycles = [[]], 0

    async def bench(ctx):
        nonlocal cycles
        for target in (window.job, group.job):
            for name, _ in target.shape():
                ctx.set(target[name], job[name])
        ctx.set(window.start, 1)
        await ctx.tick()
        ctx.set(window.start, 0)
        while cycles < 5000:
            ctx.set(group.groups.ready, stall[cycles % len(stall)])
            _, _, valid, ready, p, step = await ctx.tick().sample(group.groups.valid, group.groups.ready, group.groups.p, group.step)
            cycles += 1
            if valid and ready:
                addrs = [(p.addr + lane * step) % (1 << ADDR_BITS) for lane in range(p.count)]
                assert p.is_fill or len({addr % BANKS for addr in addrs}) == len(addrs)
                windows[-1] += [None] * p.count if p.is_fill else addrs
                if p.last:
                    assert p.window_last
                    return
                if p.window_last:
                    windows.append([])
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
    job |= {name: number(-300, 300) for name in ("step_0", "step_1", "step_2")}
    job |= {name: number(1, 12) for name in ("kernel_h", "kernel_w", "tile_ih", "tile_iw")}
    job |= {"stride_h": number(1, 4), "stride_w": number(1, 4), "start_y": number(-6, 4), "start_x": number(-6, 4)}
    if job["op"] is TpOp.COPY:
        job |= {"start_y": min(job["start_y"], 0), "start_x": min(job["start_x"], 0), "tile_ih": number(0, 6), "tile_iw": number(0, 9)}
    return job


@settings(max_examples=30, deadline=None, derandomize=True)
@given(jobs(), st.sampled_from([[1], [1, 0], [0, 0, 1, 1, 0]]))
def test_addresses_are_those_of_the_loops(job, stall):
    windows, _ = walk(job, stall)
    assert windows == list(expected_groups(job))


def test_a_long_row_takes_a_cycle_per_group():
    job = dict.fromkeys(TP.fields, 0) | {"op": TpOp.COPY, "num_0": 1, "num_1": 1, "num_2": 400, "step_2": 3, "tile_ih": 1, "tile_iw": 400}
    assert walk(job, [1])[1] <= 100 + 8


def test_short_rows_take_two_cycles_each():
    job = dict.fromkeys(TP.fields, 0) | {"op": TpOp.COPY, "num_0": 4, "num_1": 25, "num_2": 8, "step_0": 200, "step_1": 8, "step_2": 1,
                                             "tile_ih": 25, "tile_iw": 8}
    assert walk(job, [1])[1] <= 200 + 10
