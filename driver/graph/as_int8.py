"""The NPU sees uint8 activations as int8: with the top bit flipped, 128 less, and so is their zero point."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

import numpy as np

from .graph import Graph, Op, Tensor

__all__ = ["signed_view"]


def signed_view(graph: Graph, looked_at: Container[int] | None = None) -> Graph:
    """The same network with int8 for every activation of uint8, or for those only that are `looked_at`, by index.

    Constants stay what they are; averages say how they round.
    """
    return replace(
        graph,
        tensors=tuple(
            _signed(tensor) if looked_at is None or index in looked_at else tensor
            for index, tensor in enumerate(graph.tensors)
        ),
        ops=tuple(_rounded(graph, op) for op in graph.ops),
    )


def _rounded(graph: Graph, op: Op) -> Op:
    """TFLite rounds halves away from zero: of unsigned values that is up."""
    is_half_up = op.kind in ("AVERAGE_POOL_2D", "RESIZE_BILINEAR") and graph.tensors[op.inputs[0]].dtype == np.uint8
    return replace(op, options={**op.options, "is_half_up": True}) if is_half_up else op


def _signed(tensor: Tensor) -> Tensor:
    if tensor.dtype != np.uint8 or tensor.data is not None:
        return tensor
    quant = tensor.quant and replace(tensor.quant, zero_point=tensor.quant.zero_point - 128)
    return replace(tensor, dtype=np.dtype(np.int8), quant=quant)
