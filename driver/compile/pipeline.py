"""`compile_graph`: a network becomes a plan of NPU programs and host steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

from convoy.driver.emit.program import Plan
from convoy.driver.graph.graph import Graph, GraphError
from convoy.driver.lower.fuse import fuse
from convoy.driver.lower.network import lower_network
from convoy.driver.plan.schedule import schedule
from convoy.driver.plan.tile import Tiling
from convoy.spec.config import NpuConfig

from .choose import is_sum_cheaper_fused, nn_strides, op_cycles, pool_refusal, tile_all
from .image import emit_plan

__all__ = ["Compiled", "compile_graph", "compile_with_costs"]


@dataclass(frozen=True)
class Compiled:
    """A plan with what the compiler thought of it."""

    plan: Plan
    cycles: dict[int, float]
    """Estimated cycles by operator index, conversions of its operands included."""
    tilings: dict[int, Tiling]
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
    """`compile_graph`, with the estimates behind its choices."""
    edge_inputs = set(graph.inputs)
    if layers is not None:
        graph = _cut(graph, layers)
    works, notes = lower_network(graph, is_strict=is_strict), {}
    if is_fusing:
        works, notes = fuse(
            graph,
            works,
            lambda conv, add: is_sum_cheaper_fused(conv, add, config),
            lambda conv: pool_refusal(conv, config),
            config.pool_line_bytes,
        )
    choices, refusals = [], []
    for is_transposed in (False, True):
        plan = schedule(
            graph,
            works,
            config,
            is_transposed=is_transposed,
            nn_strides=lambda work: nn_strides(work, config),
            edge_inputs=edge_inputs,
        )
        try:
            tilings = tile_all(graph, plan, config)
        except GraphError as error:
            refusals.append(error)
            continue
        numbers: dict[int, list[int]] = {}
        for number, task in enumerate(plan.tasks):
            numbers.setdefault(task.op.index, []).append(number)
        cycles = {index: op_cycles(of_op, plan, tilings, config) for index, of_op in numbers.items()}
        choices.append((sum(cycles.values()), is_transposed, plan, tilings, cycles))
    if not choices:
        raise refusals[-1]
    _, is_transposed, plan, tilings, cycles = min(choices, key=lambda choice: choice[:2])
    by_op = {plan.tasks[number].op.index: tiling for number, tiling in tilings.items()}
    return Compiled(emit_plan(graph, config, plan, tilings, notes, keep_tensors), cycles, by_op, is_transposed)


def _cut(graph: Graph, layers: range) -> Graph:
    """The part of a network between two positions, with the inputs and outputs that this makes; what is read from
    variables is an input.
    """
    if layers.step != 1 or not 0 <= layers.start < layers.stop <= len(graph.ops):
        raise GraphError(f"layers {layers.start}:{layers.stop} are not part of 0:{len(graph.ops)}")
    ops = tuple(
        op for op in graph.ops[layers.start : layers.stop] if op.kind not in ("READ_VARIABLE", "ASSIGN_VARIABLE")
    )
    made = {index for op in ops for index in op.outputs}
    read = [
        index
        for op in ops
        for index in op.inputs
        if index >= 0 and graph.tensors[index].data is None and index not in made
    ]
    used_later = {index for op in graph.ops[layers.stop :] for index in op.inputs} | set(graph.outputs)
    used_inside = {index for op in ops for index in op.inputs}
    outputs = [index for op in ops for index in op.outputs if index in used_later or index not in used_inside]
    return replace(
        graph, ops=ops, inputs=tuple(dict.fromkeys(read)), outputs=tuple(dict.fromkeys(outputs)), variables=()
    )
