"""Totals against a model, cycle for cycle; causes by hand."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from convoy.hw.ctrl.counters import Counters
from convoy.hw.nn.activity import ActivityMonitor, CoreState
from convoy.spec.config import PRESETS
from convoy.spec.isa import CAUSE_FIELDS, Cause
from convoy.verif.pysim import simulate


@pytest.mark.parametrize("port_bits", [32, 64, 256])
def test_totals(port_bits):
    config = PRESETS["S"].with_(port_bits=port_bits)
    dut = Counters(config)
    rng = random.Random(port_bits)

    async def testbench(ctx):
        for _ in range(2):
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            ctx.set(dut.enable, 1)
            expected = dict.fromkeys(("cycle", "read_bytes", "write_bytes", "weight_bytes"), 0)
            for _ in range(200):
                written = rng.randint(0, config.port_bytes)
                reads, weights = rng.getrandbits(1), rng.getrandbits(1)
                ctx.set(dut.write_bytes, written)
                ctx.set(dut.read_beat, reads)
                ctx.set(dut.weight_beat, weights)
                await ctx.tick()
                expected["cycle"] += 1
                expected["read_bytes"] += reads * config.port_bytes
                expected["weight_bytes"] += weights * config.port_bytes
                expected["write_bytes"] += written
            totals = ctx.get(dut.totals)
            assert {name: totals[name] for name in expected} == expected
            ctx.set(dut.enable, 0)
            await ctx.tick().repeat(5)
            totals = ctx.get(dut.totals)
            assert {name: totals[name] for name in expected} == expected

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()


@pytest.mark.parametrize(
    ("states", "inputs", "expected"),
    [
        ("BUSY BUSY BUSY BUSY", {}, {Cause.BUSY: 4}),
        ("BUSY DECODER BEATS BUSY", {}, {Cause.BUSY: 2, Cause.WEIGHTS: 1, Cause.BUS: 1}),
        ("JOB JOB JOB JOB", {}, {Cause.DISPATCH: 4}),
        ("JOB JOB JOB JOB", {"is_tp_busy": 1}, {Cause.TP: 4}),
        ("JOB JOB JOB JOB", {"is_open": 1, "is_tp_busy": 1}, {Cause.DRAIN: 4}),
        (
            "JOB BUSY JOB DECODER",
            {"is_open": 1, "is_tp_busy": 1},
            {Cause.IMBALANCE: 2, Cause.BUSY: 1, Cause.WEIGHTS: 1},
        ),
        ("BUFFER BUFFER BUFFER BUFFER", {"finished": 0b1111}, {Cause.DRAIN: 4}),
        ("BUFFER BUFFER BUFFER BUFFER", {}, {Cause.DRAIN: 4}),
        ("BUFFER BUSY BUFFER BUSY", {"finished": 0b0101}, {Cause.IMBALANCE: 2, Cause.BUSY: 2}),
        ("WINDOW BUSY WINDOW WINDOW", {}, {Cause.WINDOW: 3, Cause.BUSY: 1}),
        ("WINDOW BUSY WINDOW WINDOW", {"fill_waits_slot": 1}, {Cause.IMBALANCE: 3, Cause.BUSY: 1}),
        ("WINDOW WINDOW WINDOW WINDOW", {"fill_waits_slot": 1}, {Cause.WINDOW: 4}),
        ("WINDOW BUSY WINDOW WINDOW", {"fill_waits_load": 1}, {Cause.BUS: 3, Cause.BUSY: 1}),
        ("WINDOW JOB WINDOW WINDOW", {"fill_waits_load": 1, "load_waits": 1}, {Cause.DRAIN: 3, Cause.IMBALANCE: 1}),
        ("WINDOW BUSY WINDOW WINDOW", {"fill_waits_load": 1, "load_waits": 1}, {Cause.IMBALANCE: 3, Cause.BUSY: 1}),
    ],
)
def test_causes(states, inputs, expected):
    """Each state of the machine held for a while, after and before another: exactly one cause per core and cycle."""
    config = PRESETS["Q"]
    m = Module()
    m.submodules.monitor = monitor = ActivityMonitor(config)
    m.submodules.counters = counters = Counters(config)
    m.d.comb += counters.activity.eq(monitor.activity)

    async def testbench(ctx):
        for port in monitor.states:
            ctx.set(port, CoreState.JOB)
        ctx.set(counters.enable, 1)
        await ctx.tick().repeat(3)
        for port, state in zip(monitor.states, states.split(), strict=True):
            ctx.set(port, CoreState[state])
        for name, value in inputs.items():
            ctx.set(getattr(counters if name == "is_tp_busy" else monitor, name), value)
        await ctx.tick().repeat(3)
        before = {cause: ctx.get(counters.totals[name]) for cause, name in CAUSE_FIELDS.items()}
        await ctx.tick().repeat(10)
        after = {cause: ctx.get(counters.totals[name]) for cause, name in CAUSE_FIELDS.items()}
        assert {cause: after[cause] - before[cause] for cause in Cause if after[cause] != before[cause]} == {
            c: 10 * n for c, n in expected.items()
        }
        assert sum(after.values()) == config.num_cores * ctx.get(counters.totals.cycle)

    simulate(m, testbench)
