"""Schedule -> tiled schedule: how each convolution is cut into stripes, groups and superblocks."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from convoy.driver.graph.graph import Graph, GraphError
from convoy.driver.lower.operands import Refusal
from convoy.driver.lower.work import ConvWork
from convoy.driver.plan.phases import is_native
from convoy.driver.plan.schedule import ConvTask, HostTask, Schedule, Task
from convoy.driver.plan.swap import SwappedTiling, plain_form, swap_form, swap_work
from convoy.driver.plan.tile import Tiling, tile_work
from convoy.spec.config import NpuConfig

from .weigh import TaskAhead, striped, striped_planes

__all__ = ["Tiled", "choose_tilings"]


@dataclass(frozen=True)
class Tiled:
    """A schedule whose convolutions are tiled."""

    schedule: Schedule
    tilings: dict[int, Tiling | SwappedTiling]
    """By number of the task, for all convolutions unless there is a refusal."""
    refusal: Refusal | None = None
    """Why one of the convolutions cannot be tiled."""

    @property
    def tilings_by_op(self) -> dict[int, Tiling | SwappedTiling]:
        """By operator index: that of its last convolution."""
        return {self.schedule.tasks[number].op.index: tiling for number, tiling in self.tilings.items()}


def choose_tilings(graph: Graph, schedule: Schedule, config: NpuConfig) -> Tiled:
    """The cheapest tiling of every convolution of a schedule for `graph`, with its operands swapped or not.

    A layer on a single pixel is folded: its task has other work then.
    """
    tasks: list[Task | HostTask] = []
    tilings: dict[int, Tiling | SwappedTiling] = {}
    known: dict[int, tuple[ConvWork, Tiling | SwappedTiling]] = {}  # by identity: the images of a batch have one work
    for number, task in enumerate(schedule.tasks):
        if isinstance(task, ConvTask):
            try:
                if id(task.work) not in known:
                    known[id(task.work)] = _choose(task, config)
            except GraphError as error:
                return Tiled(schedule, {}, Refusal(graph, task.op, str(error)))
            work, tiling = known[id(task.work)]
            if isinstance(tiling, Tiling):
                if (before := schedule.before(number)) is not None:
                    made = TaskAhead(before, replace(task, work=work), schedule, config)
                    tiling = striped(tiling, work, made, config)
                elif task.phases is not None:
                    tiling = striped_planes(tiling, work, task.phases, config)
            tilings[number] = tiling
            task = replace(task, work=work)
        tasks.append(task)
    return Tiled(replace(schedule, tasks=tuple(tasks)), tilings)


def _choose(task: ConvTask, config: NpuConfig) -> tuple[ConvWork, Tiling | SwappedTiling]:
    """The form of a task's convolution that is estimated to take less time, and its tiling; phase planes are made for
    stripes of pixels.

    Raises
    ------
    GraphError
        When it can be tiled in no form.
    """
    swapped = None if task.phases else swap_work(task.work, config)
    if swapped is None:
        return _tile(task.work, config)
    if is_native(task.work):
        with suppress(GraphError):
            form, tiling = _tile(task.work, config)
            if not swapped.is_faster(tiling.cost.cycles):
                return form, tiling
    return swap_form(task.work), swapped


def _tile(work: ConvWork, config: NpuConfig) -> tuple[ConvWork, Tiling]:
    """A convolution and its tiling, as a row if it is a layer on one pixel; the refusal of the convolution itself if
    neither can be tiled.
    """
    row = plain_form(work, config)
    with suppress(GraphError):
        return row, tile_work(row, config)
    return work, tile_work(work, config)
