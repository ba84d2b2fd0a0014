"""The sequencer against the loops of docs/architecture.md: which pixel each weight meets, and when."""

import pytest

from convoy.hw.nn.activity import CoreState
from convoy.hw.nn.sequencer import SEQUENCER_FIELDS, Sequencer
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import send, simulate

CONFIG = NpuConfig(num_lanes=8, post_lanes=4, num_acc_entries=64, window_words=32)
NUM_GROUPS = 2
JOB = dict.fromkeys(SEQUENCER_FIELDS, 0) | dict(
    group_step=11,
    num_phases=2,
    seg_words=3,
    num_slots=2,
    num_vec=4,
    num_vec_last=3,
    num_vec_x=2,
    step_vec_x=8,
    step_vec_y=21,
)


def weights(num_groups):
    """For each group of one superblock three windows, of three, one and two weights: (value, tap offset, kernel,
    is_new_window, is_last).
    """
    group = [(5, 0, 0, 1, 0), (-7, 9, 0, 0, 0), (9, 1, 1, 0, 0), (3, 2, 0, 1, 0), (0, 0, 0, 1, 0), (-1, 4, 1, 0, 1)]
    return group * num_groups


def expected(job, num_groups):
    """(value, pixel, entry, buffer, is_low) of every issue."""
    halves, found, window, group = 1 + job["is_wide"], [], -1, 0
    half_words = job["num_phases"] * job["seg_words"]
    for value, tap, kernel, is_new, is_last in weights(num_groups):
        window += is_new
        num_vec = job["num_vec_last"] if group == num_groups - 1 else job["num_vec"]
        for vec in range(num_vec if value else 0):
            place = vec % job["num_vec_x"] * job["step_vec_x"] + vec // job["num_vec_x"] * job["step_vec_y"]
            for half in range(halves):
                word = window % job["num_slots"] * half_words * halves + half * half_words
                pixel = word * CONFIG.num_lanes + group * job["group_step"] % CONFIG.num_lanes + tap + place
                entry = kernel * job["num_vec"] * halves + vec * halves + half
                found.append((value, pixel, entry, group % 2, int(halves == 2 and half == 0)))
        group += is_last
    return found


def run(job, num_groups=NUM_GROUPS, num_cycles=150):
    """Issues with their cycles, the cycles of the strobes, and the states; windows and buffers are always there."""
    dut = Sequencer(CONFIG)
    issues, strobes, states = [], {"window_released": [], "group_done": []}, []
    entry_step = job["num_vec"] << job["is_wide"]

    async def jobs(ctx):
        await send(ctx, dut.job, [job])

    async def places(ctx):
        names = ("value", "tap_offset", "entry", "is_new_window", "is_last")
        tokens = [dict(zip(names, token, strict=True)) for token in weights(num_groups)]
        size = len(tokens) // num_groups
        for n, token in enumerate(tokens):
            token |= {"entry": token["entry"] * entry_step, "is_last_group": n >= len(tokens) - size, "is_last_sb": 1}
            await send(ctx, dut.weights, [token])

    async def windows(ctx):
        for cycle in range(num_cycles):
            ctx.set(dut.window_filled, cycle < sum(token[3] for token in weights(num_groups)))
            ctx.set(dut.group_drained, ctx.get(dut.group_done))
            issue = dut.issue
            if ctx.get(issue.is_valid):
                seen = (issue.value, issue.pixel, issue.entry, issue.buffer, issue.is_low)
                issues.append((cycle, tuple(ctx.get(value) for value in seen)))
            for name, cycles in strobes.items():
                if ctx.get(getattr(dut, name)):
                    cycles.append(cycle)
            states.append(ctx.get(dut.state))
            await ctx.tick()

    simulate(dut, jobs, places, windows)
    return issues, strobes, states


@pytest.mark.parametrize("is_wide", [0, 1])
def test_every_weight_meets_its_vectors(is_wide):
    job = JOB | {"is_wide": is_wide}
    issues, strobes, states = run(job)
    assert [issue for _, issue in issues] == expected(job, NUM_GROUPS)
    assert len(strobes["window_released"]) == sum(token[3] for token in weights(NUM_GROUPS))
    assert len(strobes["group_done"]) == NUM_GROUPS
    assert strobes["group_done"][-1] - issues[-1][0] == Sequencer.FINISH_CYCLES - 1
    assert states.count(CoreState.BUSY) == len(issues)
    assert states[-1] == CoreState.JOB


def test_weights_follow_without_a_gap():
    issues, _, _ = run(JOB | {"num_vec_last": 4}, num_groups=1)
    cycles = [cycle for cycle, _ in issues]
    num_zeros = 1
    assert cycles[-1] - cycles[0] == len(cycles) - 1 + num_zeros
