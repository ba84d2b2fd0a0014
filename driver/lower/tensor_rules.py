"""What LiteRT's reference kernels demand of the dtypes and the quantisation of an operator's tensors.

What they do not read is not looked at here either: scales and axis of a bias, the quantisation of constants that are
shapes or axes, and that of tensors which are only moved or compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op, Tensor

from .lut import LUT_KINDS
from .operands import describe, require

__all__ = ["check_tensors"]

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
    """Check an operator of a network as its file has it, uint8 not yet seen as int8.

    Raises
    ------
    GraphError
        When activations, or activations and weights, have dtypes that LiteRT does not run together or computes
        otherwise, or when a scale or a zero point that the operator computes with is not a number that its dtype
        allows.
    """
    rule = _RULES.get(op.kind)
    if op.kind == "SUM" and (dtype := graph.tensors[op.inputs[0]].dtype) in (np.int8, np.int16):
        raise GraphError(f"{describe(graph, op)} is of {dtype}; LiteRT's reference kernel computes uint8 only")
    if rule is None:
        return
    try:
        _check(graph, op, rule)
    except GraphError as error:
        raise GraphError(f"{describe(graph, op)}: {error}") from None


def _check(graph: Graph, op: Op, rule: _Rule) -> None:
    positions = range(len(op.inputs)) if rule.acts is None else rule.acts
    require(
        all(position < len(op.inputs) and op.inputs[position] >= 0 for position in positions),
        f"{len(op.inputs)} inputs; one is missing",
    )
    outputs = [graph.tensors[index] for index in op.outputs]
    acts = [graph.tensors[op.inputs[position]] for position in positions] + outputs
    for tensor in acts[1:] if rule.has_one_dtype else ():
        require(
            tensor.dtype == acts[0].dtype,
            f"{acts[0].name!r} is {acts[0].dtype}, {tensor.name!r} is {tensor.dtype}; they should have one dtype",
        )
    if rule.weights is not None and len(op.inputs) > rule.weights:
        weights, expected = graph.tensors[op.inputs[rule.weights]], _WEIGHT_DTYPES.get(acts[0].dtype)
        require(
            expected is None or weights.dtype == expected,
            (
                f"weights {weights.name!r} are {weights.dtype}; with activations of {acts[0].dtype} LiteRT takes "
                f"{expected} only; quantise both alike"
            ),
        )
    for tensor in acts if rule.is_computed else outputs if _has_clamp_or_fill(op) else ():
        _check_quantisation(tensor)


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
