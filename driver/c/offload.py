"""What of a network the C runtime executes: the programs of the NPU, without what the CPU does before and behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from convoy.driver.emit.program import HostStep, NpuStep, Plan
from convoy.driver.errors import GraphError
from convoy.driver.graph.graph import Op
from convoy.driver.lower.operands import describe
from convoy.driver.plan.macs import dense_macs
from convoy.driver.report.host_report import remedy

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
        When the NPU executes nothing, or operators of the CPU stand between multiplications of the NPU; the message
        names them.
    """
    runs = _runs(plan)
    if not runs:
        raise GraphError("no operator of the network runs on the NPU; `convoy operators MODEL` says why")
    main = max(runs, key=lambda run: (_num_macs(plan, run), _num_ops(plan, run)))
    multiplying = [run for run in runs if _num_macs(plan, run)] or [main]
    if len(multiplying) > 1:
        between = [
            f"{describe(plan.graph, op)}: {step_reason}" + (f" ({advice})" if (advice := remedy(step_reason)) else "")
            for step in plan.steps[multiplying[0].start : multiplying[-1].stop]
            if isinstance(step, HostStep)
            for op, step_reason in zip(step.ops, step.reasons, strict=True)
        ]
        raise GraphError(
            "the C runtime executes no operators of the CPU, and there are some between those of the NPU: "
            + "; ".join(between)
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


def _num_ops(plan: Plan, run: range) -> int:
    return sum(len(_ops(plan, plan.steps[n])) for n in run)


def _num_macs(plan: Plan, run: range) -> int:
    return sum(dense_macs(plan.graph, op) for n in run for op in _ops(plan, plan.steps[n]))


def _left_out(plan: Plan, steps: Sequence[NpuStep | HostStep]) -> OpsOfOthers:
    return tuple(
        pair
        for step in steps
        for pair in zip(
            _ops(plan, step), step.reasons if isinstance(step, HostStep) else [BEYOND] * len(step.layers), strict=True
        )
    )
