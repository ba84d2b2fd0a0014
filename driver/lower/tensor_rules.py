"""What LiteRT's reference kernels demand of the dtypes and the quantisation of an operator's tensors.

What they do not read is not looked at here either: scales and axis of a bias, the quantisation of constants that are
shapes or axes, and that of tensors which are only moved or compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op, Tensor

from .lut import LUT_KINDS
from .operands import describe, require

__all__ = ["check_tensors", "tensor_obstacle"]

MIN_SCALE = float(np.finfo(np.float32).tiny)
"""Smallest scale: the reciprocals of smaller numbers are not finite in float32."""


@dataclass(frozen=True)
class _Rule:
    """The tensors of an operator that hold values of the network."""

    acts: tuple[int, ...] | None
    """Positions of the inputs that are activations, or constants in their place; None: all."""
    weights: int | None = None
    """Position of the weights."""
    is_computed: bool = True
    """The values are computed with, so that their quantisation matters."""
    has_one_dtype: bool = True


_MOVE = _Rule((0,), is_computed=False)
_CONVERSION = _Rule((0,), has_one_dtype=False)
_RULES = {
    **dict.fromkeys(LUT_KINDS, _Rule((0,))),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), _Rule((0,), weights=1)),
    "TRANSPOSE_CONV": _Rule((2,), weights=1),
    **dict.fromkeys(("ADD", "SUB", "MUL"), _Rule((0, 1))),
    **dict.fromkeys(("MEAN", "SUM"), _Rule((0,))),
    **dict.fromkeys(("QUANTIZE", "DEQUANTIZE", "SOFTMAX"), _CONVERSION),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), _Rule((0, 1), is_computed=False)),
    **dict.fromkeys(("CONCATENATION", "PACK"), _Rule(None, is_computed=False)),
    **dict.fromkeys(("SPLIT",), _Rule((1,), is_computed=False)),
    "PADV2": _Rule((0, 2), is_computed=False),
    **dict.fromkeys(
        (
            "MAX_POOL_2D",
            "AVERAGE_POOL_2D",
            "REDUCE_MAX",
            "REDUCE_MIN",
            "PAD",
            "SLICE",
            "STRIDED_SLICE",
            "SPLIT_V",
            "SPACE_TO_DEPTH",
            "DEPTH_TO_SPACE",
            "TRANSPOSE",
            "RESIZE_NEAREST_NEIGHBOR",
            "RESIZE_BILINEAR",
            "RESHAPE",
            "SQUEEZE",
            "EXPAND_DIMS",
            "GATHER",
            "TILE",
            "MIRROR_PAD",
            "UNPACK",
            "BROADCAST_TO",
        ),
        _MOVE,
    ),
}
_WEIGHT_DTYPES = {
    np.dtype(np.int8): np.dtype(np.int8),
    np.dtype(np.uint8): np.dtype(np.uint8),
    np.dtype(np.int16): np.dtype(np.int8),
}
"""Of the weights, by dtype of the activations."""


def check_tensors(graph: Graph, op: Op) -> None:
    """Refuse an operator of a network as its file has it, uint8 not yet seen as int8, that LiteRT's kernels would read
    beyond its tensors for.

    Raises
    ------
    GraphError
        When activations, or activations and weights, should have one dtype and are not of one size either; where
        LiteRT's kernels leave a part of the result unwritten.
    """
    try:
        require(
            op.kind != "SUM" or graph.tensors[op.inputs[0]].dtype != np.int16,
            "LiteRT's reference kernel leaves half of a SUM of int16 unwritten; use MEAN",
        )
        require(
            not _takes_one_backwards(graph, op),
            "LiteRT's kernel leaves the result unwritten where one element of an axis is taken with a negative step; "
            "use 1",
        )
        for tensor, expected, message in _other_dtypes(graph, op):
            require(tensor.dtype.itemsize == expected.itemsize, message)
    except GraphError as error:
        raise GraphError(f"{describe(graph, op)}: {error}") from None


def _takes_one_backwards(graph: Graph, op: Op) -> bool:
    """Does a STRIDED_SLICE drop an axis for which it has a negative step?"""
    mask = op.options.get("shrink_axis_mask", 0) if op.kind == "STRIDED_SLICE" and len(op.inputs) == 4 else 0
    steps = graph.tensors[op.inputs[3]].data if mask else None
    return steps is not None and any(step < 0 and mask >> axis & 1 for axis, step in enumerate(steps.reshape(-1)))


def tensor_obstacle(graph: Graph, op: Op) -> str | None:
    """What an operator that `check_tensors` lets pass has that only LiteRT's kernels make something of: activations and
    weights of several dtypes, or a scale or a zero point that it computes with and that is not a number which its dtype
    allows. None if there is nothing.
    """
    rule = _RULES.get(op.kind)
    if op.kind == "SUM" and graph.tensors[op.inputs[0]].dtype == np.int8:
        return "LiteRT's reference kernel of SUM reads int8 as uint8"
    if rule is None:
        return None
    acts, outputs = _acts(graph, op, rule)
    try:
        for *_, message in _other_dtypes(graph, op):
            return message
        for tensor in acts if rule.is_computed else outputs if _has_clamp_or_fill(op) else ():
            _check_quantisation(tensor)
    except GraphError as error:
        return str(error)
    return None


def _acts(graph: Graph, op: Op, rule: _Rule) -> tuple[list[Tensor], list[Tensor]]:
    """Activations that an operator reads and writes, and those that it writes."""
    positions = range(len(op.inputs)) if rule.acts is None else rule.acts
    require(
        all(position < len(op.inputs) and op.inputs[position] >= 0 for position in positions),
        f"{len(op.inputs)} inputs; one is missing",
    )
    outputs = [graph.tensors[index] for index in op.outputs]
    return [graph.tensors[op.inputs[position]] for position in positions] + outputs, outputs


def _other_dtypes(graph: Graph, op: Op) -> Iterator[tuple[Tensor, np.dtype, str]]:
    """Tensors of other dtypes than expected: the tensor, the dtype, and both in a sentence."""
    rule = _RULES.get(op.kind)
    if rule is None:
        return
    acts, _ = _acts(graph, op, rule)
    for tensor in acts[1:] if rule.has_one_dtype else ():
        if tensor.dtype != acts[0].dtype:
            yield (
                tensor,
                acts[0].dtype,
                f"{acts[0].name!r} is {acts[0].dtype}, {tensor.name!r} is {tensor.dtype}; they should have one dtype",
            )
    if rule.weights is not None and len(op.inputs) > rule.weights:
        weights, expected = graph.tensors[op.inputs[rule.weights]], _WEIGHT_DTYPES.get(acts[0].dtype)
        if expected is not None and weights.dtype != expected:
            yield (
                weights,
                expected,
                f"weights {weights.name!r} are {weights.dtype}; with activations of {acts[0].dtype} LiteRT takes "
                f"{expected} only; quantise both alike",
            )


def _has_clamp_or_fill(op: Op) -> bool:
    """Does an operator that moves or compares values need the quantisation of its output?"""
    return op.kind == "PAD" or op.options.get("activation", "NONE") != "NONE"


def _check_quantisation(tensor: Tensor) -> None:
    """Scale and zero point of an activation; that there is one of each is checked where they are used."""
    if tensor.quant is None or tensor.dtype.kind not in "iu" or tensor.dtype.itemsize > 2:
        return
    for scale in tensor.quant.scale.tolist():
        require(
            MIN_SCALE <= scale < float("inf"),
            f"the scale of {tensor.name!r} is {scale:g}; scales are finite and at least {MIN_SCALE:.3g}",
        )
    info = np.iinfo(tensor.dtype)
    for zero_point in tensor.quant.zero_point.tolist():
        require(
            info.min <= zero_point <= info.max,
            f"the zero point of {tensor.name!r} is {zero_point}; in {tensor.dtype} it is {info.min}..{info.max}; "
            "quantise anew",
        )
