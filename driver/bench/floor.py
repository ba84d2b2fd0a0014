"""Cycles that no schedule of a plan can go below, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod

import numpy as np

from convoy.driver.emit.program import NpuStep, Placement, Plan
from convoy.driver.graph.graph import Graph, Op, Tensor
from convoy.driver.plan.macs import dense_macs

__all__ = ["floor_cycles"]

_CUTS = ("SLICE", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "UNPACK")
"""Read no more than they write."""


def floor_cycles(plan: Plan) -> dict[int, int]:
    """Least cycles of each operator that has descriptors, by index.

    The larger of its multiply-accumulates, those with weights that are zero left out, over the multipliers, and the
    bytes that it must read or write, each once, over the width of the port. The next layer could overlap with it, and
    a result could stay in the NPU; the sum of a network's layers is a yardstick, not a bound.
    """
    ops = {op.index: op for op in plan.graph.ops}
    working = {index for step in plan.steps if isinstance(step, NpuStep) for index in step.program.ops}
    return {index: _floor(plan, ops[index]) for index in sorted(working)}


def _floor(plan: Plan, op: Op) -> int:
    graph, npu = plan.graph, plan.config
    written = sum(_bytes(graph.tensors[index]) for index in op.outputs if index in plan.placements)
    read = written if op.kind in _CUTS else _read_bytes(graph, op, plan.placements)
    return max(ceil(_useful_macs(graph, op) / npu.macs_per_cycle), ceil(max(read, written) / npu.port_bytes))


def _read_bytes(graph: Graph, op: Op, placements: Mapping[int, Placement]) -> int:
    """Activations in memory, and constants that have no zeros to leave out. A kernel smaller than its stride skips
    what lies between.
    """
    total = 0
    for place, index in enumerate(op.inputs):
        if index < 0:
            continue
        tensor = graph.tensors[index]
        if tensor.data is not None:
            total += int(np.count_nonzero(tensor.data)) * tensor.dtype.itemsize
        elif index in placements:
            total += min(_bytes(tensor), _touched_bytes(graph, op) if place == 0 else _bytes(tensor))
    return total


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
