"""`compile_graph`: a network becomes a plan of NPU programs and host steps."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

import numpy as np

from convoy.driver.emit.program import Plan
from convoy.driver.graph.graph import Graph
from convoy.driver.lower.operands import Refusal
from convoy.driver.lower.work import ConvWork, ElementwiseWork, Work
from convoy.driver.plan.schedule import ConvTask, Schedule, schedule
from convoy.driver.plan.swap import SwappedTiling, swap_obstacle
from convoy.driver.plan.tile import Tiling
from convoy.spec.config import NpuConfig

from .cut import cut
from .expand import expand
from .fuse import Fusions, choose_fusions
from .hoist import hoist_functions
from .image import emit_plan
from .interleave import interleave
from .join import join_functions
from .lowering import lower_graph
from .missing_units import require_units
from .order import choose_order
from .orientation import choose_orientation
from .segments import find_segments
from .strides import choose_strides, readers_in_order
from .tilings import choose_tilings

__all__ = ["Compiled", "compile_graph", "compile_with_costs"]


@dataclass(frozen=True)
class Compiled:
    """A plan with what the compiler thought of it."""

    plan: Plan
    cycles: dict[int, float]
    """Estimated cycles by operator index, conversions of its operands included."""
    tilings: dict[int, Tiling | SwappedTiling]
    """By operator index, for those that the NN engine runs."""
    is_transposed: bool
    """Images are stored with columns as rows."""


def compile_graph(
    graph: Graph,
    config: NpuConfig,
    *,
    keep_tensors: bool = False,
    layers: range | None = None,
    is_fusing: bool = True,
    is_strict: bool = False,
) -> Plan:
    """Compile a network.

    Parameters
    ----------
    keep_tensors : every tensor in NPU memory keeps its place to the end; otherwise dead ones are overwritten
    layers : positions of the operators to compile, consecutive; activations that they read from others become inputs of
        the plan's graph
    is_fusing : operators may vanish into others, and results between them are then never stored
    is_strict : refuse what the NPU does not take, instead of leaving it to the host

    Raises
    ------
    GraphError
        When an operator cannot run; the message names it, the limit and the value seen.
    """
    return compile_with_costs(
        graph, config, keep_tensors=keep_tensors, layers=layers, is_fusing=is_fusing, is_strict=is_strict
    ).plan


def compile_with_costs(
    graph: Graph,
    config: NpuConfig,
    *,
    keep_tensors: bool = False,
    layers: range | None = None,
    is_fusing: bool = True,
    is_strict: bool = False,
) -> Compiled:
    """`compile_graph`, with the estimates behind its choices.

    Each pass takes values and returns one; none changes what it is given or calls back into one before it. When one
    behind lowering refuses an operator, all begin again, first for a form of it that reads less at once, then leaving
    it to the host.
    """
    part = cut(graph, layers) if layers is not None else graph
    edge_inputs, refused, narrow = frozenset(graph.inputs), _left_out(part, config), set[int]()
    reasons = dict[int, str]()
    while True:
        try:
            return _compile(part, config, edge_inputs, refused, frozenset(narrow), keep_tensors, is_fusing, is_strict)
        except Refusal as refusal:
            index = refusal.index
            reason = reasons.setdefault(index, refusal.reason)
            if index in refused:
                raise
            if index in narrow:
                refused[index] = reason
                if is_strict:
                    (op,) = (op for op in part.ops if op.index == index)
                    raise Refusal(part, op, f"{reason}; the host would execute it") from None
            narrow.add(index)


def _compile(
    graph: Graph,
    config: NpuConfig,
    edge_inputs: frozenset[int],
    refused: dict[int, str],
    narrow: frozenset[int],
    keep_tensors: bool,
    is_fusing: bool,
    is_strict: bool,
) -> Compiled:
    joined = hoist_functions(join_functions(graph, refused)) if is_fusing else graph
    expanded = expand(joined, config, frozenset(refused), narrow, is_absorbing=is_fusing)
    ordered = interleave(choose_order(expanded, lower_graph(expanded, refused, is_strict=is_strict)), config)
    expanded, works = ordered.graph, ordered.works
    fusions = choose_fusions(expanded, works, config) if is_fusing else Fusions(works, {})
    in_order = readers_in_order(expanded, fusions.works, edge_inputs)
    splits = [
        choose_strides(fusions.works, config, is_transposed=is_transposed, in_order=in_order)
        for is_transposed in (False, True)
    ]
    schedules = [schedule(expanded, fusions.works, split, edge_inputs=edge_inputs) for split in splits]
    tilings = [choose_tilings(expanded, made, config) for made in schedules]
    chosen = choose_orientation(tilings, config)
    require_units(expanded, chosen.tiled.schedule, config)
    segments = find_segments(expanded, chosen.tiled.schedule)
    notes = _with_obstacles(fusions.notes, chosen.tiled.schedule, config)
    plan = emit_plan(expanded, config, chosen.tiled, segments, notes, keep_tensors=keep_tensors)
    plan = replace(plan, doubts=_doubts(expanded, works, plan.placements))
    return Compiled(plan, chosen.cycles, chosen.tiled.tilings_by_op, chosen.tiled.schedule.is_transposed)


def _left_out(graph: Graph, config: NpuConfig) -> dict[int, str]:
    """Why operators go to the host that an NPU with all features would take, by their indices."""
    if config.has_int16:
        return {}
    reasons = {}
    for op in graph.ops:
        for index in (*op.inputs, *op.outputs):
            tensor = graph.tensors[index] if index >= 0 else None
            if tensor is not None and tensor.is_activation and tensor.dtype == np.int16:
                reasons[op.index] = f"{tensor.name!r} is int16, and this NPU has has_int16 = false"
    return reasons


def _with_obstacles(notes: dict[int, str], schedule: Schedule, config: NpuConfig) -> dict[int, str]:
    """Notes by operator index, and why the operands of layers are not swapped."""
    found = dict(notes)
    for task in schedule.tasks:
        if isinstance(task, ConvTask) and task.op.index not in found and (why := swap_obstacle(task.work, config)):
            found[task.op.index] = why
    return found


def _doubts(graph: Graph, works: tuple[Work, ...], stored: Container[int]) -> dict[int, int]:
    """By operator index: how many sums or pairs of operands may give a result that differs by one from the
    runtime's. Those of a result that is not among the `stored` tensors are its readers'.
    """
    found: dict[int, int] = {}
    for op, work in zip(graph.ops, works, strict=True):
        if isinstance(work, ConvWork | ElementwiseWork) and work.num_doubts:
            found[op.index] = found.get(op.index, 0) + work.num_doubts
        if op.index in found and not any(index in stored for index in op.outputs):
            for reader in graph.ops:
                if set(op.outputs).intersection(reader.inputs):
                    found[reader.index] = found.get(reader.index, 0) + found[op.index]
    return found
