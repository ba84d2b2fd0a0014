"""Operators on each element: sums and tables."""

from __future__ import annotations

import numpy as np

from .graph import Graph, GraphError, Op
from .host import HOST_OPS
from .lut import LUT_KINDS, make_lut
from .operands import activation, clamp, require
from .quantise import add_multipliers
from .work import AddWork, HostWork, LutWork

__all__ = ["ELEMENTWISE_LOWERINGS"]


def _lower_add(graph: Graph, op: Op) -> AddWork | HostWork:
    a, b, target = (graph.tensors[index] for index in (*op.inputs[:2], op.outputs[0]))
    if not a.shape == b.shape == target.shape:
        raise GraphError(f"shapes {a.shape} and {b.shape} differ: the NPU adds tensors of the same shape")
    a, b, target = (activation(graph, tensor.index) for tensor in (a, b, target))
    multipliers = add_multipliers(*(tensor.quant.scale[0] for tensor in (a, b, target)))
    names = "a", "b", "out"
    for name, (_, exponent) in zip(names, multipliers, strict=True):
        require(-31 <= exponent <= 0, f"the factor of {name} needs a shift of {exponent}; factors below 1 are supported")
    act_min, act_max = clamp(op, target)
    fields = {f"{name}_mult": mult for name, (mult, _) in zip(names, multipliers, strict=True)}
    fields |= {f"{name}_shift": -exponent for name, (_, exponent) in zip(names, multipliers, strict=True)}
    zero_points = {f"{name}_zero_point": int(tensor.quant.zero_point[0]) for name, tensor in (("a", a), ("b", b))}
    return AddWork(int(np.prod(target.shape)), fields | zero_points | {"zero_point_out": int(target.quant.zero_point[0]), "act_min": act_min, "act_max": act_max})


def _lower_lut(graph: Graph, op: Op) -> LutWork | HostWork:
    dtypes = {graph.tensors[index].dtype for index in (op.inputs[0], op.outputs[0])}
    if op.kind == "QUANTIZE" and dtypes != {np.dtype(np.int8)}:
        return HostWork("conversion between number formats at the edge of the network")
    if dtypes == {np.dtype(np.float32)} and op.kind in HOST_OPS:
        return HostWork("the NPU computes on int8, not on float32")
    source, target = activation(graph, op.inputs[0]), activation(graph, op.outputs[0])
    return LutWork(int(np.prod(target.shape)), make_lut(op.kind, source.quant, target.quant, op.options))


ELEMENTWISE_LOWERINGS = {"ADD": _lower_add, **dict.fromkeys(LUT_KINDS, _lower_lut)}
"""By kind of operator: (graph, operator) -> work. They raise `GraphError`."""
