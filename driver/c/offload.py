"""What of a network the C runtime executes: the programs of the NPU, without what the CPU does before and behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from convoy.driver.emit.program import HostStep, NpuStep, Plan
from convoy.driver.errors import GraphError
from convoy.driver.graph.graph import Op
from convoy.driver.lower.operands import describe
from convoy.driver.report.host_report import remedy

__all__ = ["Offload", "find_offload"]

HostOps = tuple[tuple[Op, str], ...]
"""Operators that the NPU does not execute, and why not."""


@dataclass(frozen=True)
class Offload:
    """What of a plan the C runtime executes, and what is left to the application."""

    steps: tuple[NpuStep, ...]
    inputs: tuple[int, ...]
    """Tensors that the application writes into NPU memory."""
    outputs: tuple[int, ...]
    """Tensors that it reads there."""
    before: HostOps
    """At the beginning of the network: the application gives their results."""
    after: HostOps
    """At its end: the application gets their operands."""


def find_offload(plan: Plan) -> Offload:
    """The programs of a plan.

    Raises
    ------
    GraphError
        When the NPU executes nothing, or operators of the CPU stand between programs; the message names them.
    """
    numbers = [n for n, step in enumerate(plan.steps) if isinstance(step, NpuStep) and step.program.descriptors]
    if not numbers:
        raise GraphError("no operator of the network runs on the NPU; `convoy operators MODEL` says why")
    first, last = numbers[0], numbers[-1]
    steps = [step for step in plan.steps[first : last + 1] if isinstance(step, NpuStep)]
    if between := _host_ops(plan.steps[first : last + 1]):
        raise GraphError(
            "the C runtime executes no operators of the CPU, and there are some between those of the NPU: "
            + "; ".join(
                f"{describe(plan.graph, op)}: {reason}" + (f" ({advice})" if (advice := remedy(reason)) else "")
                for op, reason in between
            )
        )
    ops = {op.index: op for op in plan.graph.ops}
    layers = [ops[index] for step in steps for index in step.layers]
    made = {index for op in layers for index in op.outputs}
    read = [index for op in layers for index in op.inputs if index >= 0 and plan.graph.tensors[index].is_activation]
    later = [index for step in plan.steps[last + 1 :] for index in _inputs(plan, step)]
    return Offload(
        tuple(step for step in steps if step.program.descriptors),
        tuple(dict.fromkeys(index for index in read if index not in made)),
        tuple(dict.fromkeys(index for index in (*plan.graph.outputs, *later) if index in made)),
        _host_ops(plan.steps[:first]),
        _host_ops(plan.steps[last + 1 :]),
    )


def _host_ops(steps: Iterable[NpuStep | HostStep]) -> HostOps:
    found = (zip(step.ops, step.reasons, strict=True) for step in steps if isinstance(step, HostStep))
    return tuple(pair for pairs in found for pair in pairs)


def _inputs(plan: Plan, step: NpuStep | HostStep) -> Iterable[int]:
    """The tensors that a step reads."""
    if isinstance(step, HostStep):
        return step.inputs(plan.graph)
    return [index for op in plan.graph.ops if op.index in step.layers for index in op.inputs]
