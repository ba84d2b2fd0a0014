"""Tensors of an operator, checked for what the NPU can take."""

from __future__ import annotations

import numpy as np

from .graph import Graph, GraphError, Op, Tensor
from .quantise import activation_range

__all__ = ["activation", "centred", "clamp", "constant", "describe", "image", "nhwc", "require", "require_same_quant", "weight_constant"]


def nhwc(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A shape of at most four axes with ones put in front.

    Raises
    ------
    GraphError
        When there are more than four axes.
    """
    if len(shape) > 4:
        raise GraphError(f"shape {tuple(shape)} has more than 4 axes")
    return (1,) * (4 - len(shape)) + tuple(int(extent) for extent in shape)


def describe(graph: Graph, op: Op) -> str:
    """How errors name an operator: kind, position, output tensor or assigned variable."""
    return f"operator {op.index} {op.kind} ({graph.name_of(op)!r})"


def require(legal: bool, message: str) -> None:
    """Raise `GraphError` with `message` unless `legal`."""
    if not legal:
        raise GraphError(message)


def activation(graph: Graph, index: int, *, is_wide_ok: bool = False) -> Tensor:
    """An int8 activation with one scale; with `is_wide_ok` perhaps int16, with zero point 0.

    Raises
    ------
    GraphError
        When the tensor is something else.
    """
    tensor = graph.tensors[index]
    require(tensor.data is None, f"{tensor.name!r} is a constant where an activation is expected")
    is_wide = tensor.dtype == np.int16
    require(is_wide_ok or not is_wide, f"{tensor.name!r} is int16, which only convolutions, fully connected layers, moves, pools and operations on two tensors take")
    require(is_wide or tensor.dtype == np.int8, f"{tensor.name!r} is {tensor.dtype}; the NPU computes on int8, uint8 and int16")
    require(tensor.quant is not None and tensor.quant.scale.size == 1, f"{tensor.name!r} needs one scale and zero point")
    require(not is_wide or tensor.quant.zero_point[0] == 0, f"{tensor.name!r} is int16 with a zero point; use 0")
    return tensor


def constant(graph: Graph, index: int, dtype: type) -> Tensor:
    """A constant of `dtype`.

    Raises
    ------
    GraphError
        When the tensor is something else.
    """
    tensor = graph.tensors[index]
    require(tensor.data is not None, f"{tensor.name!r} must be a constant")
    require(tensor.dtype == dtype, f"{tensor.name!r} is {tensor.dtype}; the NPU takes {np.dtype(dtype)}")
    return tensor


def weight_constant(graph: Graph, index: int) -> tuple[Tensor, int]:
    """Weights of int8, or of uint8 with one zero point; and their `NN.wgt_zero_point`.

    Raises
    ------
    GraphError
        When the tensor is something else.
    """
    weights = graph.tensors[index]
    is_unsigned = weights.dtype == np.uint8
    constant(graph, index, np.uint8 if is_unsigned else np.int8)
    require(weights.quant is not None, f"{weights.name!r} needs a scale")
    zero_points = set(weights.quant.zero_point.tolist())
    require(is_unsigned or zero_points == {0}, f"{weights.name!r} has a zero point; int8 weights are symmetric")
    require(len(zero_points) == 1 and 0 <= min(zero_points) <= 255, f"{weights.name!r} needs one zero point, 0..255")
    return weights, zero_points.pop() - 128 if is_unsigned else 0


def centred(weights: Tensor) -> np.ndarray:
    """Weights less their zero point, int16."""
    return weights.data.astype(np.int16) - np.int16(weights.quant.zero_point[0])


def image(tensor: Tensor) -> tuple[int, int, int, int]:
    """The shape as NHWC of batch 1.

    Raises
    ------
    GraphError
        When it has more than four axes or another batch.
    """
    shape = nhwc(tensor.shape)
    require(shape[0] == 1, f"batch {shape[0]} of {tensor.name!r}; only batch 1 is supported")
    return shape


def clamp(op: Op, target: Tensor) -> tuple[int, int]:
    """Lowest and highest output under the fused activation of `op`.

    Raises
    ------
    GraphError
        When the activation is not one that the NPU fuses.
    """
    name = op.options.get("activation", "NONE")
    try:
        return activation_range(name, target.quant, target.dtype)
    except KeyError:
        raise GraphError(f"fused activation {name} is not supported") from None


def require_same_quant(source: Tensor, target: Tensor) -> None:
    """Raise `GraphError` unless two tensors have the same dtype, scale and zero point."""
    require(source.dtype == target.dtype, f"{source.name!r} is {source.dtype}, {target.name!r} is {target.dtype}; they should be the same")
    same = np.isclose(source.quant.scale[0], target.quant.scale[0], rtol=1e-6) and source.quant.zero_point[0] == target.quant.zero_point[0]
    require(bool(same), "input and output must have the same scale and zero point")
