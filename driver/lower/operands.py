"""Tensors of an operator, checked for what the NPU can take."""

from __future__ import annotations

from math import prod

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op, Tensor
from convoy.spec.isa import NN, TP

from .quantise import activation_range

__all__ = [
    "MAX_PAD",
    "MAX_POOL_STRIDE",
    "MAX_TAPS",
    "Refusal",
    "activation",
    "axis_number",
    "centred",
    "clamp",
    "constant",
    "describe",
    "image",
    "integers",
    "moved",
    "nhwc",
    "require",
    "require_quant",
    "require_same_quant",
    "weight_constant",
]

MAX_PAD = NN.fields["pad_top"].max
MAX_TAPS = NN.fields["num_taps"].max
MAX_POOL_STRIDE = TP.fields["stride_h"].max


def nhwc(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A shape with ones put in front up to four axes; of more axes, all but the last three taken together."""
    height, width, channels = (1, 1, 1, *map(int, shape))[-3:]
    return prod(map(int, shape[:-3])), height, width, channels


class Refusal(GraphError):
    """The NPU cannot execute an operator, though it could be lowered."""

    def __init__(self, graph: Graph, op: Op, reason: str):
        super().__init__(f"{describe(graph, op)}: {reason}")
        self.index = op.part.index if op.part else op.index
        """Of the file's operator."""
        self.reason = reason

    def __reduce__(self) -> tuple:
        return GraphError, self.args


def describe(graph: Graph, op: Op) -> str:
    """How errors name an operator: kind, position, output tensor or assigned variable."""
    return f"operator {op.number} {op.title} ({graph.name_of(op)!r})"


def require(legal: bool, message: str) -> None:
    """Raise `GraphError` with `message` unless `legal`."""
    if not legal:
        raise GraphError(message)


def moved(graph: Graph, index: int, *, is_wide_ok: bool = True) -> Tensor:
    """An int8 activation, or an int16 one if `is_wide_ok`, whose values are moved or compared only: LiteRT does not
    look at its quantisation.

    Raises
    ------
    GraphError
        When the tensor is something else.
    """
    tensor = graph.tensors[index]
    require(tensor.data is None, f"{tensor.name!r} is a constant where an activation is expected")
    _require_dtype(tensor, is_wide_ok)
    return tensor


def activation(graph: Graph, index: int, *, is_wide_ok: bool = False) -> Tensor:
    """An int8 activation with one scale; with `is_wide_ok` perhaps int16, with zero point 0.

    Raises
    ------
    GraphError
        When the tensor is something else.
    """
    tensor = moved(graph, index, is_wide_ok=is_wide_ok)
    require_quant(tensor)
    return tensor


def _require_dtype(tensor: Tensor, is_wide_ok: bool) -> None:
    is_wide = tensor.dtype == np.int16
    require(
        is_wide_ok or not is_wide,
        (
            f"{tensor.name!r} is int16, which only convolutions, fully connected layers, moves, pools and operations "
            "on two tensors take"
        ),
    )
    require(
        is_wide or tensor.dtype == np.int8,
        f"{tensor.name!r} is {tensor.dtype}; the NPU computes on int8, uint8 and int16",
    )


def require_quant(tensor: Tensor) -> None:
    """Raise `GraphError` unless a tensor has one scale and zero point, which is 0 for int16."""
    require(
        tensor.quant is not None and tensor.quant.scale.size == tensor.quant.zero_point.size == 1,
        f"{tensor.name!r} needs one scale and zero point",
    )
    require(
        tensor.dtype != np.int16 or tensor.quantisation.zero_point[0] == 0,
        f"{tensor.name!r} is int16 with a zero point; use 0",
    )


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


def integers(graph: Graph, index: int, dtypes: tuple[type, ...] = (np.int32, np.int64)) -> np.ndarray:
    """A constant of axes, sizes or places in one of the `dtypes`; int64, in its shape.

    Raises
    ------
    GraphError
        When the tensor is something else.
    """
    tensor = graph.tensors[index]
    values = tensor.values
    names = ", ".join(np.dtype(dtype).name for dtype in dtypes)
    require(
        tensor.dtype in dtypes, f"{tensor.name!r} is {tensor.dtype}; axes, sizes and places are constants of {names}"
    )
    return values.astype(np.int64)


def axis_number(axis: int, rank: int) -> int:
    """An axis that may count from the end, as 0 .. `rank` - 1.

    Raises
    ------
    GraphError
        When there is no such axis.
    """
    require(-rank <= axis < rank, f"axis {axis} of a tensor of {rank} axes; use {-rank}..{rank - 1}")
    return axis % rank


def weight_constant(graph: Graph, op: Op) -> tuple[Tensor, int]:
    """Weights of an operator, int8 or uint8, and their zero point as LiteRT's kernels use it.

    The kernels of uint8, and FULLY_CONNECTED with one scale, subtract it. CONV_2D of int8 refuses another one than 0;
    the others of int8 do not look at it.

    Raises
    ------
    GraphError
        When the tensor is something else.
    """
    weights = graph.tensors[op.inputs[1]]
    is_unsigned = weights.dtype == np.uint8
    constant(graph, op.inputs[1], np.uint8 if is_unsigned else np.int8)
    quant = weights.quantisation
    is_ignored = op.kind in ("DEPTHWISE_CONV_2D", "TRANSPOSE_CONV") or (
        op.kind == "FULLY_CONNECTED" and quant.scale.size > 1
    )
    if not is_unsigned and is_ignored:
        return weights, 0
    zero_points = set(quant.zero_point.tolist())
    require(
        is_unsigned or op.kind == "FULLY_CONNECTED" or zero_points == {0},
        f"{weights.name!r} has a zero point; int8 weights of a {op.kind} are symmetric",
    )
    info = np.iinfo(weights.dtype)
    require(
        len(zero_points) == 1 and info.min <= min(zero_points) <= info.max,
        f"{weights.name!r} needs one zero point, {info.min}..{info.max}",
    )
    return weights, zero_points.pop()


def centred(weights: Tensor, zero_point: int) -> np.ndarray:
    """Weights less their zero point, int16."""
    return weights.values.astype(np.int16) - np.int16(zero_point)


def image(tensor: Tensor) -> tuple[int, int, int, int]:
    """The shape as NHWC of batch 1.

    Raises
    ------
    GraphError
        When it has more than four axes or another batch.
    """
    require(len(tensor.shape) <= 4, f"{tensor.name!r} has {len(tensor.shape)} axes; the NPU takes at most 4 here")
    shape = nhwc(tensor.shape)
    require(shape[0] == 1, f"batch {shape[0]} of {tensor.name!r}, whose images it does not treat alike")
    return shape


def clamp(op: Op, target: Tensor) -> tuple[int, int]:
    """Lowest and highest output under the fused activation of `op`.

    Raises
    ------
    GraphError
        When the activation is not one that the NPU fuses.
    """
    name, limits = op.options.get("activation", "NONE"), np.iinfo(target.dtype)
    if "clip" in op.options:
        quant = target.quantisation
        ends = np.rint(np.float32(op.options["clip"]) / quant.scale[0]) + quant.zero_point[0]
        low, high = np.clip(ends, limits.min, limits.max).astype(int).tolist()
        return low, high
    if name == "NONE":
        return int(limits.min), int(limits.max)
    require_quant(target)
    try:
        return activation_range(name, target.quantisation, target.dtype)
    except KeyError:
        raise GraphError(f"fused activation {name} is not supported") from None


def require_same_quant(source: Tensor, target: Tensor) -> None:
    """Raise `GraphError` unless two tensors have exactly the same scale and zero point, or both none, as some of
    LiteRT's kernels demand.
    """

    def params(tensor: Tensor) -> tuple[float, int]:
        quant = tensor.quant
        if quant is None or not quant.scale.size == quant.zero_point.size == 1:
            return 0.0, 0
        return float(quant.scale[0]), int(quant.zero_point[0])

    (scale_in, zero_in), (scale_out, zero_out) = params(source), params(target)
    require(
        (scale_in, zero_in) == (scale_out, zero_out),
        f"{source.name!r} has scale {scale_in:.9g}, {target.name!r} has {scale_out:.9g}, and their zero points "
        f"differ by {zero_in - zero_out}; they must have the same scale and zero point",
    )
