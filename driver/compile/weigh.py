"""Estimated cycles of tasks: what choices are weighed by."""

from __future__ import annotations

from collections.abc import Sequence

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
from convoy.driver.plan.swap import SwappedTiling
from convoy.driver.plan.tile import Tiling, striped_tilings
from convoy.spec.config import NpuConfig

__all__ = ["conv_cycles", "op_cycles", "striped", "tp_task_cycles"]

NUMS_OF_STRIPES = 2, 4, 8, 16
"""Of a convolution that works while its input is still made."""


def op_cycles(schedule: Schedule, tilings: dict[int, Tiling | SwappedTiling], config: NpuConfig) -> dict[int, float]:
    """Estimated cycles of all tasks of each operator, by operator index; `tilings` by number of the task."""
    convs: dict[int, list[tuple[ConvWork, PhaseWork | None, Tiling | SwappedTiling]]] = {}
    others: dict[int, list[float]] = {}
    for number, task in enumerate(schedule.tasks):
        of_op, cycles = convs.setdefault(task.op.index, []), others.setdefault(task.op.index, [])
        if isinstance(task, ConvTask):
            before, tiling = schedule.before(number), tilings[number]
            of_op.append((task.work, task.phases, tiling))
            if before is not None and isinstance(tiling, Tiling):  # what of it is hidden
                tp, nn = tp_task_cycles(before, schedule, config), tiling.cost.cycles
                cycles.append(overlapped_cycles(tp, nn, len(tiling.stripes)) - tp - nn)
        elif isinstance(task, Task):
            cycles.append(tp_task_cycles(task, schedule, config))
    return {
        index: (conv_cycles(of_op, config) if of_op else 0.0) + sum(others[index]) for index, of_op in convs.items()
    }


def conv_cycles(convs: Sequence[tuple[ConvWork, PhaseWork | None, Tiling | SwappedTiling]], config: NpuConfig) -> float:
    """Estimated cycles of the convolutions of an operator and of the phase planes made for them, each stripe's while
    the one before is computed.
    """
    nn = sum(tiling.cost.cycles for _, _, tiling in convs)
    tp = [
        cycles
        for work, phases, tiling in convs
        if isinstance(tiling, Tiling)
        for cycles in _phase_cycles(work, phases, tiling, config)
    ]
    num_stages = max(1, sum(cycles > 0 for cycles in tp))
    return overlapped_cycles(sum(tp), nn, num_stages) + fitted.TP_START_CYCLES * any(tp)


def overlapped_cycles(tp: float, nn: float, num_stages: int) -> float:
    """Estimated cycles of both engines that work one behind the other in so many steps."""
    return max(tp, nn) + min(tp, nn) / num_stages


def striped(tiling: Tiling, work: ConvWork, made: float | PhaseWork, config: NpuConfig) -> Tiling:
    """More stripes, if they pay because the tensor processor makes the input meanwhile: in so many cycles, or as phase
    planes, if these are for this convolution alone.
    """
    if isinstance(made, PhaseWork) and (len(made.channels) < made.split.num_ic or work.is_depthwise):
        return tiling
    known: dict[tuple, float] = {}

    def cycles(choice: Tiling) -> float:
        key = tuple((stripe.first_row, stripe.first_col) for stripe in choice.stripes)
        if key not in known:
            known[key] = sum(_phase_cycles(work, made, choice, config)) if isinstance(made, PhaseWork) else made
        num = len(choice.stripes)
        return overlapped_cycles(known[key], choice.cost.cycles, num) + num * fitted.TP_START_CYCLES

    return min([tiling, *striped_tilings(tiling, work, NUMS_OF_STRIPES, config)], key=cycles)


def _phase_cycles(work: ConvWork, phases: PhaseWork | None, tiling: Tiling, config: NpuConfig) -> list[float]:
    """Estimated cycles of the phase planes made for each stripe."""
    return [
        sum(block_cycles(block, config) for block in blocks)
        for blocks in phase_blocks(phases, work, tiling, 0, 0, config)
    ]


def tp_task_cycles(task: Task, schedule: Schedule, config: NpuConfig) -> float:
    """Estimated cycles of a task that is not a convolution."""
    work = task.work
    if isinstance(work, PoolWork):
        return pool_cycles(work, config)
    if isinstance(work, ElementwiseWork) and work.is_plain_sum:
        return tp_cycles("add", work.num_elements, 2 * work.num_elements, config)
    if isinstance(work, LutWork):
        return tp_cycles("copy", work.num_elements, work.num_elements, config)
    if isinstance(work, ZoomWork):
        return tp_cycles(
            "zoom",
            work.num_ic * work.rows.size_out * work.cols.size_out,
            work.num_ic * work.rows.size_in * work.cols.size_in,
            config,
        )
    if isinstance(work, (CopyWork, ElementwiseWork, InterleaveWork, MoveWork, RepeatWork)):
        return fitted.TP_START_CYCLES + sum(
            block_cycles(block, config) for block in tp_blocks(task, [0] * len(schedule.buffers), 0, config)
        )
    return 0.0
