"""What a layer costs at least if nothing but zero weights is left out, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from convoy.driver.emit.program import NpuStep, Plan
from convoy.driver.graph.graph import Graph, Op, Tensor
from convoy.driver.plan.macs import dense_macs

__all__ = ["Floor", "find_floors"]

_CUTS = ("SLICE", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "UNPACK")
"""Read no more than they write."""


@dataclass(frozen=True)
class Floor:
    """The least that a layer costs: the larger of its multiply-accumulates, those with weights that are zero left out,
    over the multipliers, and of the bytes that it must read and of those that it must write, each once, over the width
    of the port, which reads and writes at the same time.

    Nothing may be read twice: inputs and weights that are not zero count once, whatever the tiling reads again.
    Parameters, tables and descriptors, which are Convoy's own, do not count. Operators that are fused count as one
    layer. It is a yardstick, not a bound: swapped operands also skip activations that are zero and pads, which count
    here, the next layer could overlap with this one, and a result could stay in the NPU.
    """

    cycles: int = 0
    read_bytes: int = 0
    write_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        """Read and written."""
        return self.read_bytes + self.write_bytes


def find_floors(plan: Plan) -> dict[int, Floor]:
    """That of each operator which has descriptors, together with what is fused with it, by the operator's index."""
    steps = [step for step in plan.steps if isinstance(step, NpuStep)]
    working = {index for step in steps for index in step.program.ops}
    fused = {index for step in steps for index, engine in step.engines.items() if engine == "fused"}
    ops = [op for op in plan.graph.ops if op.index in working | fused]
    return {
        next(op.index for op in reversed(layer) if op.index in working): _floor(plan, layer)
        for layer in _layers(ops, plan)
        if any(op.index in working for op in layer)
    }


def _layers(ops: Sequence[Op], plan: Plan) -> list[list[Op]]:
    """Operators that share a result which is never stored belong together."""
    tensors = plan.graph.tensors
    layers: list[tuple[set[int], list[Op]]] = []
    for op in ops:
        hidden = {
            index
            for index in (*op.inputs, *op.outputs)
            if index >= 0 and tensors[index].is_activation and index not in plan.placements
        }
        joined = [layer for layer in layers if not hidden.isdisjoint(layer[0])]
        layers = [layer for layer in layers if hidden.isdisjoint(layer[0])]
        layers.append((hidden.union(*(of for of, _ in joined)), [*(one for _, many in joined for one in many), op]))
    return [layer for _, layer in layers]


def _floor(plan: Plan, layer: Sequence[Op]) -> Floor:
    graph, npu = plan.graph, plan.config
    written = sum(_bytes(graph.tensors[index]) for op in layer for index in op.outputs if index in plan.placements)
    made = {index for op in layer for index in op.outputs}
    read: dict[int, int] = {}
    for op in layer:
        for place, index in enumerate(op.inputs):
            if index >= 0 and index not in made:
                read[index] = max(read.get(index, 0), _read_bytes(plan, op, place))
    if len(layer) == 1 and layer[0].kind in _CUTS:
        read = {-1: written}
    read_bytes = sum(read.values())
    macs = sum(_useful_macs(graph, op) for op in layer)
    cycles = max(ceil(macs / npu.macs_per_cycle), ceil(max(read_bytes, written) / npu.port_bytes))
    return Floor(cycles, read_bytes, written)


def _read_bytes(plan: Plan, op: Op, place: int) -> int:
    """Of an operand: constants have no zeros to read, activations must lie in memory. A kernel smaller than its stride
    skips what lies between.
    """
    tensor = plan.graph.tensors[op.inputs[place]]
    if tensor.data is not None:
        return int(np.count_nonzero(tensor.data)) * tensor.dtype.itemsize
    if op.inputs[place] not in plan.placements:
        return 0
    return min(_bytes(tensor), _touched_bytes(plan.graph, op)) if place == 0 else _bytes(tensor)


def _touched_bytes(graph: Graph, op: Op) -> int:
    tensor = graph.tensors[op.inputs[0]]
    if op.kind != "CONV_2D":
        return _bytes(tensor)
    _, height, width, channels = graph.tensors[op.inputs[1]].shape
    return prod(graph.tensors[op.outputs[0]].shape[:-1]) * height * width * channels * tensor.dtype.itemsize


def _useful_macs(graph: Graph, op: Op) -> float:
    macs = dense_macs(graph, op)
    weights = graph.tensors[op.inputs[1]].data if macs else None
    return macs * np.count_nonzero(weights) / weights.size if weights is not None and weights.size else macs


def _bytes(tensor: Tensor) -> int:
    return prod(tensor.shape) * tensor.dtype.itemsize
