"""Operators of ONNX networks -> what the NPU computes, with the results that onnxruntime has.

What has weights stays on the NPU even if some sums may give a result that differs by one (`ConvWork.num_doubts` counts
them); everything else is exact, or left to the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from convoy.driver.graph.graph import Graph, Op
from convoy.spec.isa import Rounding

from .float_factors import float_factors
from .operands import MAX_TAPS, activation, image, moved, nhwc, require
from .operators import check_axes, conv_axis
from .work import Axis, ConvWork, Lowering, LutWork

__all__ = ["ONNX_LOWERINGS"]

_FLOAT32_ROUNDING = float(np.finfo(np.float32).eps) / 2
"""Relative error of one rounding to float32."""
_FLOAT32_INTEGERS = 1 << 24
"""Float32 holds all integers up to it."""
_MAX_SUMS = 1 << 20
"""Of averages that are looked at one by one; of more, some are near a tie."""
_NUM_ROUNDINGS = 6
"""Of an average in float32 but for those of its sum: of each pixel, by the number of pixels, by the scale of the
result, where division may be a product with the inverse; and one for their products.
"""


def _lower_mean(graph: Graph, op: Op) -> ConvWork:
    """The mean of each channel over the whole image, which onnxruntime scales as it does the sums of convolutions."""
    _, height, width, _ = image(activation(graph, op.inputs[0]))
    rows, cols = Axis(height, 1, height), Axis(width, 1, width)
    return _float_average(graph, op, rows, cols) if op.options.get("is_float") else _average(graph, op, rows, cols)


def _lower_average_pool(graph: Graph, op: Op) -> ConvWork:
    in_shape, out_shape = (image(activation(graph, index)) for index in (op.inputs[0], op.outputs[0]))
    require(
        op.options["is_pad_counted"] or not any(op.options["pads"]),
        "an average at the edge is of fewer pixels; the NPU counts all alike",
    )
    rows = conv_axis(op, "h", in_shape[1], out_shape[1], op.options["filter_h"])
    cols = conv_axis(op, "w", in_shape[2], out_shape[2], op.options["filter_w"])
    check_axes(rows, cols)
    return _float_average(graph, op, rows, cols)


def _float_average(graph: Graph, op: Op, rows: Axis, cols: Axis) -> ConvWork:
    """An average that onnxruntime adds and divides in float32, in an order that is not known: exact results need every
    sum to be far from a tie, or scales with which nothing is rounded.
    """
    source, target = activation(graph, op.inputs[0]), activation(graph, op.outputs[0])
    num_pixels, info = rows.kernel * cols.kernel, np.iinfo(np.int8)
    zero_in, scale_in = int(source.quantisation.zero_point[0]), float(source.quantisation.scale[0])
    scale_out = float(target.quantisation.scale[0])
    low, high = info.min - zero_in, info.max - zero_in
    num_sums = (high - low) * num_pixels + 1
    are_sums_exact = _is_power_of_two(scale_in) and num_sums <= _FLOAT32_INTEGERS
    if not (are_sums_exact and _is_power_of_two(scale_out) and _is_power_of_two(num_pixels)):
        require(num_sums <= _MAX_SUMS, f"an average of {num_pixels} pixels in float32; too many sums are near a tie")
        sums = np.arange(low * num_pixels, high * num_pixels + 1)
        greatest = np.abs(sums)
        if low < 0 < high and not are_sums_exact:
            # What the absolute values of a sum's pixels add up to at most: those above zero are the greatest that
            # there are, those below it the least.
            greatest = sums + 2 * (num_pixels - sums / high) * (high * -low / (high - low))
        real = sums * (scale_in / scale_out / num_pixels)
        num_roundings = _NUM_ROUNDINGS + (0 if are_sums_exact else num_pixels)
        error = num_roundings * _FLOAT32_ROUNDING * greatest * (scale_in / scale_out / num_pixels)
        is_near = (np.abs(real - np.floor(real) - 0.5) <= error) & (np.abs(real) <= np.ptp((info.min, info.max)))
        require(
            not is_near.any(),
            f"{int(is_near.sum())} of {num_sums} sums are so near to a tie that float32 decides how they are rounded",
        )
    work = _average(graph, op, rows, cols)
    require(not work.num_doubts, "the factor cannot be applied exactly by the NPU's multiplier")
    return work


def _average(graph: Graph, op: Op, rows: Axis, cols: Axis) -> ConvWork:
    """The average of each channel under a window: a depthwise convolution with a kernel of ones."""
    source, target = activation(graph, op.inputs[0]), activation(graph, op.outputs[0])
    in_shape = image(source)
    num_ic, num_pixels, info = in_shape[3], rows.kernel * cols.kernel, np.iinfo(np.int8)
    require(
        num_pixels <= MAX_TAPS or (rows.kernel, cols.kernel, rows.pad, cols.pad) == (*in_shape[1:3], 0, 0),
        f"average of {num_pixels} pixels; the limit is {MAX_TAPS} if they are not the whole image",
    )
    scale_in, scale_out = source.quantisation.scale[0], target.quantisation.scale[0]
    zero_in, zero_out = int(source.quantisation.zero_point[0]), int(target.quantisation.zero_point[0])
    factor = scale_in / (scale_out * np.float32(num_pixels))
    bounds = np.array([[(info.min - zero_in) * num_pixels, (info.max - zero_in) * num_pixels]], np.int64)
    found = float_factors(np.array([factor], np.float32), bounds, target)
    mult, exponent, doubts = (np.broadcast_to(values, (num_ic,)).copy() for values in found)
    return ConvWork(
        num_ic,
        rows,
        cols,
        num_ic > 1,
        np.ones((num_ic, rows.kernel, cols.kernel, 1), np.int16),
        np.full(num_ic, -zero_in * num_pixels, np.int64),
        mult,
        exponent,
        zero_in,
        zero_out,
        int(info.min),
        int(info.max),
        Rounding.FLOAT,
        in_shape,
        num_doubts=int(doubts[0]),
    )


def _is_power_of_two(value: float) -> bool:
    return math.frexp(value)[0] == 0.5


def _lower_table(graph: Graph, op: Op) -> LutWork:
    source = moved(graph, op.inputs[0], is_wide_ok=False)
    moved(graph, op.outputs[0], is_wide_ok=False)
    require("table" in op.options, "its values are not those of a table")
    return LutWork(int(np.prod(nhwc(source.shape))), op.options["table"])


ONNX_LOWERINGS: Mapping[str, Lowering] = {
    "MEAN": _lower_mean,
    "AVERAGE_POOL_2D": _lower_average_pool,
    **dict.fromkeys(
        ("TABLE", "LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU", "RELU", "ELU", "GELU", "QUANTIZE"), _lower_table
    ),
}
