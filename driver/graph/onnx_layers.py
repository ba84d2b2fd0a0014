"""Convolutions, matrix products and averages of ONNX: what those on bytes and those in float have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from convoy.driver.ort.runtime import onnx_package

from .graph import Quant
from .onnx_builder import Activation, Node, OnnxBuilder, suits
from .onnx_moves import pads_and_steps, transpose, window

__all__ = ["convolution", "emit_average", "scaled", "turned", "weights_constant"]


def convolution(
    node: Node, shape: tuple[int, ...], weights: np.ndarray, quant: Quant
) -> tuple[str, dict[str, Any], np.ndarray, Quant]:
    """A convolution of an input of this shape as the graph has it: its kind, its options, its weights and their
    quantisation. `Unsuited` if it is not along one or two axes.
    """
    suits(len(shape) in (3, 4))
    options = pads_and_steps(node, shape[2:], weights.shape[2:])
    if weights.ndim == 3:
        weights = weights[:, :, None]
    group = node.attrs.get("group", 1)
    if group == shape[1] and weights.shape[1] == 1:
        options["depth_multiplier"] = weights.shape[0] // group
        return "DEPTHWISE_CONV_2D", options, weights.transpose(1, 2, 3, 0), replace(quant, axis=3)
    return "CONV_2D", options, weights.transpose(0, 2, 3, 1), replace(quant, axis=0)


def weights_constant(builder: OnnxBuilder, name: str, quant: Quant, values: np.ndarray) -> int:
    """Weights as a constant: int8 with a zero point becomes uint8, as the NPU has only one kind with a zero point."""
    if values.dtype == np.int8 and quant.zero_point.any():
        values, quant = (values.view(np.uint8) ^ 0x80), replace(quant, zero_point=quant.zero_point + 128)
    return builder.constant(name, np.ascontiguousarray(values), quant)


def turned(builder: OnnxBuilder, nodes: Sequence[Node], name: str, quant: Quant) -> list[Node]:
    """Nodes of a product whose first matrix is transposed, for the matrix that a TRANSPOSE makes."""
    suits(builder.is_byte(name) and len(builder.values[name][0]) == 2)
    shape, dtype = builder.values[name]
    output, perm = f"{name} (transposed)", [1, 0]
    builder.values[output] = shape[::-1], dtype
    builder.act(name, False, quant)
    raw = onnx_package().helper.make_node("Transpose", [name], [output], perm=perm)
    transpose(builder, Node("Transpose", (name,), (output,), {"perm": perm}, raw.SerializeToString()))
    return [node.renamed({name: output}, transA=0) for node in nodes]


def scaled(quant: Quant, factor: float) -> Quant:
    """With its scale times a factor."""
    return replace(quant, scale=quant.scale * np.float32(factor))


def emit_average(builder: OnnxBuilder, nodes: list[Node], pool: Node, source: Activation, target: Activation) -> None:
    """Emit an average over windows. Raises `Unsuited`, before anything else, if it is none for the NPU."""
    shape, out_shape = builder.values[source[0]][0], builder.values[target[0]][0]
    options = window(pool, shape, out_shape)
    suits(not pool.attrs.get("ceil_mode", 0))
    options["is_pad_counted"] = bool(pool.attrs.get("count_include_pad", 0))
    inputs, outputs = [builder.act(source[0], True, source[1])], [builder.new(target[0], True, target[1])]
    builder.emit("AVERAGE_POOL_2D", nodes, inputs, outputs, **options)
