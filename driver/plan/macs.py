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

    from .tile import Tiling

__all__ = ["LaneMacs", "dense_macs", "lane_macs"]


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


def dense_macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of a convolution or fully connected layer, zeros included: each output meets a kernel,
    pads too; of a transposed convolution each input does, also where the result is cropped. 0 for any other
    operator.
    """
    if "macs" in op.options:
        return op.options["macs"]
    if op.kind == "TRANSPOSE_CONV":
        weights = graph.tensors[op.inputs[1]].shape
        return prod(graph.tensors[op.inputs[2]].shape) * prod(weights[:3])
    if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weights, out = graph.tensors[op.inputs[1]].shape, graph.tensors[op.outputs[0]].shape
    per_output = weights[1] * weights[2] if op.kind == "DEPTHWISE_CONV_2D" else prod(weights[1:])
    return prod(out) * per_output
