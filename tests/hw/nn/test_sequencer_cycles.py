"""When the sequencer lets go of windows and groups."""

from convoy.hw.nn.accumulate import Accumulators
from convoy.hw.nn.lanes import Lanes
from convoy.hw.nn.sequencer import Sequencer
from convoy.hw.nn.window import WindowMemory
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import FINISH_CYCLES, RELEASE_CYCLES
from convoy.verif.pysim import send, simulate

JOB = {"num_phases": 1, "seg_words": 1, "num_slots": 2, "num_vec": 1, "num_vec_last": 1}
ISSUED = 1
"""Cycles by which `issue`, which comes from registers, is later than the end of an issue."""


def run(weights):
    """Cycles of issues, releases of windows and ends of groups."""
    dut = Sequencer(NpuConfig())
    seen = {"issue": [], "released": [], "done": []}

    async def bench(ctx):
        ctx.set(dut.window_filled, 1)
        await ctx.tick().repeat(2)
        ctx.set(dut.window_filled, 0)
        await send(ctx, dut.job, [JOB | {"num_vec_x": 1}])
        await send(ctx, dut.weights, [weight | {"is_last_group": 1, "is_last_sb": 1} for weight in weights])
        await ctx.tick().repeat(30)

    async def watch(ctx):
        cycle = 0
        async for _, _, *events in ctx.tick().sample(dut.issue.is_valid, dut.window_released, dut.group_done):
            cycle += 1
            for name, happens in zip(seen, events, strict=True):
                seen[name].extend([cycle] * happens)

    simulate(dut, bench, background=[watch])
    return seen


def test_windows_and_groups_end():
    """Two windows of a weight each."""
    seen = run([{"value": 1, "entry": n, "is_new_window": 1, "is_last": n} for n in range(2)])
    last = seen["issue"][-1] - ISSUED
    assert seen["released"][-1] == last + RELEASE_CYCLES
    assert seen["done"] == [last + FINISH_CYCLES]


def test_an_entry_in_successive_cycles():
    seen = run([{"value": 1, "entry": 0, "is_new_window": n == 0, "is_last": n == 2} for n in range(3)])
    first = seen["issue"][0]
    assert seen["issue"] == [first, first + 1, first + 2]


def test_the_last_read_and_the_last_sum_are_waited_for():
    sums = WindowMemory.READ_CYCLES + Lanes.PIPELINE_CYCLES - Accumulators.PRODUCT_CYCLES + Accumulators.ADD_CYCLES
    assert sums <= FINISH_CYCLES - ISSUED
