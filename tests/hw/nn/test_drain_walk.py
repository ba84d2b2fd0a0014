"""The walk of the drain, visit by visit, against the loops of docs/architecture.md."""

import random
from collections import Counter
from dataclasses import dataclass

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.nn.drain_units import UnitSequencer
from convoy.hw.nn.drain_walk import Walker
from convoy.verif.drain_jobs import config_of, configs, entries_of, geometries, make_job, positions, walk


@dataclass
class Visit:
    """What the walk asks for in a cycle."""

    cycle: int
    is_read: bool
    is_clear: bool
    core: int
    entry: int
    part: int
    is_chunk: bool
    is_low: bool
    start: bool
    addr: int
    last: bool
    bias: int
    lanes: tuple = ()


def run(config, jobs, params, *, seed=0, stall=0.0, is_interleaved=False):
    """The visits of each group of `jobs`; `params`: for all their units in order."""
    m = Module()
    m.submodules.sequencer = sequencer = UnitSequencer(config)
    m.submodules.walker = walker = Walker(config)
    wiring.connect(m, sequencer.units, walker.units)
    m.d.comb += [
        walker.fields.eq(sequencer.fields),
        walker.group.eq(sequencer.group),
        walker.prepare.eq(sequencer.prepare),
        sequencer.is_prepared.eq(walker.is_prepared),
        sequencer.group_done.eq(walker.group_done),
    ]
    rng, groups = random.Random(seed), [[]]
    num_groups = sum(job["num_sb"] * job["num_groups"] for job in jobs)

    async def bench(ctx):
        todo, to_take = list(jobs), list(params)
        before = None
        ctx.set(sequencer.is_quiet, 1)
        ctx.set(walker.is_interleaved, is_interleaved)
        for cycle in range(20000):
            ctx.set(sequencer.group_valid, rng.random() >= stall)
            ctx.set(walker.can_issue, rng.random() >= stall)
            ctx.set(sequencer.job.valid, bool(todo))
            ctx.set(sequencer.params.valid, bool(to_take) and rng.random() >= stall)
            if todo:
                ctx.set(sequencer.job.payload, todo[0])
            for name, value in to_take[0].items() if to_take else ():
                ctx.set(sequencer.params.payload[name], value)
            takes_job = ctx.get(sequencer.job.ready) and todo
            takes_param = ctx.get(sequencer.params.ready) and ctx.get(sequencer.params.valid)
            if before is not None and before.is_chunk:
                before.lanes = tuple(lane for lane in range(config.post_lanes) if ctx.get(walker.mask) >> lane & 1)
            before = Visit(
                cycle,
                *(bool(ctx.get(each)) for each in (walker.acc_read, walker.acc_clear)),
                *(ctx.get(each) for each in (walker.acc_core, walker.acc_entry, walker.acc_lane)),
                *(bool(ctx.get(each)) for each in (walker.emit, walker.is_low, walker.place.start)),
                ctx.get(walker.place.addr),
                bool(ctx.get(walker.place.last)),
                ctx.get(walker.scale.bias),
            )
            if before.is_read or before.is_clear or before.is_chunk:
                groups[-1].append(before)
            if ctx.get(walker.group_done):
                assert before.is_clear
                groups.append([])
            await ctx.tick()
            if takes_job:
                todo.pop(0)
            if takes_param:
                to_take.pop(0)
            if len(groups) > num_groups and not before.is_chunk:
                return
        raise AssertionError("the walk does not end")

    sim = Simulator(m)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
    assert groups.pop() == []
    return groups


def make_params(config, job, rng):
    """A PARAM for each unit, in the order of the loops."""
    valid = {}
    for s, _, kernels, *_ in walk(job):
        for kernel in range(kernels):
            for core in range(config.num_cores):
                yield {
                    "is_valid": valid.setdefault((s, kernel, core), rng.random() < 0.8),
                    "out_offset_bytes": rng.getrandbits(20),
                    "bias": rng.randint(-(1 << 20), 1 << 20),
                    "bias_low": rng.getrandbits(8),
                }


def expected_groups(config, job, params):
    """Per group: its outputs in order (core, entry, lane, byte address, bias), and how often an entry is cleared."""
    params = iter(params)
    for _, g, kernels, num_vec, num_pos in walk(job):
        outputs, clears = [], Counter()
        for kernel in range(kernels):
            for core in range(config.num_cores):
                param, first = next(params), kernel * job["num_vec"]
                clears.update((core, first + v) for v in range(num_vec))
                if param["is_valid"]:
                    addr = job["out_addr"] + param["out_offset_bytes"] + g * job["out_group_step_bytes"]
                    for n, (row, col, v, lane) in enumerate(positions(config, job, num_pos)):
                        place = n if job["is_flat"] else row * job["out_pitch_row_bytes"] + col
                        outputs.append((core, first + v, lane, addr + place, param["bias"]))
        yield outputs, clears


def outputs_of(config, visits, *, is_paired=False):
    """The outputs that the chunks of `visits` hold, as `expected_groups`; `is_paired`: lanes count twice, over two
    chunks.
    """
    outputs, addr = [], None
    for visit in visits:
        if not visit.is_chunk:
            assert not visit.is_read
            continue
        assert visit.is_read or not visit.lanes
        if visit.start:
            addr = visit.addr
        lanes = list(visit.lanes)
        if is_paired:
            half = config.post_lanes // 2 * (not visit.is_low)
            assert lanes[::2] == [lane - 1 for lane in lanes[1::2]]
            lanes = [half + lane // 2 for lane in lanes[::2]]
        for lane in lanes:
            outputs.append((visit.core, visit.entry, visit.part * config.post_lanes + lane, addr, visit.bias))
            addr += 1
    return outputs


def check_entries(visits, clears):
    """Every entry is cleared as often as expected, and not read afterwards."""
    cleared = Counter()
    for visit in visits:
        place = visit.core, visit.entry
        assert not (visit.is_read and cleared[place])
        cleared[place] += visit.is_clear
    assert +cleared == clears


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.data(), configs, st.integers(0, 99), st.sampled_from([0.0, 0.3]))
def test_visits_in_the_order_of_the_loops(data, config, seed, stall):
    """One or two jobs, the second of which begins as soon as the first one has been walked."""
    jobs = [data.draw(geometries(config)) for _ in range(data.draw(st.integers(1, 2)))]
    rng = random.Random(seed)
    params = [list(make_params(config, job, rng)) for job in jobs]
    groups = iter(run(config, jobs, [each for some in params for each in some], seed=seed, stall=stall))
    for job, job_params in zip(jobs, params, strict=True):
        lasts = []
        for outputs, clears in expected_groups(config, job, job_params):
            visits = next(groups)
            lasts += [visit.last for visit in visits if visit.is_chunk]
            if not job["is_wide"]:
                assert outputs_of(config, visits) == outputs
                check_entries(visits, clears)
                continue
            check_entries(visits, Counter({(c, e): n for (c, v), n in clears.items() for e in entries_of(job, v)}))
            lows, highs = ([visit for visit in visits if visit.is_low == is_low] for is_low in (True, False))
            assert [low.cycle + 1 for low in lows] == [high.cycle for high in highs]
            assert [output[:4] for output in outputs_of(config, lows)] == [
                (core, 2 * entry, lane, addr) for core, entry, lane, addr, _ in outputs
            ]
            assert outputs_of(config, highs) == [(core, 2 * entry + 1, *others) for core, entry, *others in outputs]
        num_last = 1 + job["is_wide"]
        assert lasts == [False] * (len(lasts) - num_last) + [True] * num_last
    assert next(groups, None) is None


@settings(deadline=None, max_examples=10, derandomize=True)
@given(st.data(), st.integers(0, 99), st.sampled_from([0.0, 0.3]))
def test_interleaved_chunks_hold_half_of_the_lanes_each(data, seed, stall):
    """The two chunks of a pair: each lane of the lower half twice, then each of the upper half; one last of the job."""
    config = config_of()
    job = data.draw(geometries(config, is_wide=True))
    params = list(make_params(config, job, random.Random(seed)))
    groups = run(config, [job], params, seed=seed, stall=stall, is_interleaved=True)
    for visits, (outputs, _) in zip(groups, expected_groups(config, job, params), strict=True):
        found = [(core, entry // 2, lane) for core, entry, lane, *_ in outputs_of(config, visits, is_paired=True)]
        assert found == [output[:3] for output in outputs]
    assert [visit.last for visits in groups for visit in visits].count(True) == 1


def test_a_unit_by_hand():
    """Two rows of 10 outputs in vectors of 8 lanes, chunks of 4, two cores: three chunks a row, no cycle between rows
    or cores, an entry cleared with its last chunk.
    """
    config = config_of(num_lanes=8)
    job = make_job(
        num_vec=4,
        num_vec_last=4,
        num_vec_x=2,
        drain_pitch=16,
        tile_ow=10,
        num_pos=26,
        num_pos_last=26,
        out_pitch_row_bytes=12,
    )
    params = [{"is_valid": 1, "out_offset_bytes": offset, "bias": 0, "bias_low": 0} for offset in (0x100, 0x200)]
    (visits,) = run(config, [job], params)
    first = visits[0].cycle
    unit = [
        # cycle, entry, part, clears, starts, lanes
        (0, 0, 0, False, True, 4),
        (1, 0, 1, True, False, 4),
        (2, 1, 0, True, False, 2),
        (3, 2, 0, False, True, 4),
        (4, 2, 1, True, False, 4),
        (5, 3, 0, True, False, 2),
    ]
    assert [
        (v.cycle - first, v.core, v.entry, v.part, v.is_clear, v.start, len(v.lanes)) for v in visits if v.is_read
    ] == [(cycle + 6 * core, core, *others) for core in range(2) for cycle, *others in unit]
    assert [v.addr for v in visits if v.start] == [0x1100, 0x110C, 0x1200, 0x120C]
    assert [v.last for v in visits] == [False] * 11 + [True]


def test_a_unit_without_outputs_is_cleared_only():
    """One cycle per entry, and an empty chunk that is the last of the job."""
    config = config_of(num_cores=1)
    job = make_job(num_vec=3, num_vec_last=3, drain_pitch=16, tile_ow=16, num_pos=40, num_pos_last=40)
    (visits,) = run(config, [job], [{"is_valid": 0, "out_offset_bytes": 0, "bias": 0, "bias_low": 0}])
    assert [(v.entry, v.is_clear, v.is_read, v.is_chunk, v.last, v.lanes) for v in visits] == [
        (0, True, False, False, False, ()),
        (1, True, False, False, False, ()),
        (2, True, False, True, True, ()),
    ]
    assert visits[-1].cycle - visits[0].cycle == 2
