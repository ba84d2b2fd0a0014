"""Counts of states, and the causes of those that have several."""

import pytest

from convoy.hw.nn.activity import STATE_CAUSES, ActivityMonitor, CoreState
from convoy.spec.config import NpuConfig
from convoy.spec.isa import Cause
from convoy.verif.pysim import simulate

CONFIG = NpuConfig(num_cores=2, post_lanes=4)
IDLE, BUSY, WINDOW = (CoreState.JOB,) * 2, (CoreState.BUSY, CoreState.WINDOW), (CoreState.WINDOW,) * 2


@pytest.mark.parametrize(
    ("states", "inputs", "cause"),
    [
        (IDLE, {}, {"job": Cause.DISPATCH}),
        (IDLE, {"is_open": 1}, {"job": Cause.DRAIN}),
        (BUSY, {"is_open": 1}, {"job": Cause.IMBALANCE}),
        (WINDOW, {"finished": 0b11}, {"buffer": Cause.DRAIN}),
        (WINDOW, {"finished": 0b01}, {"buffer": Cause.IMBALANCE}),
        (WINDOW, {"fill_waits_load": 1}, {"window": Cause.BUS}),
        (WINDOW, {"fill_waits_load": 1, "load_waits": 1}, {"window": Cause.DRAIN}),
        (BUSY, {"fill_waits_load": 1, "load_waits": 1}, {"window": Cause.IMBALANCE}),
        (BUSY, {"fill_waits_slot": 1}, {"window": Cause.IMBALANCE}),
        (WINDOW, {}, {"window": Cause.WINDOW}),
        (WINDOW, {}, {"beats": Cause.BUS}),
        (WINDOW, {"fetch_waits": 1}, {"beats": Cause.DRAIN}),
        (WINDOW, {"fill_waits_load": 1, "load_waits": 1, "load_waits_tp": 1}, {"window": Cause.TP}),
        (WINDOW, {"fill_waits_load": 1, "load_waits_tp": 1}, {"window": Cause.BUS}),
        (WINDOW, {"fetch_waits": 1, "fetch_waits_tp": 1}, {"beats": Cause.TP}),
    ],
)
def test_causes(states, inputs, cause):
    dut = ActivityMonitor(CONFIG)

    async def testbench(ctx):
        for port, state in zip(dut.states, states, strict=True):
            ctx.set(port, state)
        for name, value in inputs.items():
            ctx.set(getattr(dut, name), value)
        await ctx.tick()
        for name, expected in cause.items():
            assert ctx.get(dut.activity[name]) == expected
            assert expected in STATE_CAUSES[CoreState[name.upper()]]
        assert [ctx.get(dut.activity.counts[state]) for state in CoreState] == [
            states.count(state) for state in CoreState
        ]

    simulate(dut, testbench)


def test_every_state_has_a_cause():
    assert set(STATE_CAUSES) == set(CoreState)
