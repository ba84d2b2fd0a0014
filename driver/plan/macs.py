"""Multiply-accumulates: dense ones, which utilisation is measured against, and those that lanes do."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from convoy.driver.graph.graph import Graph, Op
from convoy.spec.config import NpuConfig

if TYPE_CHECKING:
    from convoy.driver.lower.work import ConvWork

    from .swap import SwappedTiling
    from .tile import Tiling

__all__ = ["LaneMacs", "dense_macs", "lane_macs", "swapped_lane_macs"]


@dataclass(frozen=True)
class LaneMacs:
    """What the lanes do for a layer: `issued` multiply-accumulates, of which `useful` ones make outputs; the others
    are past an edge.
    """

    issued: int = 0
    useful: int = 0

    def __add__(self, other: LaneMacs) -> LaneMacs:
        return LaneMacs(self.issued + other.issued, self.useful + other.useful)


def lane_macs(work: ConvWork, tiling: Tiling, config: NpuConfig) -> LaneMacs:
    """Every weight that is not zero meets every lane vector of every group, byte by byte, and is of use for every
    output pixel.
    """
    nnz = np.count_nonzero(work.weights.reshape(work.num_oc, -1), axis=1) * work.value_bytes
    issued = 0
    for stripe in tiling.stripes:
        (_, full), (_, last) = stripe.groups(tiling.group)
        part = stripe.part
        channels = (
            slice(part.first_ic * work.multiplier, (part.first_ic + part.num_ic) * work.multiplier)
            if work.is_depthwise
            else slice(None)
        )
        issued += int(nnz[channels].sum()) * ((stripe.num_groups - 1) * full + last)
    return LaneMacs(issued * config.num_lanes, int(nnz.sum()) * work.rows.size_out * work.cols.size_out)


def swapped_lane_macs(tiling: SwappedTiling, config: NpuConfig) -> LaneMacs:
    """Every pixel that a position meets, taken for not zero, meets every vector of output channels."""
    issued = useful = 0
    for job in tiling.jobs:
        num_tokens = tiling.geometry.num_ic * int(tiling.num_tokens(job, config.num_cores).sum())
        issued += num_tokens * job.num_vec(config) * config.num_lanes
        useful += num_tokens * job.num_oc
    return LaneMacs(issued, useful)


_CONVS = "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"
_PRODUCTS = "BATCH_MATMUL", "MatMul", "QLinearMatMul"
"""Of two activations, in TFLite and in ONNX."""
_RECURRENT = "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "LSTM", "GRU", "RNN"


def dense_macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of an operator with weights, or of a product of matrices, zeros included: each output meets
    a kernel, pads too; of a transposed convolution each input does, also where the result is cropped; of a recurrent
    layer each step meets every weight. 0 for any other operator.
    """
    if "macs" in op.options:
        return op.options["macs"]
    shapes = [graph.tensors[index].shape if index >= 0 else () for index in op.inputs]
    if op.kind == "TRANSPOSE_CONV":
        return prod(shapes[2]) * prod(shapes[1][:3])
    if op.kind in _RECURRENT:
        constants = [
            graph.tensors[index] for index in op.inputs if index >= 0 and graph.tensors[index].data is not None
        ]
        num_steps = prod(shapes[0][:-1])
        return num_steps * sum(prod(tensor.shape) for tensor in constants if len(tensor.shape) > 1)
    if not op.outputs:
        return 0
    out = graph.tensors[op.outputs[0]].shape
    if op.kind in _PRODUCTS:
        (height, width), rows = ((1, *shapes[0])[-2:], (1, *out)[-2])
        return prod(out) * (height * width // rows)
    if op.kind == "CONV_3D":
        return prod(out) * prod(shapes[1][:-1])
    if op.kind not in _CONVS:
        return 0
    kernel = shapes[1]
    return prod(out) * (kernel[1] * kernel[2] if op.kind == "DEPTHWISE_CONV_2D" else prod(kernel[1:]))
