"""Estimated cycles of tasks: what choices are weighed by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, prod

import numpy as np

from convoy.driver.emit.ahead import blocks_ahead
from convoy.driver.emit.descriptors import phase_blocks, row_ends, tp_blocks, work_blocks
from convoy.driver.emit.tp_phases import split_blocks
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
from convoy.driver.plan.cost import block_cycles, copy_cycles, pool_cycles, tp_cycles
from convoy.driver.plan.orders import CopyWork
from convoy.driver.plan.phases import PhaseSplit
from convoy.driver.plan.schedule import ConvTask, PhaseWork, Schedule, Task
from convoy.driver.plan.swap import SwappedTiling
from convoy.driver.plan.tile import Tiling, striped_tilings, tile_work
from convoy.driver.plan.turns import Step, Steps
from convoy.spec.config import NpuConfig
from convoy.spec.isa import TpOp
from convoy.spec.limits import missing_unit

__all__ = [
    "PlanesAhead",
    "TaskAhead",
    "conv_cycles",
    "op_cycles",
    "steps_cycles",
    "striped",
    "striped_planes",
    "tp_task_cycles",
]

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
                made = TaskAhead(before, task, schedule, config).stripe_cycles(tiling)
                cycles.append(_striped_cycles(made, tiling) - sum(made) - tiling.cost.cycles)
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


def _striped_cycles(made: Sequence[float], tiling: Tiling) -> float:
    """Estimated cycles of a convolution that computes a stripe while the tensor processor makes what the next one
    reads: in so many cycles for each of them.
    """
    made_at, done = 0.0, 0.0
    num_pixels = sum(stripe.num_rows * stripe.num_cols for stripe in tiling.stripes)
    for cycles, stripe in zip(made, tiling.stripes, strict=True):
        made_at += cycles
        done = max(done, made_at) + tiling.cost.cycles * stripe.num_rows * stripe.num_cols / num_pixels
    return done


@dataclass(frozen=True)
class TaskAhead:
    """The task `before` makes the input of a convolution."""

    before: Task
    task: ConvTask
    schedule: Schedule
    config: NpuConfig

    def stripe_cycles(self, tiling: Tiling) -> list[float]:
        """For each stripe the estimated cycles of what has to be there for it and not for those before it."""
        ends = row_ends(self.task.work, tiling) if isinstance(self.before.work, CopyWork) else []
        made = range(self.schedule.buffers[self.before.target].num_bytes)
        parts = blocks_ahead(self._blocks(ends), made, self.task.work, tiling, self.task.in_offset)
        sizes = np.array([sum(prod(block[f"num_{n}"] for n in range(3)) for block in part) for part in parts])
        return (tp_task_cycles(self.before, self.schedule, self.config) * sizes / sizes.sum()).tolist()

    def _blocks(self, ends: Sequence[int]) -> list[dict[str, int]]:
        addrs, num_bytes = [0] * len(self.schedule.buffers), self.schedule.buffers[self.before.target].num_bytes
        return tp_blocks(self.before, addrs, num_bytes, self.config, row_ends=ends)


@dataclass(frozen=True)
class PlanesAhead:
    """The phase planes that a convolution reads are made for it alone."""

    phases: PhaseWork
    work: ConvWork
    config: NpuConfig

    def stripe_cycles(self, tiling: Tiling) -> list[float]:
        """As `TaskAhead.stripe_cycles`."""
        row_cycles = _row_cycles(self.phases.split, self.phases.channels, self.config)
        return (np.diff(row_ends(self.work, tiling), prepend=0) * row_cycles).tolist()


@lru_cache(maxsize=1024)
def _row_cycles(split: PhaseSplit, channels: range, config: NpuConfig) -> float:
    """Estimated cycles of a row of phase planes."""
    rows = range(split.rows.size)
    return sum(block_cycles(block, config) for block in split_blocks(split, channels, rows, 0, 0, config)) / len(rows)


def striped_planes(tiling: Tiling, work: ConvWork, phases: PhaseWork, config: NpuConfig) -> Tiling:
    """As `striped`, of phase planes if they are made for this convolution alone."""
    if len(phases.channels) < phases.split.num_ic or work.is_depthwise:
        return tiling
    return striped(tiling, work, PlanesAhead(phases, work, config), config)


def striped(tiling: Tiling, work: ConvWork, made: TaskAhead | PlanesAhead, config: NpuConfig) -> Tiling:
    """More stripes, if they pay because the tensor processor makes the input meanwhile."""
    known: dict[tuple, list[float]] = {}

    def made_once(choice: Tiling) -> list[float]:
        key = tuple((stripe.first_row, stripe.first_col) for stripe in choice.stripes)
        if key not in known:
            known[key] = made.stripe_cycles(choice)
        return known[key]

    def cycles(choice: Tiling) -> float:
        return _striped_cycles(made_once(choice), choice) + len(choice.stripes) * fitted.TP_START_CYCLES

    choices = striped_tilings(tiling, work, NUMS_OF_STRIPES, config)
    for first in choices:
        if len(first.stripes) > 1 and not any(made_once(first)[1:]):  # its first stripe waits for all
            break
        return min([tiling, first, *choices], key=cycles)
    return tiling


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
        return _zoom_cycles(work, config)
    if isinstance(work, (CopyWork, ElementwiseWork, InterleaveWork, MoveWork, RepeatWork)):
        return fitted.TP_START_CYCLES + sum(
            block_cycles(block, config) for block in tp_blocks(task, [0] * len(schedule.buffers), 0, config)
        )
    return 0.0


def _zoom_cycles(work: ZoomWork, config: NpuConfig) -> float:
    (height_in, height), (width_in, width) = ((axis.size_in, axis.size_out) for axis in (work.rows, work.cols))
    if missing_unit(work.op, config):
        return inf
    name = "zoom" if work.op == TpOp.BILINEAR else "nearest"
    return tp_cycles(name, work.num_ic * height * width, work.num_ic * height_in * width_in, config)


def steps_cycles(steps: Steps, config: NpuConfig) -> float:
    """Estimated cycles of works step by step: each begins when those before it have begun, what it reads is made and
    its engine is free.

    Raises
    ------
    GraphError
        When there is no room for one of them.
    """
    begun, free, done = 0.0, {True: 0.0, False: 0.0}, list[float]()
    for step in steps.steps:
        is_conv = isinstance(step.works[0], ConvWork)
        begun = max(begun, free[is_conv], done[step.source] if step.source >= 0 else 0.0)
        free[is_conv] = begun + _step_cycles(step, config)
        done.append(free[is_conv])
    return max(done)


def _step_cycles(step: Step, config: NpuConfig) -> float:
    """Estimated cycles of the works of a step, which follow one another without a pause."""
    total = 0.0
    for work in step.works:
        if isinstance(work, ConvWork):
            total += tile_work(work, config).cost.cycles
        elif isinstance(work, ZoomWork):
            total += _zoom_cycles(work, config)
        else:
            blocks = work_blocks(work, [0], 0, step.num_bytes, config)
            total += sum(copy_cycles(block, config) for block in blocks)
            total += fitted.TP_START_CYCLES * (work is step.works[0])
    return total
