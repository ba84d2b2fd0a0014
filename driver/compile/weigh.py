"""Estimated cycles of tasks: what choices are weighed by."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from convoy.driver.emit.descriptors import phase_blocks, tp_blocks
from convoy.driver.lower.work import (
    ConvWork,
    ElementwiseWork,
    InterleaveWork,
    LutWork,
    MoveWork,
    PoolWork,
    RepeatWork,
    ZoomWork,
)
from convoy.driver.plan import fitted
from convoy.driver.plan.cost import block_cycles, pool_cycles, tp_cycles
from convoy.driver.plan.orders import CopyWork
from convoy.driver.plan.schedule import ConvTask, PhaseWork, Schedule, Task
from convoy.driver.plan.tile import Tiling
from convoy.spec.config import NpuConfig

__all__ = ["conv_cycles", "op_cycles"]


def op_cycles(schedule: Schedule, tilings: dict[int, Tiling], config: NpuConfig) -> dict[int, float]:
    """Estimated cycles of all tasks of each operator, by operator index; `tilings` by number of the task."""
    convs: dict[int, list[tuple[ConvWork, PhaseWork | None, Tiling]]] = {}
    others: dict[int, list[float]] = {}
    for number, task in enumerate(schedule.tasks):
        of_op, cycles = convs.setdefault(task.op.index, []), others.setdefault(task.op.index, [])
        if isinstance(task, ConvTask):
            of_op.append((task.work, task.phases, tilings[number]))
        elif isinstance(task, Task):
            cycles.append(_tp_cycles(task, schedule, config))
    return {
        index: (conv_cycles(of_op, config) if of_op else 0.0) + sum(others[index]) for index, of_op in convs.items()
    }


def conv_cycles(convs: Sequence[tuple[ConvWork, PhaseWork | None, Tiling]], config: NpuConfig) -> float:
    """Estimated cycles of the convolutions of an operator and of the phase planes made for them, each stripe's while
    the one before is computed.
    """
    nn = sum(tiling.cost.cycles for _, _, tiling in convs)
    tp = [
        sum(block_cycles(block, config) for block in blocks)
        for work, phases, tiling in convs
        for blocks in phase_blocks(phases, work, tiling, 0, 0, config)
    ]
    num_stages = max(1, sum(cycles > 0 for cycles in tp))
    return max(sum(tp), nn) + min(sum(tp), nn) / num_stages + fitted.TP_START_CYCLES * any(tp)


def _tp_cycles(task: Task, schedule: Schedule, config: NpuConfig) -> float:
    """Estimated cycles of a task that is not a convolution."""
    work = task.work
    if isinstance(work, PoolWork):
        return pool_cycles(work, config)
    if isinstance(work, ElementwiseWork) and work.is_plain_sum:
        return tp_cycles("add", work.num_elements, 2 * work.num_elements, config)
    if isinstance(work, LutWork):
        return tp_cycles("copy", work.num_elements, work.num_elements, config)
    if isinstance(work, CopyWork):
        return tp_cycles("copy", prod(work.sizes), prod(work.sizes), config)
    if isinstance(work, ZoomWork):
        return tp_cycles(
            "zoom",
            work.num_ic * work.rows.size_out * work.cols.size_out,
            work.num_ic * work.rows.size_in * work.cols.size_in,
            config,
        )
    if isinstance(work, (ElementwiseWork, InterleaveWork, MoveWork, RepeatWork)):
        return fitted.TP_START_CYCLES + sum(
            block_cycles(block, config) for block in tp_blocks(task, [0] * len(schedule.buffers), 0, config)
        )
    return 0.0
