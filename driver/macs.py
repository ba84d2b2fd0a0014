"""Dense multiply-accumulates of an operator: what utilisation is measured against."""

from __future__ import annotations

from math import prod

from .graph import Graph, Op

__all__ = ["dense_macs"]


def dense_macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of a convolution, depthwise convolution or fully connected layer, zeros and pads included; 0 for any other operator."""
    if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weights, out = graph.tensors[op.inputs[1]].shape, graph.tensors[op.outputs[0]].shape
    per_output = weights[1] * weights[2] if op.kind == "DEPTHWISE_CONV_2D" else prod(weights[1:])
    return prod(out) * per_output
