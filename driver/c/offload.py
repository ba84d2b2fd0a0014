"""What of a network the C runtime executes: the programs of the NPU, without what the CPU does before and behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from convoy.driver.emit.program import HostStep, NpuStep, Plan
from convoy.driver.errors import GraphError
from convoy.driver.graph.graph import Op
from convoy.driver.plan.macs import dense_macs
from convoy.driver.report.host_report import host_lines, remedy

__all__ = ["Offload", "find_offload"]

OpsOfOthers = tuple[tuple[Op, str], ...]
"""Operators that the runtime does not execute, and why not."""
BEYOND = "multiplies nothing, and an operator of the CPU is between it and the others of the NPU"


@dataclass(frozen=True)
class Offload:
    """What of a plan the C runtime executes, and what is left to the application."""

    steps: tuple[NpuStep, ...]
    inputs: tuple[int, ...]
    """Tensors that the application writes into NPU memory."""
    outputs: tuple[int, ...]
    """Tensors that it reads there."""
    before: OpsOfOthers
    """At the beginning of the network: the application gives their results."""
    after: OpsOfOthers
    """At its end: the application gets their operands."""


def find_offload(plan: Plan) -> Offload:
    """The programs of a plan without anything of the CPU between them. What is before them or behind is left to the
    application, as long as it multiplies nothing.

    Raises
    ------
    GraphError
        When the NPU executes nothing, or the CPU has to work between multiplications or multiplies itself; the message
        names its operators, the reasons and the remedies.
    """
    runs = _runs(plan)
    if not runs:
        raise GraphError("no operator of the network runs on the NPU; `convoy operators MODEL` says why")
    main = max(runs, key=lambda run: (_num_macs(plan, run), sum(len(_ops(plan, plan.steps[n])) for n in run)))
    multiplying = [n for n in range(len(plan.steps)) if _num_macs(plan, [n])] or main
    if multiplying[0] < main.start or multiplying[-1] >= main.stop:
        lines = host_lines(
            [
                {"op": op.title, "number": op.number, "reason": reason, "remedy": remedy(reason), "group": 0}
                for step in plan.steps[min(multiplying[0], main.start) : max(multiplying[-1] + 1, main.stop)]
                if isinstance(step, HostStep)
                for op, reason in zip(step.ops, step.reasons, strict=True)
            ]
        )
        raise GraphError(
            "the C runtime executes what the NPU does, and the network needs the CPU between its first and last "
            f"multiplication: {'; '.join(lines)}"
        )
    steps = [step for step in plan.steps[main.start : main.stop] if isinstance(step, NpuStep)]
    layers = [op for step in steps for op in _ops(plan, step)]
    made = {index for op in layers for index in op.outputs}
    read = [index for op in layers for index in op.inputs if index >= 0 and plan.graph.tensors[index].is_activation]
    later = [index for step in plan.steps[main.stop :] for op in _ops(plan, step) for index in op.inputs]
    return Offload(
        tuple(step for step in steps if _descriptors(step)),
        tuple(dict.fromkeys(index for index in read if index not in made)),
        tuple(dict.fromkeys(index for index in (*plan.graph.outputs, *later) if index in made)),
        _left_out(plan, plan.steps[: main.start]),
        _left_out(plan, plan.steps[main.stop :]),
    )


def _runs(plan: Plan) -> list[range]:
    """Steps of the NPU that follow one another, by number; those that do nothing are left out."""
    found = []
    for is_npu, group in groupby(range(len(plan.steps)), key=lambda number: isinstance(plan.steps[number], NpuStep)):
        numbers = list(group)
        if is_npu and any(_descriptors(plan.steps[number]) for number in numbers):
            found.append(range(numbers[0], numbers[-1] + 1))
    return found


def _descriptors(step: NpuStep | HostStep) -> Sequence[bytes]:
    return step.program.descriptors if isinstance(step, NpuStep) else ()


def _ops(plan: Plan, step: NpuStep | HostStep) -> Sequence[Op]:
    if isinstance(step, HostStep):
        return step.ops
    ops = {op.index: op for op in plan.graph.ops}
    return [ops[index] for index in step.layers]


def _num_macs(plan: Plan, run: Iterable[int]) -> int:
    return sum(dense_macs(plan.graph, op) for n in run for op in _ops(plan, plan.steps[n]))


def _left_out(plan: Plan, steps: Sequence[NpuStep | HostStep]) -> OpsOfOthers:
    return tuple(
        pair
        for step in steps
        for pair in zip(
            _ops(plan, step), step.reasons if isinstance(step, HostStep) else [BEYOND] * len(step.layers), strict=True
        )
    )
