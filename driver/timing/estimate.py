"""What a plan will cost, without simulation: the same figures as a run, from the model of `timing`."""

from __future__ import annotations

import time
from dataclasses import dataclass

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import NpuStep, Plan, Program
from convoy.driver.emit.traffic import descriptor_traffic
from convoy.driver.graph.graph import Graph
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import Execution, LayerCost
from convoy.spec.config import NpuConfig
from convoy.spec.isa import Cause, Opcode

from .front import Timed, end_cycles, time_program

__all__ = ["Estimator", "estimate", "estimated_cycles"]


@dataclass(frozen=True)
class Estimator:
    """Takes the place of a device in a report: there is timing, but no NPU."""

    memory_model: MemoryModel


def estimate(plan: Plan, memory: MemoryModel) -> Execution:
    """Cycles, bytes and lost cycles of every layer; `tensors` is empty, `seconds` is what the estimate took."""
    started = time.perf_counter()
    execution = Execution()
    for step in plan.steps:
        if isinstance(step, NpuStep):
            execution.costs |= {index: LayerCost() for index in step.layers}
            if step.program.descriptors:
                booked = _book(execution, step.program, time_program(step.program, plan.config, memory), plan.config)
                execution.cycles += booked + end_cycles(plan.config, memory)
    execution.seconds = time.perf_counter() - started
    return execution


def estimated_cycles(graph: Graph, config: NpuConfig, memory: MemoryModel) -> int:
    """Of a network, compiled as `convoy run` compiles it.

    Raises
    ------
    GraphError
        When it cannot be compiled.
    """
    return estimate(compile_graph(graph, config, keep_tensors=True), memory).cycles


def _book(execution: Execution, program: Program, times: list[Timed], config: NpuConfig) -> int:
    """Give each layer its descriptors' time, as `Session` does; the cycles of the program."""
    cores, now = config.num_cores, 0
    execution.completions.append(tuple(round(timed.completed) for timed in times))
    for timed in sorted(times, key=lambda timed: (timed.completed, timed.index)):
        cost = execution.costs[program.ops[timed.index]]
        cycles, now = round(timed.completed) - now, round(timed.completed)
        cost.cycles += cycles
        if timed.spent is None:
            cost.tp_cycles += cycles
        cost.traffic += descriptor_traffic(program, timed.index, config)
        _book_causes(cost, timed, cycles * cores)
    first = execution.costs[program.ops[0]]
    dispatch = round(times[0].accepted) * cores
    rest = Cause.TP if times[0].opcode == Opcode.TP else Cause.DRAIN
    moved = min(dispatch, first.core_cycles[rest])
    first.core_cycles[rest] -= moved
    first.core_cycles[Cause.DISPATCH] += moved
    return now


def _book_causes(cost: LayerCost, timed: Timed, total: int) -> None:
    """Of `total` core cycles until the completion: what the model has seen of them, and the rest."""
    if timed.spent is None:
        cost.core_cycles[Cause.TP] += total
        return
    spent = {cause: round(cycles) for cause, cycles in timed.spent.core_cycles.items()}
    for cause in sorted(Cause, key=lambda cause: cause != Cause.BUSY):  # what overlaps with the job before is left out
        share = min(spent[cause], total)
        cost.core_cycles[cause] += share
        total -= share
    cost.core_cycles[Cause.DRAIN] += total
