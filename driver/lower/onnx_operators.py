"""Operators of ONNX networks -> what the NPU computes, with the results that onnxruntime has.

What has weights stays on the NPU even if some sums may give a result that differs by one (`ConvWork.num_doubts` counts
them); everything else is exact, or left to the host.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convoy.driver.graph.graph import Graph, Op
from convoy.spec.isa import NN, Rounding

from .float_factors import float_factors
from .operands import activation, image, moved, nhwc, require
from .operators import check_axes, conv_axis
from .work import Axis, ConvWork, Lowering, LutWork

__all__ = ["ONNX_LOWERINGS"]

MAX_TAPS = NN.fields["num_taps"].max


def _lower_mean(graph: Graph, op: Op) -> ConvWork:
    """The mean of each channel over the whole image, which onnxruntime scales as it does the sums of convolutions."""
    _, height, width, _ = image(activation(graph, op.inputs[0]))
    require(height * width <= MAX_TAPS, f"mean of {height} x {width} pixels; the limit is {MAX_TAPS}")
    return _average(graph, op, Axis(height, 1, height), Axis(width, 1, width))


def _lower_average_pool(graph: Graph, op: Op) -> ConvWork:
    """onnxruntime adds and divides in float32: exact results need every sum to be far from a tie."""
    source, target = activation(graph, op.inputs[0]), activation(graph, op.outputs[0])
    in_shape, out_shape, options = image(source), image(target), op.options
    require(
        options["is_pad_counted"] or not any(options["pads"]),
        "an average at the edge is of fewer pixels; the NPU counts all alike",
    )
    rows = conv_axis(op, "h", in_shape[1], out_shape[1], options["filter_h"])
    cols = conv_axis(op, "w", in_shape[2], out_shape[2], options["filter_w"])
    check_axes(rows, cols)
    num_pixels = options["filter_h"] * options["filter_w"]
    require(num_pixels <= MAX_TAPS, f"average of {num_pixels} pixels; the limit is {MAX_TAPS}")
    info, zero_in = np.iinfo(np.int8), int(source.quantisation.zero_point[0])
    sums = np.arange((info.min - zero_in) * num_pixels, (info.max - zero_in) * num_pixels + 1)
    real = sums * (float(source.quantisation.scale[0]) / float(target.quantisation.scale[0]) / num_pixels)
    error = (num_pixels + 4) * np.maximum(np.abs(real), 1) * float(np.finfo(np.float32).eps)
    num_near = int(
        ((np.abs(real - np.floor(real) - 0.5) <= error) & (np.abs(real) <= np.ptp((info.min, info.max)))).sum()
    )
    require(
        not num_near, f"{num_near} of {len(sums)} sums are so near to a tie that float32 decides how they are rounded"
    )
    work = _average(graph, op, rows, cols)
    require(not work.num_doubts, "the factor cannot be applied exactly by the NPU's multiplier")
    return work


def _average(graph: Graph, op: Op, rows: Axis, cols: Axis) -> ConvWork:
    """The average of each channel under a window: a depthwise convolution with a kernel of ones."""
    source, target = activation(graph, op.inputs[0]), activation(graph, op.outputs[0])
    in_shape = image(source)
    num_ic, num_pixels, info = in_shape[3], rows.kernel * cols.kernel, np.iinfo(np.int8)
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
