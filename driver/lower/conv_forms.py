"""Convolutions that the NPU does not take as they are, in forms that it takes."""

from __future__ import annotations

import numpy as np

from convoy.driver.graph.graph import Quant, Tensor

from .operands import image, require, weight_constant
from .parts import Expansion, Parts

__all__ = ["CONV_EXPANSIONS"]


def _weights(parts: Parts, weights: Tensor, values: np.ndarray, axis: int = 0) -> int:
    """Add other weights with the scales of `weights`, along `axis` if there are several; the index."""
    quant = weights.quantisation
    return parts.constant(np.ascontiguousarray(values), Quant(quant.scale, quant.zero_point, axis))


def _grouped(parts: Parts) -> bool:
    """A convolution whose kernels see a part of the channels each: zeros for the others, which the NPU skips. With one
    channel for each kernel it is a depthwise convolution.
    """
    op = parts.op
    weights, zero_point = weight_constant(parts.graph, op)
    require(len(weights.shape) == 4, f"{weights.name!r} has {len(weights.shape)} axes")
    (num_oc, kernel_h, kernel_w, num_ic), channels = weights.shape, image(parts[op.inputs[0]])[3]
    if num_ic == channels or channels % num_ic or num_oc % (channels // num_ic):
        return False
    num_groups = channels // num_ic
    if num_ic == 1:
        kernels = _weights(parts, weights, weights.values.transpose(3, 1, 2, 0), 3)
        options = op.options | {"depth_multiplier": num_oc // channels}
        parts.add("DEPTHWISE_CONV_2D", (op.inputs[0], kernels, *op.inputs[2:]), op.outputs, **options)
        return True
    dense = np.full((num_groups, num_oc // num_groups, kernel_h, kernel_w, num_groups, num_ic), zero_point)
    for group, part in enumerate(np.split(weights.values, num_groups)):
        dense[group, ..., group, :] = part
    kernels = _weights(parts, weights, dense.astype(weights.dtype).reshape(num_oc, kernel_h, kernel_w, channels))
    num_pixels = np.prod(parts[op.outputs[0]].shape[:3], dtype=int)
    options = op.options | {"macs": int(num_pixels) * weights.values.size}
    parts.add(op.kind, (op.inputs[0], kernels, *op.inputs[2:]), op.outputs, **options)
    return True


CONV_EXPANSIONS: dict[str, tuple[Expansion, ...]] = {"CONV_2D": (_grouped,)}
"""By kind of operator."""
